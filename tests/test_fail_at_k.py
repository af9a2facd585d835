"""The filter: what it counts, when it stops asking, and its results on disk."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soarctl.api import Outcome, Problem, Verdict
from soarctl.crew import Alone, Workplace
from soarctl.errors import DataError, PluginError
from soarctl.events import silent
from soarctl.fail_at_k import fail_at_k, halve, is_hard
from soarctl.filter_results import filter_to_file, manifest_path, read_results, reuse
from soarctl.grading import count_verdicts, grade
from soarctl.run import run
from soarctl.spec import Spec
from soarctl.testing import ToyDomain, ToyEngine, toy_run

DOMAIN = ToyDomain()
ENGINE = ToyEngine(4, (0.9, 0.9, 0.9, 0.3, 0.3))
SPEC = toy_run(filter={"samples": 64}).spec


def found(spec: Spec = SPEC, domain: ToyDomain = DOMAIN) -> list[Any]:
    crew = Alone(Workplace(spec, domain, ENGINE, silent))
    return fail_at_k(crew, list(domain.load()), {}, lambda _: None)


def test_a_problem_is_not_asked_again_after_it_was_solved() -> None:
    results = found()
    solved = [f for f in results if f.successes]
    assert solved
    # Chunks of 8, 8, 16, 32: a problem of success rate 0.3^3 is solved somewhere in between.
    assert {f.samples for f in solved} <= {8, 16, 32, 64}
    assert any(f.samples < 64 for f in solved)
    assert all(f.samples == 64 for f in results if not f.successes)
    assert all(sum(f.verdicts.values()) == f.samples for f in results)


def test_stopping_early_changes_no_result() -> None:
    class Thorough(ToyDomain):
        """Hard is what is solved at most every time: everything, so nothing can be decided early."""

        def is_hard(self, successes: int, samples: int) -> bool:
            return successes <= samples

    exact = {f.problem.id: f for f in found(domain=Thorough())}
    assert all(f.samples == 64 for f in exact.values())
    assert {f.problem.id for f in found() if is_hard(DOMAIN, f, SPEC)} == {
        id for id, f in exact.items() if f.successes == 0
    }


def test_a_problem_that_an_attempt_finds_at_fault_is_not_hard_and_is_counted() -> None:
    broken = DOMAIN.load()[0].id

    class Broken(ToyDomain):
        """One of its problems is at fault, which some of the attempts at it show."""

        def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            verdicts = super().grade([(p, "0" if p.id == broken else text) for p, text in attempts])
            shown = [at for at, (problem, _) in enumerate(attempts) if problem.id == broken][:1]
            return [Verdict(Outcome.INVALID, 0.0) if at in shown else v for at, v in enumerate(verdicts)]

    told: list[int] = []
    domain = Broken()
    place = Workplace(SPEC, domain, ENGINE, lambda _event, /, **facts: told.append(facts.get("faulty", 0)))
    results = {f.problem.id: f for f in fail_at_k(Alone(place), list(domain.load()), {}, lambda _: None)}
    assert (results[broken].successes, results[broken].samples) == (0, 8)
    assert not is_hard(domain, results[broken], SPEC)
    assert any(is_hard(domain, f, SPEC) for f in results.values())
    assert told[-1] == 1


@pytest.mark.parametrize(("count", "fraction", "train"), [(719, 0.5, 359), (100, 0.29, 29), (3, 0.5, 1), (4, 0.5, 2)])
def test_the_odd_hard_problem_is_held_out(count: int, fraction: float, train: int) -> None:
    split = DOMAIN.split([Problem(str(number), "") for number in range(count)], fraction, 0)
    assert (len(split.train), len(split.test)) == (train, count - train)


def test_halves_are_disjoint_and_do_not_depend_on_the_order() -> None:
    results = found()
    one = {f.problem.id: f.half for f in halve(DOMAIN, results, SPEC)}
    other = {f.problem.id: f.half for f in halve(DOMAIN, results[::-1], SPEC)}
    assert one == other
    hard = [f for f in results if is_hard(DOMAIN, f, SPEC)]
    halves = list(one.values())
    assert halves.count("train") + halves.count("test") == len(hard)
    assert abs(halves.count("train") - halves.count("test")) <= 1


def test_an_interrupted_filter_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    filter_to_file(SPEC, DOMAIN, ENGINE, whole, silent)
    lines = whole.read_text().splitlines(keepends=True)
    made = json.loads(manifest_path(whole).read_text())
    cut.write_text("".join(lines[:10]) + lines[10][:25])
    manifest_path(cut).write_text(json.dumps(made | {"complete": False}))
    asked: list[int] = []
    filter_to_file(SPEC, DOMAIN, ENGINE, cut, lambda event, /, **facts: asked.append(facts.get("done", 0)))
    assert cut.read_text() == whole.read_text()
    assert json.loads(manifest_path(cut).read_text()) == made
    assert made["train"]["count"] + made["test"]["count"] == sum(json.loads(line)["successes"] == 0 for line in lines)


def test_results_begun_with_other_settings_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "hard.jsonl"
    filter_to_file(SPEC, DOMAIN, ENGINE, path, silent)
    with pytest.raises(DataError) as error:
        filter_to_file(toy_run(filter={"samples": 32}).spec, DOMAIN, ENGINE, path, silent)
    assert str(error.value) == (
        f"{path}: the results here were begun with another model or other settings\n  name another file with `--out`"
    )


def test_a_run_takes_up_the_results_of_an_earlier_filter(tmp_path: Path) -> None:
    path = tmp_path / "hard.jsonl"
    filter_to_file(SPEC, DOMAIN, ENGINE, path, silent)
    events: list[str] = []
    loaded = toy_run(filter={"samples": 64, "reuse": str(path)}, outer={"steps": 1}, reward={"questions": 3})
    run(loaded, tmp_path / "run", lambda event, /, **facts: events.append(event))
    assert "filter" not in events
    assert "filtered" in events


def test_results_of_another_model_or_of_too_few_samples_are_refused(tmp_path: Path) -> None:
    path, problems = tmp_path / "hard.jsonl", list(DOMAIN.load())
    filter_to_file(SPEC, DOMAIN, ENGINE, path, silent)
    with pytest.raises(DataError, match="made otherwise than the spec says") as error:
        reuse(toy_run(filter={"samples": 128}).spec, DOMAIN, path, problems, ENGINE.facts)
    assert "'samples': 64" in str(error.value)
    with pytest.raises(DataError, match="made otherwise than the spec says"):
        reuse(SPEC, DOMAIN, path, problems, {"base": "toy", "weights_sha256": "other"})
    with pytest.raises(DataError, match="1 of 41 candidates have no result here"):
        reuse(SPEC, DOMAIN, path, [*problems, Problem("new", "1")], ENGINE.facts)


def test_results_of_other_prompts_are_refused(tmp_path: Path) -> None:
    path, problems = tmp_path / "hard.jsonl", list(DOMAIN.load())
    filter_to_file(SPEC, DOMAIN, ENGINE, path, silent)
    asked_as_chat = toy_run(filter={"samples": 64}, model={"base": "toy", "chat_template": True})
    with pytest.raises(DataError, match="made otherwise than the spec says") as error:
        reuse(asked_as_chat.spec, DOMAIN, path, problems, ENGINE.facts)
    assert "'chat_template': True" in str(error.value)

    class Politely(ToyDomain):
        def student_prompt(self, question: str) -> str:
            return f"Please: {question}"

    with pytest.raises(DataError, match="made otherwise than the spec says"):
        reuse(SPEC, Politely(), path, problems, ENGINE.facts)


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hard.jsonl"
    path.write_text('{"question": "q", "answer": "a", "meta": {}, "samples": 1, "successes": 0, "verdicts": {}}\n{}\n')
    with pytest.raises(DataError, match=rf"{path}:2: not a result of `soarctl filter`: KeyError"):
        read_results(path)
    with pytest.raises(DataError, match="cannot read: No such file"):
        read_results(tmp_path / "missing.jsonl")


def test_a_grader_that_raises_stops_the_run_and_is_named() -> None:
    class Broken(ToyDomain):
        def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            raise ZeroDivisionError("division by zero")

    with pytest.raises(PluginError) as error:
        grade(Broken(), [(Problem("q", "a"), "a")], silent)
    assert str(error.value) == (
        "the grader of Broken failed on a batch of 1 attempts: ZeroDivisionError: division by zero\n"
        "  a grader answers every attempt with a verdict; `soarctl.testing.check_domain` shows where"
    )


def test_a_grader_that_loses_a_verdict_stops_the_run() -> None:
    class Short(ToyDomain):
        def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            return super().grade(attempts)[1:]

    with pytest.raises(PluginError, match="the grader of Short returned 1 verdicts for 2 attempts"):
        grade(Short(), [(Problem("q", "a"), "a")] * 2, silent)


def test_an_alarm_fires_when_most_verdicts_are_timeouts() -> None:
    class Slow(ToyDomain):
        def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            judged = super().grade(attempts)
            return [replace(verdict, outcome=Outcome.TIMEOUT) for verdict in judged[:20]] + judged[20:]

    warnings: list[str] = []

    def tell(event: str, /, **facts: Any) -> None:
        warnings.append(facts["text"])

    verdicts = grade(Slow(), [(Problem("3 #1", "3"), "3")] * 32, tell)
    assert warnings == ["20 of 32 verdicts are timeouts or crashes: the rewards of this batch mean little"]
    assert count_verdicts(verdicts) == {"timeout": 20, "correct": 12}
    grade(Slow(), [(Problem("3 #1", "3"), "3")] * 64, tell)
    assert len(warnings) == 1
