"""What processes send each other arrives as it was, and nothing else can arrive."""

import json
from collections import Counter
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

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
from soarctl.crew import Failed
from soarctl.fail_at_k import FilterJob
from soarctl.inner_loop import Attempt, PracticeLog
from soarctl.ledger import Filtered
from soarctl.practice import PracticeJob, Practised
from soarctl.processes import wire
from soarctl.processes.wire import Done, Event, Hello, Mistake, Ready, Stop, Task, Trouble, decode, encode
from soarctl.shared_teacher import GradientJob, SampleJob
from soarctl.solving import SolveJob

POLICY = Policy({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([np.nan, 0.1 + 0.2])})
PROBLEM = Problem("1 + 1 =", "2", {"level": 3, "tests": ["a", {"array": 0}], "class": "Stop"})
STREAM = Stream((0, "practice", -1))
COMPLETION = Completion("two ☃", (1, 2), (3, 4), (-0.1, -1e-300), "eos")
LOG = PracticeLog([0.5, float("inf")], 1, 8, Counter({"correct": 2}), [0.1, float("nan")], 0.25)
LOG.attempts.append(Attempt(0, "q", "c", Verdict(Outcome.TIMEOUT, 0.5, "slow")))
PRACTISED = Practised(0, 1, Student(POLICY, 0.5, 0.25, 1), LOG)
VALUES = [
    Done([PRACTISED, Failed("no memory"), Practised(0, 2, Student(None, 0.5, 0.0, 2), PracticeLog())]),
    Done([Filtered(PROBLEM, 8, 1, Counter({"wrong": 7}), "train")]),
    Done([[COMPLETION], []]),
    Task(PracticeJob(POLICY, [(0, 1)], [[PROBLEM]], [STREAM], 3, (PROBLEM,), 0, 0.1), last=True),
    Task(SolveJob(POLICY, [(PROBLEM, STREAM)], 4, Sampling(8, stop=("\n",))), last=False),
    Task(FilterJob([PROBLEM]), last=False),
    Task(SampleJob(POLICY, [Prompt(0, "write", 4, STREAM, 2)], Sampling(8)), last=False),
    Task(GradientJob(POLICY, [GradedSample(COMPLETION, -0.5)], 1), last=False),
    Hello(1, 2, "host", "hash"),
    Ready({"dtype": "float32"}),
    Event("inner_step", {"reward": 0.1, "none": None, "yes": True}),
    Trouble("why"),
    Mistake("what", None, "do"),
    Stop(),
]


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, arrays bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(getattr(value, "job", value)).__name__)
def test_a_message_arrives_as_it_was_sent(value: Any) -> None:
    assert same(decode(encode(value)), value)


def test_every_class_that_can_be_sent_is_among_the_messages_above() -> None:
    sent = b"".join(map(encode, VALUES)).decode("latin-1")
    assert [name for name in wire._CLASSES if f'"{name}"' not in sent] == []


def test_what_is_not_listed_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="a set cannot be sent to another process"):
        encode(Done({1, 2}))
    with pytest.raises(TypeError, match="a float32 cannot be sent"):
        encode(Done(np.float32(1)))


@pytest.mark.parametrize(
    "plain", [{"class": "Popen", "of": {}}, {"os.system": "true"}, {"class": "Stop", "of": {"x": 1}}]
)
def test_what_is_not_listed_cannot_arrive(plain: Any) -> None:
    text, no_arrays = json.dumps(plain).encode(), encode(None)[8 + len("null") :]
    with pytest.raises(ValueError, match="not a message"):
        decode(len(text).to_bytes(8, "little") + text + no_arrays)
