"""The resolved spec as text: soarctl/spec_writer.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soarctl.spec import PluginSection, Spec
from soarctl.spec_reader import dump_spec, parse_spec


def spec(**options: Any) -> Spec:
    return Spec.model_validate({"name": "a", "model": {"base": "b"}, "domain": {"plugin": "sorting", **options}})


def written(**options: Any) -> list[str]:
    text = dump_spec(spec(**options))
    return text[text.index("  plugin: sorting\n") :].split("reward:")[0].splitlines()[1:]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (1e-5, "  x: 1e-5"),
        (1.5e300, "  x: 1.5e+300"),
        (1.0, "  x: 1.0"),
        (True, "  x: true"),
        (None, "  x: null"),
        ("plain text", "  x: plain text"),
        ("1e-5", "  x: '1e-5'"),
        ("0o17", "  x: '0o17'"),
        ("no", "  x: 'no'"),
        ("", "  x: ''"),
        ([1, 2.5, "a"], "  x: [1, 2.5, a]"),
        ("größe", "  x: größe"),
    ],
)
def test_a_value_is_written_as_a_person_would(value: object, line: str) -> None:
    assert written(x=value) == [line]


def test_text_of_several_lines_keeps_them() -> None:
    assert written(x="one\ntwo\n") == ["  x: |", "    one", "    two"]


def test_every_key_is_there_on_a_line_of_its_own() -> None:
    lines = dump_spec(spec()).splitlines()
    assert lines[:7] == [
        "name: a",
        "seed: 0",
        "model:",
        "  base: b",
        "  revision: null",
        "  chat_template: false",
        "  trust_remote_code: false",
    ]
    assert "  betas: [0.9, 0.999]" in lines
    assert "  eps: 1e-8" in lines


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab_1", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_whatever_an_option_is_it_reads_back_as_itself(value: Any) -> None:
    before = spec(x=value)
    after = parse_spec(dump_spec(before), "a.yaml")
    assert after == before
    assert repr(after.domain.options) == repr(before.domain.options)


def test_options_are_all_that_stands_beside_the_name() -> None:
    assert PluginSection.model_validate({"plugin": "sorting", "length": 3}).options == {"length": 3}
