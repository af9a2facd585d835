"""The domain as a run uses it."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from soarctl_math import domain as domain_module
from soarctl_math import symbolic
from soarctl_math.domain import MathDomain

from soarctl.api import DataError, Outcome, PluginError, Problem

GOLD = Problem("?", "5")


def test_the_students_reward_is_paid_in_the_papers_tiers() -> None:
    texts = [r"\boxed{5}", r"\boxed{x = 3, 5}", r"\boxed{7}", "It is 5.", r"\boxed{5"]
    verdicts = MathDomain(symbolic=False).grade([(GOLD, text) for text in texts])
    assert [verdict.reward for verdict in verdicts] == [120, 20, 10, 0, 0]
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.CORRECT,
        Outcome.WRONG,
        Outcome.WRONG,
        Outcome.UNPARSED,
        Outcome.UNPARSED,
    ]
    assert verdicts[1].reason == "exact, contains the gold"
    assert [verdict.answer for verdict in verdicts] == ["5", "x = 3, 5", "7", None, None]


def test_the_last_box_counts_and_boxes_side_by_side_are_a_list() -> None:
    texts = {
        r"First \boxed{3}. Wait: \boxed{5}": True,
        r"\boxed{5}, or rather, thinking again, \boxed{3}": False,
        r"<think>\boxed{7}</think> \boxed{5}": True,
        r"\boxed{5} or \boxed{6}": False,
        r"\boxed{\boxed{5}}": True,
        r"\boxed{5} and then \boxed{": False,
        r"\fbox{5}": True,
        r"$\boxed 5$": True,
    }
    verdicts = MathDomain(symbolic=False).grade([(GOLD, text) for text in texts])
    assert [verdict.correct for verdict in verdicts] == list(texts.values())
    (both,) = MathDomain(symbolic=False).grade([(Problem("?", "1,-2"), r"\boxed{-2} and $\boxed{1}$")])
    assert both.correct


def test_without_boxes_required_the_answer_that_a_text_names_counts() -> None:
    texts = [
        "**Answer:** 5",
        "<answer>5</answer>",
        "The final answer is $5$. I hope it is correct.",
        "so $x=5$",
        "#### 5",
    ]
    verdicts = MathDomain(symbolic=False, require_box=False).grade([(GOLD, text) for text in texts])
    assert all(verdict.correct for verdict in verdicts)


def test_a_tolerance_of_the_data_set_is_respected() -> None:
    near = Problem("?", "18.8", {"tolerance": 0.1})
    verdicts = MathDomain(symbolic=False).grade(
        [(near, r"\boxed{18.85}"), (near, r"\boxed{19}"), (GOLD, r"\boxed{4.9}")]
    )
    assert [verdict.reason for verdict in verdicts] == ["tolerance", "exact", "exact"]


def test_the_known_pairs_pass(tmp_path: Path) -> None:
    MathDomain(symbolic=symbolic.available()).check()
    MathDomain(symbolic=False).check()


def test_a_grader_with_swapped_arguments_is_found_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = domain_module.Verifier.judge_all

    def swapped(verifier: Any, pairs: Sequence[tuple[str, str]]) -> Any:
        return honest(verifier, [(answer, gold) for gold, answer in pairs])

    monkeypatch.setattr(domain_module.Verifier, "judge_all", swapped)
    with pytest.raises(PluginError, match="the grader judges"):
        MathDomain(symbolic=False).check()


def test_without_math_verify_the_own_path_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "available", lambda: False)
    with pytest.raises(PluginError, match="Math-Verify is not installed") as raised:
        MathDomain().check()
    assert "symbolic: false" in str(raised.value)


def test_loading_twice_gives_the_same_problems_with_ids_of_their_own(data: Path) -> None:
    domain = MathDomain.model_validate({"data": [{"path": str(data / "math" / "math500.jsonl.gz")}], "symbolic": False})
    problems = domain.load()
    assert problems == domain.load()
    assert len({problem.id for problem in problems}) == len(problems) == 500
    assert [p.id for p in domain.split(problems, 0.5, 0).train] == [
        p.id for p in domain.split(problems[::-1], 0.5, 0).train
    ]


def test_a_domain_without_data_grades_but_does_not_load() -> None:
    with pytest.raises(DataError, match=r"domain.data: no data is named"):
        MathDomain(symbolic=False).load()


def test_options_are_checked() -> None:
    for options in ({"workers": 0}, {"tires": {}}, {"data": [{"path": "x", "format": "maths"}]}, {"topics": []}):
        with pytest.raises(ValidationError):
            MathDomain.model_validate(options)


def test_it_travels_to_a_worker_process() -> None:
    domain = MathDomain(symbolic=False)
    domain.grade([(GOLD, r"\boxed{5}")])
    assert pickle.loads(pickle.dumps(domain)) == domain
