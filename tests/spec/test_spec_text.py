"""YAML text to located values: soarctl/located.py."""

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from soarctl import located
from soarctl.errors import SpecError
from soarctl.located import Located, decode, dotted, parse


def plain(text: str) -> object:
    tree = parse(text, "a.yaml")
    return None if tree is None else tree.plain()


def error(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text, "a.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("nan", "nan"),
        ("'1e-5'", "1e-5"),
        ('"true"', "true"),
        ('"caf\\u00e9"', "café"),
        ("[1, 2.0, a]", [1, 2.0, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_a_value_is_read_as_yaml_1_2_reads_it(written: str, value: object) -> None:
    read = plain(f"key: {written}")
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_an_alias_repeats_the_value_of_its_anchor() -> None:
    assert plain("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_a_value_stands_where_its_key_stands_and_an_item_where_it_is() -> None:
    tree = parse("a:\n  b: [1,\n    é, 3]\n", "a.yaml")
    assert tree is not None
    places = {dotted(key): str(value.place) for key, value in tree.walk()}
    assert places == {
        "": "a.yaml:1:1",
        "a": "a.yaml:1:1",
        "a.b": "a.yaml:2:3",
        "a.b[0]": "a.yaml:2:7",
        "a.b[1]": "a.yaml:3:5",
        "a.b[2]": "a.yaml:3:8",
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff"])
def test_no_document_is_none(text: str) -> None:
    assert parse(decode(text.encode(), "a.yaml"), "a.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'a.yaml:3:1: "a" stands twice; first on line 1'),
        ("s:\n  a: 1\n  a: 3\n", 'a.yaml:3:3: s: "a" stands twice; first on line 2'),
        ("a:\n\tb: 1\n", "a.yaml:2:1: a tab where YAML wants spaces\n  indent with spaces"),
        ("a: 1\n--- \nb: 2\n", "a.yaml:2:1: a second document starts here\n  one file holds one spec"),
        (
            "a: !!python/name:os.system\n",
            "a.yaml:1:4: a: the tag !!python/name:os.system is not allowed\n  a spec needs no tags",
        ),
        ("a: !!int 3\n", "a.yaml:1:4: a: the tag !!int is not allowed\n  a spec needs no tags"),
        ("a: !x {b: 1}\n", "a.yaml:1:4: a: the tag !x is not allowed\n  a spec needs no tags"),
        ("1: a\n", 'a.yaml:1:1: a key must be text, found 1\n  put it in quotes: "1"'),
        ("true: a\n", 'a.yaml:1:1: a key must be text, found true\n  put it in quotes: "true"'),
        ("? [a]\n: b\n", "a.yaml:1:3: a key must be text, found a list or mapping"),
        (
            "b: &b {c: 1}\na:\n  <<: *b\n",
            'a.yaml:3:3: a: merge keys are not read\n  use "extends", or write the keys out',
        ),
        ("a: .nan\n", "a.yaml:1:4: a: .nan is not a number that a spec can use"),
        ("a: [1, -.inf]\n", "a.yaml:1:8: a[1]: -.inf is not a number that a spec can use"),
        ("a: 1e999\n", "a.yaml:1:4: a: 1e999 is too large for a number"),
        ("a: " + "9" * 5000, "a.yaml:1:4: a: a number of 5000 characters"),
        (
            "a: x\x07y\n",
            "a.yaml:1:5: the control character U+0007\n  remove it, or write it as an escape in double quotes",
        ),
        ('a: "x\\0"\n', "a.yaml:1:4: a: text with a character that files and terminals cannot hold"),
        ("a: *nobody\n", 'a.yaml:1:4: a: the alias "*nobody" stands for nothing that was complete before it'),
        ("a: &a [1, *a]\n", 'a.yaml:1:11: a[1]: the alias "*a" stands for nothing that was complete before it'),
        (
            "a: {\n",
            "a.yaml:2:1: not valid YAML: did not find expected node content\n  while parsing a flow node, from line 2",
        ),
        (
            "a: 'b\n",
            "a.yaml:2:1: not valid YAML: found unexpected end of stream\n  while scanning a quoted scalar, from line 1",
        ),
        ("a: b: c\n", "a.yaml:1:5: not valid YAML: mapping values are not allowed in this context"),
        ("a: [" + "[" * 30, f"a.yaml:1:23: a{'[0]' * 19}: nested deeper than 20 levels"),
    ],
)
def test_what_a_spec_may_not_say_is_named_with_its_place(text: str, message: str) -> None:
    assert error(text) == message


def test_several_problems_are_told_at_once() -> None:
    assert error("a: .nan\nb: !x 1\nb: 2\n") == (
        "a.yaml: 3 problems\n"
        "  a.yaml:1:4: a: .nan is not a number that a spec can use\n"
        "  a.yaml:2:4: b: the tag !x is not allowed\n"
        "    a spec needs no tags\n"
        '  a.yaml:3:1: "b" stands twice; first on line 2'
    )


def test_beyond_twenty_problems_only_their_number_is_told() -> None:
    lines = error("".join(f"k{i}: .nan\n" for i in range(25))).splitlines()
    assert lines[0] == "a.yaml: 25 problems"
    assert lines[-1] == "  ... and 5 more"
    assert len(lines) == 22


def test_a_file_that_is_not_utf_8_is_located_at_its_first_bad_byte() -> None:
    with pytest.raises(SpecError) as caught:
        decode("name: é\nb: ".encode() + b"\xff", "a.yaml")
    assert str(caught.value) == "a.yaml:2:4: not UTF-8: found the byte 0xff\n  save the file as UTF-8"


def test_aliases_that_explode_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    started = time.process_time()
    assert error("\n".join(lines)).startswith("a.yaml:5:")
    assert "more than 10,000 values, aliases expanded" in error("\n".join(lines))
    assert time.process_time() - started < 1


def test_aliases_cannot_nest_deeper_than_brackets_can() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 30)]
    assert error("\n".join(lines)).endswith("nested deeper than 20 levels through aliases")


@pytest.mark.parametrize("character", ["[", "{", "- ", "? ", "&a ", "*", "'", "|\n", ": ", "a: ", "!", "%", "\n", "\r"])
def test_a_megabyte_of_one_character_ends_soon(character: str) -> None:
    started = time.process_time()
    text = character * (located.MAX_BYTES // len(character))
    try:
        parse(text, "a.yaml")
        said = ""
    except SpecError as problem:
        said = str(problem)
    assert len(said) < 2000
    assert time.process_time() - started < 5


@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t1.e~\\x"))
def test_any_text_is_a_tree_or_a_spec_error(text: str) -> None:
    try:
        tree = parse(text, "a.yaml")
    except SpecError:
        return
    assert tree is None or isinstance(tree, Located)


@given(st.binary())
def test_any_bytes_are_text_or_a_spec_error(data: bytes) -> None:
    try:
        parse(decode(data, "a.yaml"), "a.yaml")
    except SpecError:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcde", min_size=1), json_values, min_size=1))
def test_json_reads_as_itself(values: dict[str, object]) -> None:
    assert plain(json.dumps(values)) == values


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_both_parsers_of_pyyaml_read_the_same_places(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(located, "_Loader", loader)
    tree = parse("a:\n  é: [1, &x 2]\n  c: *x\n", "a.yaml")
    assert tree is not None
    assert {dotted(k): str(v.place) for k, v in tree.walk()}["a.é[1]"] in ("a.yaml:2:10", "a.yaml:2:13")
    assert tree.plain() == {"a": {"é": [1, 2], "c": 2}}
