"""Plug-ins by entry point: soarctl/plugins.py."""

import sys
from collections.abc import Callable

import pytest

from soarctl import plugins
from soarctl.api import Domain, Reward, Trainer
from soarctl.errors import PluginError, SoarError
from soarctl.plugins import Installed

Install = Callable[..., None]


def error(name: str, options: dict[str, object] | None = None, at: str = "") -> str:
    with pytest.raises(SoarError) as caught:
        plugins.load(Domain, name, options or {}, at=at)
    return str(caught.value)


@pytest.mark.usefixtures("toys")
def test_a_plug_in_is_loaded_by_kind_and_name_with_its_options() -> None:
    domain = plugins.load(Domain, "sorting", {"length": 3})
    assert type(domain).__name__ == "Sorting"
    assert domain.model_dump() == {"length": 3, "path": "data", "note": None}


@pytest.mark.usefixtures("toys")
def test_options_are_refused_under_the_name_of_the_section() -> None:
    assert error("sorting", {"lenght": 3}) == 'domain.lenght: unknown key\n  did you mean "length"?'
    assert error("sorting", {"lenght": 3}, at="a.yaml: domain") == (
        'a.yaml: domain.lenght: unknown key\n  did you mean "length"?'
    )


@pytest.mark.usefixtures("toys")
def test_options_are_strict_as_a_spec_is() -> None:
    assert error("sorting", {"length": "3"}) == 'domain.length: expected a whole number, found "3"\n  remove the quotes'


@pytest.mark.usefixtures("toys")
def test_an_unknown_name_is_told_with_the_nearest_or_with_all() -> None:
    assert error("sortin") == 'domain.plugin: no domain is called "sortin"\n  did you mean "sorting"?'
    message, hint = error("zzz").split("\n")
    assert message == 'domain.plugin: no domain is called "zzz"'
    assert hint.startswith("  installed: ")
    assert {"reversing", "sorting"} <= set(hint.removeprefix("  installed: ").split(", "))


@pytest.mark.usefixtures("toys")
def test_a_name_belongs_to_its_kind() -> None:
    with pytest.raises(PluginError, match='no reward is called "sorting"'):
        plugins.load(Reward, "sorting", {})
    assert type(plugins.load(Trainer, "still", {})).__name__ == "Still"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import soarctl_missing_thing",
            "domain \"broken\" cannot be imported: ModuleNotFoundError: No module named 'soarctl_missing_thing'",
        ),
        ("1 / 0", 'domain "broken" cannot be imported: ZeroDivisionError: division by zero'),
        ("raise SystemExit(3)", 'domain "broken" cannot be imported: SystemExit: 3'),
        ("assert False", 'domain "broken" cannot be imported: AssertionError'),
        (
            "def Broken(): pass\nBroke = 1",
            'domain "broken" is not a subclass of soarctl.api.Domain',
        ),
        ("class Broken: pass", 'domain "broken" is not a subclass of soarctl.api.Domain'),
        (
            "from soarctl.api import Domain\nclass Broken(Domain):\n def load(self): ...\n def parse(self, c): ...",
            'domain "broken" lacks what every domain has: grade, student_prompt, teacher_prompt',
        ),
    ],
)
def test_a_broken_plug_in_names_its_package_and_what_is_wrong(install: Install, source: str, message: str) -> None:
    install("soarctl-bad", "soarctl_bad", source, {"soarctl.domains": {"broken": "soarctl_bad:Broken"}})
    head, hint = error("broken").split("\n")
    assert head == f"domain.plugin: {message}"
    assert "it is soarctl_bad:Broken of soarctl-bad 1.0" in hint


def test_a_class_that_is_not_in_its_module_is_a_broken_plug_in(install: Install) -> None:
    install("soarctl-bad", "soarctl_bad", "", {"soarctl.domains": {"broken": "soarctl_bad:Gone"}})
    assert error("broken") == (
        'domain.plugin: domain "broken" cannot be imported: '
        "AttributeError: module 'soarctl_bad' has no attribute 'Gone'\n"
        "  it is soarctl_bad:Gone of soarctl-bad 1.0; repair or uninstall that package"
    )


@pytest.mark.usefixtures("toys")
def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install("soarctl-other", "soarctl_other", "1 / 0", {"soarctl.domains": {"sorting": "soarctl_other:Sorting"}})
    assert error("sorting") == (
        'domain.plugin: 2 packages have a domain called "sorting"\n'
        "  uninstall all but one of them:\n"
        "  soarctl-other 1.0, soarctl_other:Sorting\n"
        "  soarctl-toys 1.0, soarctl_toys:Sorting"
    )
    assert type(plugins.load(Domain, "reversing", {})).__name__ == "Reversing"


@pytest.mark.usefixtures("toys")
def test_a_broken_plug_in_does_not_hinder_the_others(install: Install) -> None:
    install("soarctl-bad", "soarctl_bad", "1 / 0", {"soarctl.domains": {"broken": "soarctl_bad:Broken"}})
    assert type(plugins.load(Domain, "sorting", {})).__name__ == "Sorting"
    assert "soarctl_bad" not in sys.modules


@pytest.mark.usefixtures("toys")
def test_listing_imports_nothing_and_checking_reports_what_is_broken(install: Install) -> None:
    install("soarctl-bad", "soarctl_bad", "1 / 0", {"soarctl.domains": {"broken": "soarctl_bad:Broken"}})
    listed = [plugin for plugin in plugins.describe() if plugin.package in ("soarctl-bad", "soarctl-toys")]
    assert listed == [
        Installed("domain", "broken", "soarctl-bad", "1.0", "soarctl_bad:Broken"),
        Installed("domain", "reversing", "soarctl-toys", "1.0", "soarctl_toys:Reversing"),
        Installed("domain", "sorting", "soarctl-toys", "1.0", "soarctl_toys:Sorting"),
        Installed("reward", "flat", "soarctl-toys", "1.0", "soarctl_toys:Flat"),
        Installed("trainer", "still", "soarctl-toys", "1.0", "soarctl_toys:Still"),
    ]
    assert "soarctl_toys" not in sys.modules
    problems = {p.name: p.problem for p in plugins.describe(check=True) if p.package in ("soarctl-bad", "soarctl-toys")}
    assert problems == {
        "broken": 'domain "broken" cannot be imported: ZeroDivisionError: division by zero',
        "reversing": None,
        "sorting": None,
        "flat": None,
        "still": None,
    }


@pytest.mark.usefixtures("toys")
def test_a_plug_in_comes_from_a_package() -> None:
    assert plugins.origin(Domain, "sorting") == "soarctl-toys 1.0"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Domain, "letters"), (Reward, "grounded"), (Reward, "learnability"), (Trainer, "accelerate")],
)
def test_what_ships_with_soarctl_loads(kind: type[Domain] | type[Reward] | type[Trainer], name: str) -> None:
    assert isinstance(plugins.load(kind, name, {}), kind)


def test_stevedore_says_nothing(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("soarctl-bad", "soarctl_bad", "1 / 0", {"soarctl.domains": {"broken": "soarctl_bad:Broken"}})
    error("broken")
    error("nobody")
    assert caplog.messages == []


def sampler_error(sampler: object) -> str:
    with pytest.raises(SoarError) as caught:
        plugins.load(Trainer, "accelerate", {"sampler": sampler})
    return str(caught.value)


@pytest.mark.parametrize("sampler", ["decoder", {"plugin": "decoder"}])
def test_a_plug_in_may_have_another_one_named_with_its_options_or_alone(sampler: object) -> None:
    trainer = plugins.load(Trainer, "accelerate", {"sampler": sampler, "rank": 3})
    assert trainer == plugins.load(Trainer, "accelerate", {"rank": 3})
    assert plugins.options_of(trainer)["sampler"] == {"plugin": "decoder"}


def test_an_inner_plug_in_is_refused_where_it_stands() -> None:
    assert sampler_error("decodr") == (
        'trainer.sampler.plugin: no sampler is called "decodr"\n  did you mean "decoder"?'
    )
    assert sampler_error({"plugin": "decoder", "fast": True}) == (
        "trainer.sampler.fast: unknown key\n  it has no options"
    )
    assert sampler_error({"fast": True}) == "trainer.sampler.plugin: missing"
    assert sampler_error([1]) == "trainer.sampler.plugin: expected text, found [1]"


def test_a_plug_in_is_told_of_the_one_within_it_before_anything_is_loaded() -> None:
    sampler = {"plugin": "vllm", "url": "http://gpu-7:8000"}
    assert plugins.load(Trainer, "accelerate", {"sampler": sampler})
    assert plugins.load(Trainer, "full", {"sampler": "vllm"})
    with pytest.raises(SoarError) as caught:
        plugins.load(Trainer, "full", {"sampler": sampler})
    assert str(caught.value).startswith(
        "trainer.sampler: with these options the sampler takes adapters only, and this trainer's policies are all "
        "weights of the model: let vllm run in this process, without a url, or train adapters with plugin: accelerate"
    )


def test_the_options_of_an_inner_plug_in_are_written_with_its_name(install: Install) -> None:
    source = (
        "from soarctl.api import Sampler\n"
        "class Fast(Sampler):\n"
        "    speed: int = 9\n"
        "    def attach(self, model): return None\n"
    )
    install("soarctl-fast", "soarctl_fast", source, {"soarctl.samplers": {"fast": "soarctl_fast:Fast"}})
    options = plugins.options_of(plugins.load(Trainer, "accelerate", {"sampler": "fast"}))
    assert options["sampler"] == {"plugin": "fast", "speed": 9}
    assert plugins.options_of(plugins.load(Trainer, "accelerate", options)) == options
