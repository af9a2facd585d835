"""What pydantic finds wrong with a spec, in the words of the person who wrote it."""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from soarctl.errors import SpecError
from soarctl.located import Key, SpecProblems, clipped, dotted

Locate: TypeAlias = Callable[[str], str]
"""From a key (`teacher.lr`) to the front of an error (`specs/a.yaml:12:5: teacher.lr`)."""

M = TypeVar("M", bound=BaseModel)


def validate(
    model: type[M],
    values: Mapping[str, Any],
    source: str,
    at: Locate,
    under: Key = (),
    inner: Mapping[str, BaseModel] | None = None,
) -> M:
    """The values as an instance of the model. Types are strict: 1 is no text and "1" is no number.

    Args:
        model: what the values should be.
        values: plain values, as YAML or JSON have them.
        source: what heads a list of several problems.
        at: where a key stands.
        under: the key of the section that the values are in.
        inner: values of other fields, which are models already.

    Raises:
        SpecProblems: with every problem that was found.
    """
    try:
        # The rules for JSON are the right ones: strict, yet a list is good for a tuple and text for a path.
        found = model.model_validate_json(json.dumps(values), strict=True)
        # Once more, so that the model's own rules see the inner ones too.
        return model.model_validate(dict(found) | dict(inner), by_name=True) if inner else found
    except ValidationError as error:
        problems = [_problem(each, model, values, at, under) for each in error.errors() if not _follows(each)]
        raise SpecProblems(problems, source) from None


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant."""
    close = get_close_matches(word, known, n=1) or get_close_matches(word.lower(), known, n=1)
    return close[0] if close else None


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model under the names that they have in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def shown(value: Any) -> str:
    """A value as an error quotes it: as in YAML, and never long."""
    match value:
        case None:
            return "null"
        case str():
            return f'"{clipped(value)}"'
        case list() | dict() if len(json.dumps(value)) > 40:
            return "a list" if isinstance(value, list) else "keys and values"
        case _:
            return clipped(json.dumps(value, ensure_ascii=False))


def _follows(error: Any) -> bool:
    """Whether a list is too short only because pydantic leaves out what is wrong in it, and says so beside this."""
    given = error["input"]
    return error["type"] == "too_short" and isinstance(given, list) and len(given) >= error["ctx"]["min_length"]


def _problem(error: Any, model: type[BaseModel], values: Any, at: Locate, under: Key) -> SpecError:
    key = _key(error["loc"], values, model, missing=error["type"] == "missing")
    message, hint = _described(error, key, model)
    field = _field(model, key)
    if hint is None and field is not None and field.description:
        hint = " ".join(field.description.split())
    return SpecError(message, at=at(dotted((*under, *key))), hint=hint)


def _key(loc: Key, values: Any, model: type[BaseModel], missing: bool) -> Key:
    """Where in the values an error is: pydantic's `loc` without the branches of unions that it names."""
    key: Key = ()
    for part in loc:
        match values:
            case dict() if part in values:
                values = values[part]
            case list() if isinstance(part, int) and part < len(values):
                values = values[part]
            case _ if (missing and part == loc[-1]) or part in _known(model, key):
                values = None
            case _:
                continue
        key = (*key, part)
    return key


def _described(error: Any, key: Key, model: type[BaseModel]) -> tuple[str, str | None]:
    """Message and hint for one finding of pydantic."""
    found, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return ("one item is missing" if isinstance(error["loc"][-1], int) else "missing"), None
        case "extra_forbidden":
            return "unknown key", _hint_for_unknown(str(key[-1]), key[:-1], model)
        case "int_type" | "int_from_float" | "int_parsing":
            return f"expected a whole number, found {shown(found)}", _hint_for_quoted(found)
        case "float_type" | "float_parsing":
            return f"expected a number, found {shown(found)}", _hint_for_quoted(found)
        case "bool_type" | "bool_parsing":
            return f"expected true or false, found {shown(found)}", _hint_for_yes(found)
        case "string_type":
            quotable = isinstance(found, bool | int | float)
            hint = f"put it in quotes: {json.dumps(shown(found))}" if quotable else None
            return f"expected text, found {shown(found)}", hint
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return f"expected a list, found {shown(found)}", None
        case "model_type" | "dict_type" | "dataclass_type":
            return f"expected keys and values, found {shown(found)}", None
        case "literal_error" | "enum":
            expected: str = context["expected"].replace("'", "")
            close = nearest(str(found), expected.replace(" or ", ", ").split(", "))
            return f"expected {expected}, found {shown(found)}", f"did you mean {close}?" if close else None
        case "greater_than":
            return f"must be above {context['gt']:g}, found {shown(found)}", None
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, found {shown(found)}", None
        case "less_than":
            return f"must be below {context['lt']:g}, found {shown(found)}", None
        case "less_than_equal":
            return f"must be at most {context['le']:g}, found {shown(found)}", None
        case "too_short" if isinstance(found, list):
            return f"expected at least {context['min_length']} items, found {shown(found)}", None
        case "too_long" if isinstance(found, list):
            return f"expected at most {context['max_length']} items, found {shown(found)}", None
        case "string_too_long":
            return f"expected at most {context['max_length']} characters, found {len(found)}", None
        case "string_too_short":
            return f"expected at least {context['min_length']} characters, found {len(found)}", None
        case "string_pattern_mismatch":
            return f"does not match {context['pattern']}, found {shown(found)}", None
        case "value_error" | "assertion_error":
            return str(context["error"]), None
        case _:
            message: str = error["msg"]
            return f"{message[:1].lower()}{message[1:]}, found {shown(found)}", None


def _hint_for_unknown(name: str, parent: Key, model: type[BaseModel]) -> str:
    known = _known(model, parent)
    close = nearest(name, known)
    if close is not None:
        return f'did you mean "{close}"?'
    elsewhere = [f'"{section}.{name}"' for section in _known(model, ()) if name in _known(model, (section,))]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"known here: {', '.join(known)}" if known else "it has no options"


def _hint_for_quoted(found: Any) -> str | None:
    try:
        float(found)
    except (TypeError, ValueError):
        return None
    return "remove the quotes" if isinstance(found, str) else None


def _hint_for_yes(found: Any) -> str | None:
    words = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
    meant = words.get(found.lower()) if isinstance(found, str) else None
    return f"write {meant}" if meant else None


def _known(model: type[BaseModel], key: Key) -> list[str]:
    """The keys that may stand under `key`."""
    models = [model]
    for part in key:
        if isinstance(part, str):
            models = [m for parent in models if part in fields(parent) for m in _inside(fields(parent)[part])]
    return [name for inner in models for name in fields(inner)]


def _field(model: type[BaseModel], key: Key) -> FieldInfo | None:
    models, field = [model], None
    for part in key:
        if isinstance(part, str):
            field = next((fields(parent)[part] for parent in models if part in fields(parent)), None)
            models = list(_inside(field)) if field else []
    return field


def _inside(field: FieldInfo) -> Iterator[type[BaseModel]]:
    """The models that values of a field may be or hold."""
    waiting: list[Any] = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        waiting += get_args(annotation)
