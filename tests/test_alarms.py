"""Signs that a run goes wrong: seen in numbers that show them, not in others, and recorded as they arise."""

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soarctl.alarms import (
    STREAK,
    Alarm,
    Sign,
    Step,
    Variety,
    alarms,
    alarms_by_step,
    all_equal,
    broken_grader,
    collapse,
    fewer_valid,
    gradient_blow_up,
    judge,
    kl_blow_up,
    lost_students,
    student_blow_up,
    zero_gain,
)
from soarctl.ledger import FILE, Ledger
from soarctl.run import run
from soarctl.run_directory import go_back
from soarctl.testing import toy_run

GOOD = Step(1, [0.01, 0.03], 100, 20, 0.3, 0.02, Variety(0.98, 30.0), 2.0, 0, 1000)
Seen = Callable[[Sequence[Step]], Sign | None]


def after(bad: Step, count: int) -> list[Step]:
    return [GOOD] * 20 + [bad] * count


@pytest.mark.parametrize(
    ("seen", "bad", "count"),
    [
        (zero_gain, replace(GOOD, rewards_G=[0.0, -0.1]), STREAK),
        (all_equal, replace(GOOD, rewards_G=[0.2, 0.2]), 3),
        (collapse, replace(GOOD, variety=Variety(0.25, 30.0)), 3),
        (collapse, replace(GOOD, variety=Variety(0.98, 9.0)), 3),
        (fewer_valid, replace(GOOD, rejected=60), 3),
        (gradient_blow_up, replace(GOOD, grad_norm=40.0), 1),
        (gradient_blow_up, replace(GOOD, grad_norm=math.nan), 1),
        (kl_blow_up, replace(GOOD, kl=0.3), 1),
        (student_blow_up, replace(GOOD, student_norm=300.0), 1),
        (student_blow_up, replace(GOOD, student_norm=math.inf), 1),
        (broken_grader, replace(GOOD, broken=100), 3),
        (lost_students, replace(GOOD, lost=1), 1),
    ],
)
def test_a_sign_is_seen_and_says_what_to_try(seen: Seen, bad: Step, count: int) -> None:
    assert seen(after(GOOD, count)) is None
    sign = seen(after(bad, count))
    assert sign is not None
    assert sign.advice


def test_a_streak_ends_with_the_first_gain() -> None:
    assert zero_gain([*after(replace(GOOD, rewards_G=[0.0, 0.0]), STREAK), GOOD]) is None


def test_a_kl_that_grows_from_nothing_is_no_blow_up() -> None:
    assert kl_blow_up([replace(GOOD, kl=kl) for kl in (0.0, 1e-6, 1e-5, 5e-3, 0.05)]) is None


def test_the_first_gradient_after_equal_rewards_is_no_blow_up() -> None:
    # With equal rewards only the KL has a gradient, which is small.
    quiet = replace(GOOD, rewards_G=[0.0, 0.0], grad_norm=1e-6)
    assert gradient_blow_up([*[quiet] * 9, GOOD]) is None


def test_a_healthy_run_shows_none(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        assert judge(ledger) == []


def test_a_run_without_steps_shows_none(write_run: Callable[..., Path], tmp_path: Path) -> None:
    with Ledger.open(write_run(tmp_path / "run", gains=[]), read_only=True) as ledger:
        assert judge(ledger) == []


def test_what_does_not_verify_and_what_is_no_number_is_read_from_the_students(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    # In the last of three steps of six students one is lost, and of the others half of the eight verdicts are timeouts,
    # and a gradient is not a number: 20 of 136 verdicts.
    place = write_run(tmp_path / "run")
    db = sqlite3.connect(place / FILE)
    db.execute("""UPDATE students SET verdicts = '{"timeout/grader":4,"wrong":4}', grad_norms = '[1.0,NaN,2.0]'
                  WHERE step = 4""")
    db.execute("DELETE FROM students WHERE step = 4 AND dataset = 1 AND repeat = 2")
    db.execute("INSERT INTO lost_students VALUES (4, 1, 2, 'memory ran out')")
    db.commit()
    db.close()
    with Ledger.open(place, read_only=True) as ledger:
        assert [(sign.name, sign.said) for sign in judge(ledger)] == [
            ("students' gradient norm blow-up", "the largest student's is inf, usually 1"),
            ("verifier failures", "15 % of the verdicts of the last outer steps are timeouts or crashes"),
            ("lost students", "the practice of 1 of the last outer step's students failed for good, and is left out"),
        ]


def hopeless(steps: int) -> Any:
    """Students that practise with so small a learning rate that none gains anything."""
    return toy_run(outer={"steps": steps}, inner={"lr": 1e-12}, reward={"samples": 0}, promotion={"tau": 1.0})


@pytest.fixture(scope="module")
def alarmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, dict[str, Any]]]]:
    place = tmp_path_factory.mktemp("alarmed")
    told: list[tuple[str, dict[str, Any]]] = []
    run(hopeless(STREAK + 2), place, lambda event, /, **facts: told.append((event, facts)))
    return place, told


def test_a_run_records_its_alarms_as_they_arise_and_tells_each_once(
    alarmed: tuple[Path, list[tuple[str, dict[str, Any]]]],
) -> None:
    place, told = alarmed
    assert [(f["name"], f["step"]) for event, f in told if event == "alarm"] == [
        ("equal rewards", 3),
        ("zero-gain streak", STREAK),
    ]
    with Ledger.open(place, read_only=True) as ledger:
        recorded = alarms(ledger)
        by_step = alarms_by_step(ledger)
    assert [(a.name, a.spans, a.holds) for a in recorded] == [
        ("equal rewards", [(3, STREAK + 2)], True),
        ("zero-gain streak", [(STREAK, STREAK + 2)], True),
    ]
    assert recorded[1].text.startswith(
        f"zero-gain streak (since outer step 10): no dataset gained anything in the last {STREAK + 2} outer steps. Try "
    )
    assert [facts["alarms"] for event, facts in told if event == "step"] == [
        by_step.get(step, []) for step in range(1, STREAK + 3)
    ]


class Stop(BaseException):
    """Stands for a kill."""


def test_a_run_that_stops_after_any_step_and_is_resumed_has_the_same_alarms(
    alarmed: tuple[Path, list[tuple[str, dict[str, Any]]]], tmp_path: Path
) -> None:
    def stop(event: str, /, **_: Any) -> None:
        if event == "step":
            raise Stop

    for _ in range(STREAK + 2):
        with pytest.raises(Stop):
            run(hopeless(STREAK + 2), tmp_path, stop, resume=True)
    told: list[dict[str, Any]] = []
    run(hopeless(STREAK + 2), tmp_path, lambda event, /, **facts: told.append({"event": event, **facts}), resume=True)
    assert [event for event in told if event["event"] == "alarm"] == []
    assert [alarm["name"] for alarm in told[0]["alarms"]] == ["equal rewards", "zero-gain streak"]
    with Ledger.open(tmp_path, read_only=True) as ledger, Ledger.open(alarmed[0], read_only=True) as whole:
        assert ledger.content() == whole.content()
        assert len(ledger.alarm_rows()) == STREAK + 3


def test_going_back_forgets_the_alarms_of_later_steps(tmp_path: Path) -> None:
    run(hopeless(5), tmp_path, lambda event, /, **facts: None)
    with Ledger.open(tmp_path) as ledger:
        go_back(tmp_path, ledger, 4)
        assert [(a.name, a.spans) for a in alarms(ledger)] == [("equal rewards", [(3, 4)])]


@pytest.mark.parametrize(
    ("spans", "holds", "when"),
    [
        ([(3, 12)], True, "since outer step 3"),
        ([(3, 3)], False, "outer step 3"),
        ([(3, 5)], False, "outer steps 3 to 5"),
        ([(3, 5), (9, 12)], True, "once before, since outer step 9"),
        ([(3, 5), (7, 7), (9, 12)], False, "2 times before, outer steps 9 to 12"),
    ],
)
def test_an_alarm_says_when_it_held(spans: list[tuple[int, int]], holds: bool, when: str) -> None:
    assert Alarm("a", "b", "c", spans, holds).when == when


def test_a_run_of_a_time_before_alarms_is_read_and_gone_on_with(tmp_path: Path) -> None:
    def stop(event: str, /, **_: Any) -> None:
        if event == "step":
            raise Stop

    for _ in range(4):
        with pytest.raises(Stop):
            run(hopeless(5), tmp_path, stop, resume=True)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("DROP TABLE alarms")
    db.close()
    with Ledger.open(tmp_path, read_only=True) as ledger:
        assert alarms(ledger) == []
    run(hopeless(5), tmp_path, lambda event, /, **facts: None, resume=True)
    with Ledger.open(tmp_path, read_only=True) as ledger:
        assert [(a.name, a.spans) for a in alarms(ledger)] == [("equal rewards", [(5, 5)])]
        assert json.loads(ledger.rows("SELECT teacher FROM steps")[0][0])
