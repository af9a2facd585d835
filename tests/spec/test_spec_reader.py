"""From a file to a checked spec: soarctl/spec_reader.py."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soarctl.errors import SoarError, SpecError
from soarctl.spec import Learning, Spec
from soarctl.spec_reader import LoadedSpec, Override, load_spec, parse_spec

pytestmark = pytest.mark.usefixtures("toys", "folder")

BASE = """\
name: small
model: {base: some/model}
domain:
  plugin: sorting
reward: {plugin: flat}
trainer: {plugin: still}
"""


def load(text: str, *overrides: str) -> LoadedSpec:
    Path("a.yaml").write_text(text)
    return load_spec("a.yaml", overrides)


def error(text: str, *overrides: str) -> str:
    with pytest.raises(SoarError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_what_a_spec_leaves_out_is_the_paper_s() -> None:
    spec = load(BASE).spec
    assert (spec.outer.steps, spec.teacher.lr, spec.inner.group_size, spec.promotion.tau) == (200, 1e-5, 32, 0.01)


def test_plug_ins_are_built_from_their_options_and_the_spec_holds_all_of_them() -> None:
    loaded = load(BASE.replace("sorting", "sorting\n  length: 12"))
    assert loaded.spec.domain.options == {"length": 12, "path": "data", "note": None}
    assert loaded.domain.model_dump() == loaded.spec.domain.options


def test_a_reward_without_a_name_is_the_grounded_one() -> None:
    assert load(BASE.replace("plugin: flat", "repeats: 2")).spec.reward.plugin == "grounded"


def test_a_path_may_be_a_path() -> None:
    Path("a.yaml").write_text(BASE)
    assert load_spec(Path("a.yaml")).files == ("a.yaml",)


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ("nmae: 1", "a.yaml:7:1: nmae: unknown key", 'did you mean "name"?'),
        ("lr: 1", "a.yaml:7:1: lr: unknown key", 'did you mean "teacher.lr" or "inner.lr"?'),
        ("outer: {speed: 1}", "a.yaml:7:9: outer.speed: unknown key", "known here: steps"),
        (
            "teacher:\n  lr: fast",
            'a.yaml:8:3: teacher.lr: expected a number, found "fast"',
            "AdamW learning rate of full fine-tuning in the paper; LoRA adapters usually want 10 to 100 times more.",
        ),
        ('teacher: {lr: "1e-4"}', 'a.yaml:7:11: teacher.lr: expected a number, found "1e-4"', "remove the quotes"),
        ("outer: {steps: 2.0}", "a.yaml:7:9: outer.steps: expected a whole number, found 2.0", "T: teacher updates."),
        ("outer: {steps: 0}", "a.yaml:7:9: outer.steps: must be above 0, found 0", "T: teacher updates."),
        ("outer: {steps: true}", "a.yaml:7:9: outer.steps: expected a whole number, found true", "T: teacher updates."),
        ("outer: 3", "a.yaml:7:1: outer: expected keys and values, found 3", ""),
        ("outer: null", "a.yaml:7:1: outer: expected keys and values, found null", ""),
        (
            "split: {train_fraction: 1}",
            "a.yaml:7:9: split.train_fraction: must be below 1, found 1",
            "Share that the run learns from; the rest is held out.",
        ),
        (
            "teacher: {group_size: 1}",
            "a.yaml:7:11: teacher.group_size: must be at least 2, found 1",
            "g: datasets that are compared with each other. At least 2, or leave-one-out has no baseline.",
        ),
        (
            "inner: {top_p: 1.5}",
            "a.yaml:7:9: inner.top_p: must be at most 1, found 1.5",
            "Nucleus sampling; 1 is off. Only a temperature is given in the paper (row 31).",
        ),
        (
            "inner: {schedule: cosin}",
            'a.yaml:7:9: inner.schedule: expected cosine or constant, found "cosin"',
            "did you mean cosine?",
        ),
        (
            "promotion: {reset_window: no}",
            'a.yaml:7:13: promotion.reset_window: expected true or false, found "no"',
            "write false",
        ),
        ("inner: {betas: [0.9]}", "a.yaml:7:9: inner.betas[1]: one item is missing", "AdamW's decay rates (row 10)."),
        (
            "inner: {betas: [0.9, 2]}",
            "a.yaml:7:22: inner.betas[1]: must be below 1, found 2",
            "AdamW's decay rates (row 10).",
        ),
        ("inner: {betas: 0.9}", "a.yaml:7:9: inner.betas: expected a list, found 0.9", "AdamW's decay rates (row 10)."),
        (
            "evaluation: {k: []}",
            "a.yaml:7:14: evaluation.k: expected at least 1 items, found []",
            "pass@k for these k, each at most `samples`.",
        ),
        (
            "evaluation: {k: [64]}",
            "a.yaml:7:14: evaluation.k: pass@64 needs as many samples, and evaluation.samples is 32",
            "pass@k for these k, each at most `samples`.",
        ),
        (
            "evaluation: {samples: 8}",
            "a.yaml:7:1: evaluation.k: pass@32 needs as many samples, and evaluation.samples is 8",
            "pass@k for these k, each at most `samples`.",
        ),
        (
            "inner: {steps: 30}",
            "a.yaml:7:1: inner.cap: must be at least inner.steps, which is 30, found 20",
            "Most steps ever (row 15). At least `steps`.",
        ),
        ("seed: .nan", "a.yaml:7:7: seed: .nan is not a number that a spec can use", ""),
    ],
)
def test_a_wrong_value_is_told_with_place_key_value_and_what_to_do(lines: str, message: str, hint: str) -> None:
    assert error(BASE + lines) == (f"{message}\n  {hint}" if hint else message)


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "name: small\n",
            "",
            "a.yaml: name: missing",
            "Names the run directory: letters, digits, dot, underscore and hyphen.",
        ),
        ("name: small", "name: 3", "a.yaml:1:1: name: expected text, found 3", 'put it in quotes: "3"'),
        ("name: small", "name: true", "a.yaml:1:1: name: expected text, found true", 'put it in quotes: "true"'),
        (
            "name: small",
            "name: ../up",
            'a.yaml:1:1: name: does not match ^[A-Za-z0-9][A-Za-z0-9._-]*$, found "../up"',
            "Names the run directory: letters, digits, dot, underscore and hyphen.",
        ),
        (
            "name: small",
            f"name: {'a' * 101}",
            "a.yaml:1:1: name: expected at most 100 characters, found 101",
            "Names the run directory: letters, digits, dot, underscore and hyphen.",
        ),
        (
            "{base: some/model}",
            "{}",
            "a.yaml:2:1: model.base: missing",
            "A hub id, a local directory, or `package:NAME/FOLDER` for a model inside an installed package.",
        ),
        ("sorting", "sortin", 'a.yaml:4:3: domain.plugin: no domain is called "sortin"', 'did you mean "sorting"?'),
        ("sorting", "3", "a.yaml:4:3: domain.plugin: expected text, found 3", 'put it in quotes: "3"'),
        (
            "plugin: sorting",
            "length: 3",
            "a.yaml:3:1: domain.plugin: missing",
            "Name of an installed plug-in; `soarctl plugins` lists them.",
        ),
        ("sorting", "sorting\n  lenght: 3", "a.yaml:5:3: domain.lenght: unknown key", 'did you mean "length"?'),
        (
            "sorting",
            "sorting\n  length: 0",
            "a.yaml:5:3: domain.length: must be at least 1, found 0",
            "Digits to sort.",
        ),
        (
            "sorting",
            "sorting\n  note: crash",
            "a.yaml:3:1: domain: domain \"sorting\" failed on its options: KeyError: 'the validator itself is broken'",
            "it is soarctl_toys:Sorting of soarctl-toys 1.0",
        ),
    ],
)
def test_a_spec_that_lacks_something_says_what_it_is_for(old: str, new: str, message: str, hint: str) -> None:
    assert error(BASE.replace(old, new)) == (f"{message}\n  {hint}" if hint else message)


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    wrong = BASE.replace("sorting", "sorting\n  length: x").replace("flat", "flet")
    assert error(f"sede: 1\n{wrong}outer: {{steps: -1}}\n") == (
        "a.yaml: 4 problems\n"
        "  a.yaml:1:1: sede: unknown key\n"
        '    did you mean "seed"?\n'
        '  a.yaml:6:3: domain.length: expected a whole number, found "x"\n'
        "    Digits to sort.\n"
        '  a.yaml:7:10: reward.plugin: no reward is called "flet"\n'
        '    did you mean "flat"?\n'
        "  a.yaml:9:9: outer.steps: must be above 0, found -1\n"
        "    T: teacher updates."
    )  # fmt: skip


# --- files ---


def test_a_file_that_is_not_there_is_named_with_the_one_that_was_meant() -> None:
    load(BASE)
    with pytest.raises(SpecError) as caught:
        load_spec("b.yaml")
    assert str(caught.value) == "b.yaml: no such file\n  did you mean a.yaml?"


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("nowhere/b.yaml")
    assert str(caught.value) == "nowhere/b.yaml: no such file\n  there is no folder nowhere"


def test_a_directory_is_not_a_spec() -> None:
    os.mkdir("specs")
    Path("specs/one.yaml").write_text(BASE)
    with pytest.raises(SpecError) as caught:
        load_spec("specs")
    assert str(caught.value) == "specs: a directory, not a spec\n  it holds one.yaml"


def test_a_pipe_is_not_a_spec_and_is_not_waited_for() -> None:
    os.mkfifo("pipe")
    with pytest.raises(SpecError) as caught:
        load_spec("pipe")
    assert str(caught.value) == "pipe: not a regular file"


def test_a_file_of_100_megabytes_is_refused_unread() -> None:
    with open("a.yaml", "wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(SpecError) as caught:
        load_spec("a.yaml")
    assert str(caught.value) == "a.yaml: 100,000,000 bytes; a spec has at most 1,048,576\n  is this the right file?"


def test_a_file_that_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    load(BASE)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SpecError) as caught:
        load_spec("a.yaml")
    assert str(caught.value) == "a.yaml: cannot be read: permission denied"


@pytest.mark.parametrize(
    ("path", "message"),
    [("a\0b", ": cannot be read: embedded null byte"), ("x" * 5000, ": cannot be read: file name too long")],
)
def test_a_name_that_no_file_can_have_is_a_spec_error(path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n", "---\n"])
def test_an_empty_spec_says_what_it_needs(text: str) -> None:
    assert error(text) == (
        "a.yaml: the spec is empty\n"
        "  it needs at least name, model.base and domain.plugin; `soarctl schema` lists all keys"
    )


@pytest.mark.parametrize(("text", "kind"), [("- a\n", "a list"), ("hello\n", "a single value")])
def test_a_spec_is_keys_and_values(text: str, kind: str) -> None:
    assert error(text) == f"a.yaml:1:1: expected keys and values, found {kind}"


# --- extends ---


def test_a_spec_changes_the_one_it_extends() -> None:
    os.mkdir("specs")
    Path("specs/base.yaml").write_text(BASE + "teacher: {lr: 1e-3, kl: 0.1}\n")
    loaded = load("extends: specs/base.yaml\nteacher:\n  lr: 1e-4\n")
    assert (loaded.spec.name, loaded.spec.teacher.lr, loaded.spec.teacher.kl) == ("small", 1e-4, 0.1)
    assert loaded.files == ("a.yaml", "specs/base.yaml")
    assert loaded.at("teacher.lr") == "a.yaml:3:3: teacher.lr"
    assert loaded.at("teacher.kl") == "specs/base.yaml:7:21: teacher.kl"
    assert loaded.at("teacher.horizon") == "a.yaml:2:1: teacher.horizon"
    assert loaded.at("split.seed") == "a.yaml: split.seed"


def test_extends_is_relative_to_its_own_file() -> None:
    os.mkdir("specs")
    Path("specs/base.yaml").write_text(BASE)
    Path("specs/middle.yaml").write_text("extends: base.yaml\nseed: 4\n")
    assert load("extends: specs/middle.yaml").spec.seed == 4


def test_an_error_is_told_in_the_file_that_it_is_in() -> None:
    Path("base.yaml").write_text(BASE + "seed: x\n")
    assert error("extends: base.yaml") == (
        'base.yaml:7:1: seed: expected a whole number, found "x"\n'
        "  Every random choice of the run derives from it (row 45)."
    )


def test_another_plug_in_takes_no_options_from_the_one_it_replaces() -> None:
    Path("base.yaml").write_text(BASE.replace("sorting", "sorting\n  length: 3"))
    loaded = load("extends: base.yaml\ndomain: {plugin: reversing, step: 2}\n")
    assert loaded.spec.domain.options == {"step": 2}


def test_the_same_plug_in_keeps_its_options() -> None:
    Path("base.yaml").write_text(BASE.replace("sorting", "sorting\n  length: 3"))
    for change in ("{path: there}", "{plugin: sorting, path: there}"):
        loaded = load(f"extends: base.yaml\ndomain: {change}\n")
        assert loaded.spec.domain.options == {"length": 3, "path": "there", "note": None}


def test_specs_that_extend_each_other_in_a_circle_are_refused() -> None:
    Path("b.yaml").write_text("extends: ./c.yaml\n")
    Path("c.yaml").write_text("extends: a.yaml\n")
    assert error("extends: b.yaml") == (
        "c.yaml:1:1: extends: a.yaml extends itself: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    )


def test_extends_ends_after_ten_files() -> None:
    for i in range(20):
        Path(f"{i}.yaml").write_text(f"extends: {i + 1}.yaml\n")
    assert error("extends: 0.yaml") == "9.yaml:1:1: extends: more than 10 files extend each other"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("b.yaml", "a.yaml:1:1: extends: b.yaml: no such file"),
        ("[b.yaml]", "a.yaml:1:1: extends: expected the name of a file"),
        ("3", "a.yaml:1:1: extends: expected the name of a file"),
        (".", "a.yaml:1:1: extends: .: a directory, not a spec\n  it holds a.yaml"),
    ],
)
def test_what_cannot_be_extended_is_told_where_it_is_asked_for(value: str, message: str) -> None:
    assert error(f"extends: {value}\n").removesuffix("\n  did you mean a.yaml?") == message


# --- overrides ---


def test_an_override_counts_more_than_the_file_and_is_recorded() -> None:
    loaded = load(BASE + "teacher: {lr: 1e-3}\n", "teacher.lr=2e-3", "outer.steps=5", "domain.length=3")
    assert (loaded.spec.teacher.lr, loaded.spec.outer.steps, loaded.spec.domain.options["length"]) == (2e-3, 5, 3)
    assert loaded.overrides == (
        Override("teacher.lr", 1e-3, 2e-3, "--set teacher.lr=2e-3"),
        Override("outer.steps", 200, 5, "--set outer.steps=5"),
        Override("domain.length", 8, 3, "--set domain.length=3"),
    )
    assert loaded.at("outer.steps") == "--set outer.steps=5"


def test_an_override_may_be_any_yaml_value_and_the_last_one_counts() -> None:
    spec = load(BASE, "evaluation.k=[1, 2]", "model.revision=null", "seed=1", "seed=2", "split={seed: 3}").spec
    assert spec.evaluation is not None
    assert (spec.evaluation.k, spec.model.revision, spec.seed, spec.split.seed) == ((1, 2), None, 2, 3)


def test_an_override_can_complete_a_spec() -> None:
    loaded = load(BASE.replace("name: small\n", ""), "name=tiny")
    assert loaded.overrides == (Override("name", None, "tiny", "--set name=tiny"),)


def test_an_override_of_a_plug_in_drops_the_options_of_the_old_one_whatever_the_order() -> None:
    loaded = load(BASE.replace("sorting", "sorting\n  length: 3"), "domain.step=2", "domain.plugin=reversing")
    assert loaded.spec.domain.options == {"step": 2}


def test_naming_the_plug_in_that_is_used_by_default_keeps_its_options() -> None:
    spec = BASE.replace("reward: {plugin: flat}", "reward: {questions: 40}")
    loaded = load(spec, "reward.plugin=grounded", "reward.samples=8")
    assert (loaded.spec.reward.options["questions"], loaded.spec.reward.options["samples"]) == (40, 8)


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        (
            "teacher.lr=abc",
            '--set teacher.lr=abc: expected a number, found "abc"',
            "AdamW learning rate of full fine-tuning in the paper; LoRA adapters usually want 10 to 100 times more.",
        ),
        ("techer.lr=1", "--set techer.lr=1: techer: unknown key", 'did you mean "teacher"?'),
        ("teacher.lrr=1", "--set teacher.lrr=1: unknown key", 'did you mean "lr"?'),
        ("domain.lenght=1", "--set domain.lenght=1: unknown key", 'did you mean "length"?'),
        ("domain.plugin=sort", '--set domain.plugin=sort: no domain is called "sort"', 'did you mean "sorting"?'),
        ("seed", "--set seed: expected KEY=VALUE", "for example --set teacher.lr=1e-4"),
        ("=3", "--set =3: expected KEY=VALUE", "for example --set teacher.lr=1e-4"),
        ("a..b=3", "--set a..b=3: expected KEY=VALUE", "for example --set teacher.lr=1e-4"),
        ("extends=b.yaml", "--set extends=b.yaml: a spec says itself what it extends", ""),
        (
            "seed=[1",
            "--set seed=[1: not valid YAML: did not find expected ',' or ']'",
            "while parsing a flow sequence, from line 1",
        ),
        (
            "seed=!!python/object:os.system x",
            "--set seed=!!python/object:os.system x: the tag !!python/object:os.system is not allowed",
            "a spec needs no tags",
        ),
        ("name=\udcff", "--set name=\\udcff: not UTF-8", ""),
        ("seed=" + "9" * 400, "--set seed=" + "9" * 186 + "...: a number of 400 characters", ""),
    ],
)
def test_a_wrong_override_is_told_as_it_was_written(override: str, message: str, hint: str) -> None:
    assert error(BASE, override) == (f"{message}\n  {hint}" if hint else message)


# --- the resolved spec ---


def test_the_resolved_spec_loads_to_the_same_spec() -> None:
    loaded = load(BASE + "teacher: {lr: 1e-3}\n", "seed=7")
    again = load(loaded.text)
    assert again.spec == loaded.spec
    assert again.text == loaded.text
    assert again.hash == loaded.hash
    assert parse_spec(loaded.text, "run") == loaded.spec


def test_the_hash_is_that_of_the_run_and_not_of_how_it_was_written() -> None:
    one = load(BASE)
    assert load(BASE.replace("some/model", '"some/model"') + "seed: 0\n").hash == one.hash
    assert load(BASE + "seed: 1\n").hash != one.hash


def test_the_resolved_spec_is_read_without_its_plug_ins() -> None:
    spec = parse_spec(BASE.replace("sorting", "gone\n  size: 3"), "the ledger")
    assert (spec.domain.plugin, spec.domain.options) == ("gone", {"size": 3})


def test_a_damaged_resolved_spec_is_located_in_its_source() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec("name: small\n", "the ledger")
    assert str(caught.value) == (
        "the ledger: 2 problems\n"
        "  the ledger: model: missing\n"
        "  the ledger: domain: missing"
    )  # fmt: skip


# --- anything at all ---


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary())
def test_a_file_of_any_bytes_is_a_spec_error(data: bytes) -> None:
    Path("a.yaml").write_bytes(data)
    with pytest.raises(SpecError):
        load_spec("a.yaml")


keys = st.sampled_from([*Spec.model_fields, *Learning.model_fields, "plugin", "base", "length", "k", "x", "extends"])
values = st.recursive(
    st.sampled_from([None, True, 0, -1, 2.5, "sorting", "", "1e-5", "a.yaml", 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(values, keys, keys)
def test_any_value_anywhere_is_a_spec_or_a_clear_error(value: object, key: str, inner: str) -> None:
    for change in (f"{key}={json.dumps(value)}", f"{key}.{inner}={json.dumps(value)}"):
        try:
            said = load(BASE, change).text
        except SoarError as problem:
            said = str(problem)
        assert 0 < len(said) < 20_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text())
def test_any_override_is_a_spec_or_a_clear_error(text: str) -> None:
    with pytest.raises(SoarError):
        load(BASE, text)
