"""Entry points to plug-ins: the only file that knows that plug-ins are packages.

Listing reads the metadata of installed packages and imports none of them. Loading imports the one that is asked for.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

from pydantic import ConfigDict
from stevedore.driver import DriverManager

from soarctl.api import Domain, Plugin, Reward, Sampler, Trainer
from soarctl.errors import PluginError, SoarError
from soarctl.validation import Locate, nearest, validate

GROUPS: Mapping[type[Plugin], str] = {
    Domain: "soarctl.domains",
    Reward: "soarctl.rewards",
    Trainer: "soarctl.trainers",
    Sampler: "soarctl.samplers",
}

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point, as `soarctl plugins` shows it."""

    kind: str
    name: str
    package: str
    version: str
    target: str
    """`module:Class`"""
    problem: str | None = None
    """Why it cannot be used, as far as that was looked at."""


def section(kind: type[Plugin]) -> str:
    """What a kind is called, which is also the section that names it: "domain", and "sampler" within "trainer"."""
    return kind.__name__.lower()


def load(kind: type[P], name: str, options: Mapping[str, Any], *, at: Locate | str = "") -> P:
    """A plug-in with its options. Cheap: what it does at length it does in its own `load`.

    A plug-in may have another one: a field of the type `Sampler` is a section that names a sampler.

    Args:
        kind: Domain, Reward, Trainer or Sampler.
        name: as in the spec.
        options: the other keys of the section.
        at: where a key stands (`LoadedSpec.at`), or how errors call the section; by its kind if nothing is given.

    Raises:
        PluginError: there is no such plug-in, it is broken, or two packages have one of that name.
        SpecError: the plug-in refuses its options.
    """
    here = section(kind)
    locate = _called(at or here, here) if isinstance(at, str) else at
    found = _find(kind, name, locate(f"{here}.plugin"))
    plugin = _import(kind, found, locate(f"{here}.plugin"))
    inner = {
        name: _load_inner(inner_kind, name, options[name], lambda key: locate(f"{here}.{key}"))
        for name, inner_kind in inner_kinds(plugin).items()
        if name in options
    }
    own = {name: value for name, value in options.items() if name not in inner}
    try:
        return validate(plugin, own, locate(here), locate, under=(here,), inner=inner)
    except SoarError:
        raise
    except Exception as error:  # the boundary around a plug-in: its validators may raise anything
        raise PluginError(
            f'{here} "{name}" failed on its options: {_said(error)}',
            at=locate(here),
            hint=f"it is {found.value} of {_origin(found)}",
        ) from error


def inner_kinds(plugin: type[Plugin]) -> dict[str, type[Plugin]]:
    """The fields of a plug-in that hold another plug-in, with the kinds of those."""
    return {name: kind for name, field in plugin.model_fields.items() for kind in GROUPS if field.annotation is kind}


def options_of(plugin: Plugin) -> dict[str, Any]:
    """All options of a plug-in, defaults included, as a spec would have them."""
    # By alias and without computed fields: what the plug-in reads back as itself.
    options = plugin.model_dump(mode="json", by_alias=True, round_trip=True)
    for name, kind in inner_kinds(type(plugin)).items():
        inner: Plugin = getattr(plugin, name)
        options[name] = {"plugin": _name(kind, type(inner)), **options_of(inner)}
    return options


def load_class(kind: type[P], name: str) -> type[P]:
    """The class of a plug-in, for its schema or documentation.

    Raises:
        PluginError: as `load`.
    """
    here = f"{section(kind)}.plugin"
    return _import(kind, _find(kind, name, here), here)


def describe(*, check: bool = False) -> list[Installed]:
    """Every installed plug-in, and the two sides of every name that stands twice.

    Args:
        check: import each one, to see whether it can be.
    """
    return [_describe(kind, found, check) for kind in GROUPS for found in _installed(kind)]


def origin(kind: type[Plugin], name: str) -> str:
    """Name and version of the package that a plug-in comes from: "soarctl 0.1.0"."""
    return _origin(_find(kind, name, f"{section(kind)}.plugin"))


class _Section(Plugin):
    """A section that names a plug-in, with the options of that beside the name."""

    model_config = ConfigDict(extra="allow")

    plugin: str


def _load_inner(kind: type[P], name: str, written: Any, locate: Locate) -> P:
    values = written if isinstance(written, dict) else {"plugin": written}
    chosen = validate(_Section, values, locate(name), locate, under=(name,))
    return load(kind, chosen.plugin, {key: value for key, value in values.items() if key != "plugin"}, at=locate)


def _name(kind: type[Plugin], plugin: type[Plugin]) -> str:
    """Under which name a class is installed."""
    target = f"{plugin.__module__}:{plugin.__qualname__}"
    found = [each.name for each in _installed(kind) if each.value.replace(" ", "") == target]
    if not found:
        raise PluginError(f"{target} is not installed as a {section(kind)}", hint=f"it needs a name in {GROUPS[kind]}")
    return found[0]


class _Driver(DriverManager[Any]):
    # stevedore keeps a cache of entry points on disk that can miss a change of the last two minutes.
    def list_entry_points(self) -> list[EntryPoint]:
        return list(entry_points(group=self.namespace))


def _installed(kind: type[Plugin]) -> list[EntryPoint]:
    return sorted(entry_points(group=GROUPS[kind]), key=lambda found: (found.name, _origin(found)))


def _find(kind: type[Plugin], name: str, at: str) -> EntryPoint:
    installed = _installed(kind)
    same = [found for found in installed if found.name == name]
    if len(same) > 1:
        raise PluginError(
            f'{len(same)} packages have a {section(kind)} called "{name}"',
            at=at,
            hint="uninstall all but one of them:\n" + "\n".join(f"{_origin(each)}, {each.value}" for each in same),
        )
    if not same:
        names = sorted({found.name for found in installed})
        close = nearest(name, names)
        known = f"installed: {', '.join(names)}" if names else "none is installed; is soarctl itself?"
        raise PluginError(
            f'no {section(kind)} is called "{name}"', at=at, hint=f'did you mean "{close}"?' if close else known
        )
    return same[0]


def _import(kind: type[P], found: EntryPoint, at: str) -> type[P]:
    what = f'{section(kind)} "{found.name}"'
    try:
        # .extensions[0].plugin and not .driver, which is the same only as long as nothing is invoked
        driver = _Driver(found.group, found.name, on_load_failure_callback=_raise)
        plugin = cast(object, driver.extensions[0].plugin)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{what} cannot be imported: {_said(error)}",
            at=at,
            hint=f"it is {found.value} of {_origin(found)}; repair or uninstall that package",
        ) from error
    if not (isinstance(plugin, type) and issubclass(plugin, kind)):
        raise PluginError(
            f"{what} is not a subclass of soarctl.api.{kind.__name__}",
            at=at,
            hint=f"it is {found.value} of {_origin(found)}",
        )
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        raise PluginError(
            f"{what} lacks what every {section(kind)} has: {missing}",
            at=at,
            hint=f"it is {found.value} of {_origin(found)}",
        )
    return plugin


def _describe(kind: type[Plugin], found: EntryPoint, check: bool) -> Installed:
    problem = None
    try:
        _find(kind, found.name, section(kind))
        if check:
            _import(kind, found, section(kind))
    except PluginError as error:
        problem = error.message
    package, _, version = _origin(found).partition(" ")
    return Installed(section(kind), found.name, package, version, found.value, problem)


def _called(front: str, section: str) -> Locate:
    return lambda key: front + key.removeprefix(section)


def _raise(manager: Any, found: EntryPoint, error: BaseException) -> None:
    raise error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _origin(found: EntryPoint) -> str:
    """Name and version of the package that an entry point comes from."""
    return f"{found.dist.name} {found.dist.version}" if found.dist else "an unknown package"
