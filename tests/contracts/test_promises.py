"""Every promise of api.py is held by a check; a promise that changes fails here until its checks were looked at.

The promises that the checks were written for are in promises.json. After changing api.py: read what differs, change
the checks in soarctl/contracts, and then run `python tests/contracts/test_promises.py`, which writes the file anew.
"""

import inspect
import json
from pathlib import Path

import pytest

from soarctl import api
from soarctl.contracts import domain, reward, trainer

RECORDED = Path(__file__).with_name("promises.json")
INTERFACES = (api.Plugin, api.Domain, api.Reward, api.RewardContext, api.Trainer, api.Engine, api.Fleet)
# Held by the trainer's checks, of a trainer that samples through one.
SAMPLING = (api.Sampler, api.InferenceEngine, api.Served, api.AdapterShape, api.Request, api.Continuation)
VALUES = (api.Problem, api.Rejection, api.Verdict, api.Finding, api.Split, api.Policy, api.Sampling, api.Prompt)
MORE_VALUES = (api.Completion, api.GradedSample, api.Optimizer, api.StepStats, api.Student, api.Scores)

# Which checks hold what an interface promises. A method that is not here has no check.
HELD = {
    "Domain": ["options", "pickles", "travels"],
    "Domain.load": ["loads", "ids", "values"],
    "Domain.split": ["split"],
    "Domain.teacher_prompt": ["prompts"],
    "Domain.student_prompt": ["prompts"],
    "Domain.parse": ["hostile_questions", "accepts", "rejects"],
    "Domain.grade": [
        "gold_verifies",
        "wrong_does_not",
        "batches",
        "thousands",
        "threads",
        "tiers",
        "hostile_answers",
    ],
    "Domain.is_hard": ["hard"],
    "Domain.teacher_stops": ["stops"],
    "Domain.student_stops": ["stops"],
    "Domain.solve": ["people"],
    "Domain.facts": ["recorded"],
    "Domain.checks": ["looked_at"],
    "Domain.files": ["named"],
    "Domain.measure": ["people", "hostile_questions"],
    "Reward": ["options", "travels"],
    "Reward.score": [
        "one_for_each",
        "repeats_itself",
        "stays_with_its_dataset",
        "students",
        "leaves_datasets_alone",
        "copes_with_nothing",
    ],
    "Trainer": ["options"],
    "Trainer.load": ["loads"],
    "Trainer.find": ["finds"],
    "Trainer.trains_all_weights": ["loads"],
    "Engine.width": ["loads"],
    "Engine.repeats": ["same_streams"],
    "Engine.share": ["loads"],
    "Engine.facts": ["loads"],
    "Engine.start": ["loads", "start"],
    "Engine.fleet": ["start", "alone_as_in_a_fleet"],
    "Engine.export": ["exports"],
    "Fleet.sample": ["samples", "same_streams", "greedy", "stop_strings"],
    "Fleet.reinforce": ["no_signal", "learns", "alone_as_in_a_fleet"],
    "Fleet.parts": ["parts"],
    "Fleet.gradient": ["parts"],
    "Fleet.step": ["parts"],
    "Fleet.snapshot": ["start"],
    "Fleet.state": ["restores"],
    "Fleet.restore": ["restores"],
}
CHECKS = {"Domain": domain.CHECKS, "Reward": reward.CHECKS} | dict.fromkeys(
    ("Trainer", "Engine", "Fleet"), trainer.CHECKS
)


def promises() -> dict[str, str]:
    """The source of every interface and value: signatures, defaults and docstrings."""
    return {cls.__name__: inspect.getsource(cls) for cls in (*INTERFACES, *SAMPLING, *VALUES, *MORE_VALUES)}


@pytest.mark.parametrize("interface", [api.Domain, api.Reward, api.Trainer, api.Engine, api.Fleet])
def test_every_method_of_an_interface_has_a_check(interface: type) -> None:
    name = interface.__name__
    methods = [f"{name}.{method}" for method in vars(interface) if not method.startswith(("_", "model_"))]
    assert [method for method in methods if method not in HELD] == []


def test_every_check_that_is_named_exists_and_every_check_is_named() -> None:
    for name, checks in HELD.items():
        known = {check.__name__ for check in CHECKS[name.partition(".")[0]]}
        assert set(checks) <= known, name
    for interface, checks in CHECKS.items():
        kind = ("Trainer", "Engine", "Fleet") if interface not in ("Domain", "Reward") else (interface,)
        named = {check for name, held in HELD.items() if name.partition(".")[0] in kind for check in held}
        assert {check.__name__ for check in checks} == named


@pytest.mark.parametrize("name", sorted(promises()))
def test_a_promise_is_the_one_that_its_checks_were_written_for(name: str) -> None:
    assert promises()[name] == json.loads(RECORDED.read_text())[name], "see the docstring of this file"


def test_every_check_says_what_it_holds() -> None:
    assert all((check.__doc__ or "").endswith(".") for checks in CHECKS.values() for check in checks)


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(promises(), indent=2) + "\n")
