"""Jobs and results as bytes: JSON, with the arrays beside it as safetensors. Nothing is ever unpickled.

Whoever sends, what is read can only become one of the plain values and dataclasses that are listed here.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from soarctl.api import (
    Completion,
    GradedSample,
    Outcome,
    Policy,
    Problem,
    Prompt,
    Sampling,
    Stream,
    Student,
    Verdict,
)
from soarctl.crew import Failed, Job
from soarctl.fail_at_k import FilterJob
from soarctl.inner_loop import Attempt, PracticeLog
from soarctl.ledger import Filtered
from soarctl.practice import PracticeJob, Practised
from soarctl.shared_teacher import GradientJob, SampleJob
from soarctl.solving import SolveJob


@dataclass(frozen=True)
class Hello:
    """The first thing that a process says."""

    rank: int
    pid: int
    host: str
    spec: str
    """Hash of the spec that it was given."""


@dataclass(frozen=True)
class Ready:
    """It has loaded the model."""

    facts: Mapping[str, Any]
    """Of model and device."""


@dataclass(frozen=True)
class Task:
    """Asks for a job to be done."""

    job: Job[Any]
    last: bool


@dataclass(frozen=True)
class Event:
    """Progress, on its way to whoever shows it."""

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """A job's result."""

    result: Any


@dataclass(frozen=True)
class Trouble:
    """A job failed, and may not fail elsewhere."""

    reason: str


@dataclass(frozen=True)
class Mistake:
    """Something that another attempt cannot mend: the run is to end with this error."""

    message: str
    at: str | None
    hint: str | None


@dataclass(frozen=True)
class Stop:
    """Asks a process to end."""


_CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        *(Problem, Verdict, Policy, Sampling, Prompt, Completion, GradedSample, Student, Stream),
        *(Filtered, Attempt, PracticeLog, Practised, Failed),
        *(PracticeJob, SolveJob, FilterJob, SampleJob, GradientJob),
        *(Hello, Ready, Task, Event, Done, Trouble, Mistake, Stop),
    )
}
_HEADER = 8  # bytes that say how long the JSON is


def encode(value: object) -> bytes:
    """The bytes of a message.

    Raises:
        TypeError: it holds something that is not in this module's list.
    """
    arrays: list[NDArray[Any]] = []
    text = json.dumps(_plain(value, arrays)).encode()
    blob = save({str(i): np.ascontiguousarray(array) for i, array in enumerate(arrays)})
    return len(text).to_bytes(_HEADER, "little") + text + blob


def decode(data: bytes) -> Any:
    """What `encode` was given.

    Raises:
        ValueError: these are not the bytes of a message.
    """
    end = _HEADER + int.from_bytes(data[:_HEADER], "little")
    try:
        return _value(json.loads(data[_HEADER:end]), load(data[end:]))
    except (KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"not a message: {error!r}") from error


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    match value:
        case Outcome():
            return {"outcome": value.value}
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_plain(item, arrays) for item in cast(list[Any], value)]
        case tuple():
            return {"tuple": [_plain(item, arrays) for item in cast(tuple[Any, ...], value)]}
        case np.ndarray():
            arrays.append(cast(NDArray[Any], value))
            return {"array": len(arrays) - 1}
        case Mapping():
            # Pairs, because JSON knows no keys but strings, and so that no key can be taken for one of our own.
            pairs = [[_plain(k, arrays), _plain(v, arrays)] for k, v in cast(Mapping[Any, Any], value).items()]
            return {"counter" if isinstance(value, Counter) else "mapping": pairs}
        case _ if is_dataclass(value) and _CLASSES.get(type(value).__name__) is type(value):
            return {"class": type(value).__name__} | {
                "of": {field.name: _plain(getattr(value, field.name), arrays) for field in fields(value)}
            }
        case _:
            raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


def _value(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    match plain:
        case list():
            return [_value(item, arrays) for item in cast(list[Any], plain)]
        case {"outcome": name}:
            return Outcome(name)
        case {"tuple": items}:
            return tuple(_value(item, arrays) for item in items)
        case {"array": index}:
            return arrays[str(index)]
        case {"mapping": pairs}:
            return {_value(k, arrays): _value(v, arrays) for k, v in pairs}
        case {"counter": pairs}:
            return Counter[Any]({_value(k, arrays): _value(v, arrays) for k, v in pairs})
        case {"class": name, "of": values}:
            return _CLASSES[name](**{key: _value(value, arrays) for key, value in values.items()})
        case dict():
            raise ValueError(f"not a message: {sorted(cast(dict[str, Any], plain))}")
        case _:
            return plain
