"""From a YAML file to a checked spec: `extends`, overrides, plug-in options, and errors that say where.

loaded = load_spec("specs/quickstart.yaml", ["outer.steps=5"])
loaded.spec.outer.steps      # 5
loaded.at("outer.steps")     # "--set outer.steps=5"
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from soarctl import plugins
from soarctl.api import Domain, Plugin, Reward, Trainer
from soarctl.errors import SoarError, SpecError
from soarctl.located import MAX_BYTES, OPTION, Key, Located, Place, SpecProblems, decode, dotted, parse
from soarctl.spec import RewardSection, Spec, TrainerSection
from soarctl.spec_writer import dump_spec
from soarctl.validation import nearest, validate

__all__ = ["LoadedSpec", "Override", "dump_spec", "load_spec", "parse_spec", "read_tree"]

MAX_EXTENDS = 10
_PLUGIN_BY_DEFAULT = {
    "reward": RewardSection.model_fields["plugin"].default,
    "trainer": TrainerSection.model_fields["plugin"].default,
}
"""Of a section that names none. A domain is always named."""


@dataclass(frozen=True, slots=True)
class Override:
    """A value that the command line changed."""

    key: str
    old: Any
    """What the run would have used otherwise; None where there was nothing."""
    new: Any
    source: str
    """As it was given: `--set teacher.lr=1e-4`."""


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A spec that has been checked whole, with its plug-ins and with where each value came from."""

    spec: Spec
    """Resolved: plug-in sections hold all options, defaults included."""
    domain: Domain
    reward: Reward
    trainer: Trainer
    files: tuple[str, ...]
    """The file asked for, then those it extends."""
    overrides: tuple[Override, ...]
    places: Mapping[str, Place]

    @property
    def text(self) -> str:
        """The resolved spec as YAML, which loads to the same spec."""
        return dump_spec(self.spec)

    @property
    def hash(self) -> str:
        """SHA-256 of `text`: equal where two specs ask for the same run."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def at(self, key: str) -> str:
        """Where a key stands, for the front of an error: `specs/a.yaml:12:5: domain.length`.

        A key that nobody wrote is located at the section it would be in.
        """
        return _at(self.places, self.files[0], key)


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, first: Sequence[str] = ()) -> LoadedSpec:
    """Reads and checks a spec, its plug-ins and their options. Loads no data and no model.

    Args:
        path: a YAML file.
        overrides: `key=value` each, the value in YAML; the last one of a key counts.
        first: changes as well, made in the file before the overrides are. An override that changes a plug-in drops the
            options of the old one that are set here, as it drops those in the file.

    Raises:
        SpecError: with file, line, column and key of every problem.
        PluginError: a plug-in is unknown, broken, or stands twice, and that is the only problem.
    """
    files: list[str] = []
    base = _read(str(path), files)
    layers = [[_override(text) for text in texts] for texts in (first, overrides)]
    tree = base
    for layer in layers:
        tree = _changed(tree, layer)
    _refuse_study(tree, files[0])
    resolved = _resolve(tree, files[0])
    return LoadedSpec(
        spec=resolved.spec,
        domain=resolved.domain,
        reward=resolved.reward,
        trainer=resolved.trainer,
        files=tuple(files),
        overrides=_record([*layers[0], *layers[1]], base, resolved.spec, files[0]),
        places=_places(tree),
    )


def is_study(tree: Located) -> bool:
    """Whether values are the spec of a study: it names the spec of its runs, and a run has no such key."""
    return isinstance(tree.value, dict) and "run" in tree.value and "model" not in tree.value


def _refuse_study(tree: Located, path: str) -> None:
    if is_study(tree):
        raise SpecError(
            "this is the spec of a study, not of a run",
            at=path,
            hint=f"`soarctl study {path}` runs it, and `soarctl validate {path}` checks it;\n"
            f"its runs follow {tree.plain()['run']}, beside it",
        )


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Located, Callable[[str], str]]:
    """The values of any spec, `extends` and overrides applied, and what says where a key stands.

    Raises:
        SpecError: it cannot be read, or is not YAML that a spec may use.
    """
    tree = _read(str(path), [])
    for text in overrides:
        tree = _merge(tree, _override(text)[1])
    places = _places(tree)
    return tree, lambda key: _at(places, str(path), key)


def parse_spec(text: str, source: str) -> Spec:
    """The spec in a text that `dump_spec` wrote, without its plug-ins, which need not be installed.

    Raises:
        SpecError: the text is no spec; `source` says where it came from.
    """
    tree = _mapping(parse(text, source), source)
    places = _places(tree)
    return validate(Spec, tree.plain(), source, lambda key: _at(places, source, key))


# --- files ---


def _read(path: str, files: list[str], at: str | None = None) -> Located:
    """The tree of a file, merged into the one that it extends. Appends what it reads to `files`."""
    files.append(path)
    tree = _mapping(parse(decode(_content(path, at), path), path), path)
    if not isinstance(tree.value, dict) or "extends" not in tree.value:
        return tree
    entries = dict(tree.value)
    extends = entries.pop("extends")
    here = extends.place.of("extends")
    if not isinstance(extends.value, str) or not extends.value:
        raise SpecError("expected the name of a file", at=here)
    other = os.path.normpath(os.path.join(os.path.dirname(path), extends.value))
    if any(_same_file(other, earlier) for earlier in files):
        raise SpecError(f"{other} extends itself: {' -> '.join([*files, other])}", at=here)
    if len(files) > MAX_EXTENDS:
        raise SpecError(f"more than {MAX_EXTENDS} files extend each other", at=here)
    return _merge(_read(other, files, here), replace(tree, value=entries))


def _content(path: str, at: str | None) -> bytes:
    """The bytes of a file, which is looked at before it is read.

    Args:
        path: which file.
        at: the `extends` that asks for it, if it is not the one the user named.
    """

    def wrong(message: str, hint: str | None = None) -> SpecError:
        return (
            SpecError(message, at=path, hint=hint) if at is None else SpecError(f"{path}: {message}", at=at, hint=hint)
        )

    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            inside = sorted(name for name in os.listdir(path) if name.endswith((".yaml", ".yml")))[:5]
            raise wrong("a directory, not a spec", f"it holds {', '.join(inside)}" if inside else None)
        if not stat.S_ISREG(status.st_mode):
            raise wrong("not a regular file")
        if status.st_size > MAX_BYTES:
            raise wrong(f"{status.st_size:,} bytes; a spec has at most {MAX_BYTES:,}", "is this the right file?")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise wrong("no such file", _hint_for_missing(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise wrong(f"cannot be read: {reason[:1].lower()}{reason[1:]}") from None


def _hint_for_missing(path: str) -> str | None:
    folder, name = os.path.split(path)
    try:
        beside = [entry for entry in os.listdir(folder or ".") if entry.endswith((".yaml", ".yml"))]
    except OSError:
        return f"there is no folder {folder}"
    close = nearest(name, beside)
    return f"did you mean {os.path.join(folder, close)}?" if close else None


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _mapping(tree: Located | None, source: str) -> Located:
    if tree is None or tree.value is None:
        raise SpecError(
            "the spec is empty",
            at=source,
            hint="it needs at least name, model.base and domain.plugin; `soarctl schema` lists all keys",
        )
    if not isinstance(tree.value, dict):
        kind = "a list" if isinstance(tree.value, list) else "a single value"
        raise SpecError(f"expected keys and values, found {kind}", at=str(tree.place))
    return tree


# --- overrides ---


def _override(text: str) -> tuple[Key, Located]:
    """The key of a `key=value`, and a tree that holds nothing but its value."""
    source = OPTION + text
    name, equals, written = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise SpecError("expected KEY=VALUE", at=source, hint="for example --set teacher.lr=1e-4")
    if key[0] == "extends":
        raise SpecError("a spec says itself what it extends", at=source)
    place = Place(source)
    if len(written.encode(errors="replace")) > MAX_BYTES or len(key) > 20:
        raise SpecError("longer than a whole spec may be", at=f"{OPTION}{name[:60]}")
    tree = parse(written, source) or Located(None, place)
    for part in reversed(key):
        tree = Located({part: tree}, place)
    return key, tree


def _changed(tree: Located, options: Sequence[tuple[Key, Located]]) -> Located:
    """A tree with changes that belong together: one of them may change a plug-in, and others set its options."""
    if not options:
        return tree
    changes = options[0][1]
    for _, change in options[1:]:
        changes = _merge(changes, change, fresh_options=False)
    return _merge(tree, changes)


def _record(options: Sequence[tuple[Key, Located]], base: Located, spec: Spec, source: str) -> tuple[Override, ...]:
    if not options:
        return ()
    try:
        before: Any = _resolve(base, source).spec.model_dump(mode="json")
    except SoarError:
        before = base.plain()  # without its overrides the file is no spec: what it says is all there is to record
    after = spec.model_dump(mode="json")
    return tuple(
        Override(dotted(key), _lookup(before, key), _lookup(after, key), tree.place.source) for key, tree in options
    )


def _lookup(values: Any, key: Key) -> Any:
    for part in key:
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _merge(base: Located, over: Located, *, fresh_options: bool = True, section: str = "") -> Located:
    """`over` laid over `base`, key by key.

    With `fresh_options`, a section that changes its plug-in drops the options of the old one.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    if fresh_options and "plugin" in over.value:
        plugin = base.value["plugin"].value if "plugin" in base.value else _PLUGIN_BY_DEFAULT.get(section)
        if over.value["plugin"].value != plugin:
            return over
    entries = dict(base.value)
    for key, entry in over.value.items():
        known = entries.get(key)
        entries[key] = entry if known is None else _merge(known, entry, fresh_options=fresh_options, section=key)
    return replace(over, value=entries)


# --- values ---

P = TypeVar("P", bound=Plugin)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Resolved:
    spec: Spec
    domain: Domain
    reward: Reward
    trainer: Trainer


def _resolve(tree: Located, source: str) -> _Resolved:
    """The spec and its plug-ins, or one error with all that is wrong with any of them."""
    values, places = tree.plain(), _places(tree)
    problems: list[SoarError] = []

    def at(key: str) -> str:
        return _at(places, source, key)

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except SpecProblems as several:
            problems.extend(several.problems)
        except SoarError as problem:
            problems.append(problem)
        return None

    def load(kind: type[P]) -> P | None:
        written = _section(values, plugins.section(kind), spec)
        return attempt(lambda: plugins.load(kind, *written, at=at)) if written else None

    spec = attempt(lambda: validate(Spec, values, source, at))
    domain, reward, trainer = load(Domain), load(Reward), load(Trainer)
    if spec is None or domain is None or reward is None or trainer is None:
        as_written = {at(key): position for position, key in enumerate(places)}
        problems.sort(key=lambda problem: as_written.get(problem.at or "", -1))
        raise problems[0] if len(problems) == 1 else SpecProblems(problems, source)
    full = {plugins.section(kind): made for kind, made in ((Domain, domain), (Reward, reward), (Trainer, trainer))}
    sections = {name: {"plugin": getattr(spec, name).plugin, **plugins.options_of(made)} for name, made in full.items()}
    return _Resolved(Spec.model_validate(spec.model_dump() | sections), domain, reward, trainer)


def _section(values: Mapping[str, Any], name: str, spec: Spec | None) -> tuple[str, dict[str, Any]] | None:
    """The plug-in of a section and its options; None where the section is so wrong that it was reported."""
    written = values.get(name, {})
    if not isinstance(written, dict):
        return None
    plugin = written.get("plugin", getattr(spec, name).plugin if spec else None)
    return (plugin, {k: v for k, v in written.items() if k != "plugin"}) if isinstance(plugin, str) else None


def _places(tree: Located) -> dict[str, Place]:
    return {dotted(key): value.place for key, value in tree.walk()}


def _at(places: Mapping[str, Place], source: str, key: str) -> str:
    """The front of an error about a key: its own place, or that of the nearest section around it."""
    around = key
    while around not in places and around:
        around = around[: max(around.rfind("."), around.rfind("["), 0)]
    return (places[around] if around else Place(source)).of(key)
