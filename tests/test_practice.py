"""Practice and its bookkeeping, in the toy world."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from soarctl.api import DataError, ModelError, Optimizer, Policy, Problem, Sampling, Stream
from soarctl.crew import Alone, Workplace
from soarctl.errors import RunError
from soarctl.events import silent
from soarctl.practice import Baseline, Practice, Practised
from soarctl.savings import Seen
from soarctl.spec import Savings, Spec
from soarctl.testing import ToyDomain, ToyEngine

DOMAIN = ToyDomain()
SPEC = Spec.model_validate(
    {
        "name": "toy",
        "model": {"base": "toy"},
        "domain": {"plugin": "toy"},
        "inner": {"steps": 5, "batch_size": 4, "group_size": 16, "lr": 2.0},
    }
)
HELPFUL = [Problem(f"{3 + i % 2} #{i}", str(3 + i % 2)) for i in range(6)]
USELESS = [Problem(f"0 #{i}", "wrong") for i in range(6)]


class Shelf:
    """Keeps students in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int, int], Practised] = {}
        self.lost: dict[tuple[int, int], str] = {}

    def recall(self, step: int, jobs: Sequence[tuple[int, int]], fingerprint: str) -> Any:
        found = [self.kept.get((step, *job)) for job in jobs]
        return [p.student for p in found if p] if all(found) else None

    def keep(self, step: int, students: Sequence[Practised], lost: Any, fingerprint: str) -> None:
        self.lost |= lost
        self.kept |= {(step, p.dataset, p.repeat): p for p in students}


def practice(width: int = 4, shelf: Shelf | None = None) -> Practice:
    engine = ToyEngine(width, (0.9, 0.9, 0.9, 0.3, 0.3))
    train = list(DOMAIN.load())
    crew = Alone(Workplace(SPEC, DOMAIN, engine, silent))
    return Practice(crew, train, Baseline(engine.start(), 0), 1, Stream((0, "outer", 1)), shelf or Shelf())


def test_practising_what_one_half_knows_helps_on_hard_problems_and_useless_questions_do_not() -> None:
    world = practice()
    hard = world.draw_hard(20)
    helped, idle = world.practise([HELPFUL, USELESS], 2, hard, 16)
    assert all(student.gain > 0.1 for student in helped)
    assert [student.gain for student in idle] == [0.0, 0.0]
    assert [student.policy for student in idle] == [None, None]


def test_students_are_the_same_whoever_trains_beside_them() -> None:
    gains = []
    for width in (1, 3, 4):
        world = practice(width)
        hard = world.draw_hard(20)
        gains.append([[s.gain for s in students] for students in world.practise([HELPFUL, HELPFUL], 2, hard, 8)])
    assert gains[0] == gains[1] == gains[2]
    assert len({gain for students in gains[0] for gain in students}) > 1, "repeats differ in their seed"


def test_the_reward_questions_are_train_problems_and_the_same_at_every_call() -> None:
    world = practice()
    hard = world.draw_hard(10)
    assert hard == world.draw_hard(10)
    assert len({p.id for p in hard}) == 10
    assert {p.id for p in hard} <= {p.id for p in world.train}


def test_asking_for_more_reward_questions_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError) as error:
        practice().draw_hard(41)
    assert str(error.value) == (
        "reward.questions: a reward asks for 41 hard problems to learn from; there are 40\n"
        "  ask for fewer, or give the filter more candidates"
    )


def test_the_baseline_is_asked_once_and_looked_up_afterwards() -> None:
    world = practice()
    hard = world.draw_hard(10)
    world.practise([HELPFUL], 1, hard, 4)
    rates = world.baseline.rates[4]
    assert rates.keys() == {p.id for p in world.train}
    rates.update(dict.fromkeys(rates, 1.0))
    [[student]] = practice_again(world, hard)
    assert student.gain == student.accuracy - 1.0


def practice_again(world: Practice, hard: Sequence[Problem]) -> Any:
    world.step = 2
    return world.practise([HELPFUL], 1, hard, 4)


def test_finished_students_are_not_trained_again() -> None:
    shelf = Shelf()
    first, second = practice(2, shelf), practice(2, shelf)
    hard = first.draw_hard(10)
    before = first.practise([HELPFUL, HELPFUL], 2, hard, 8)
    place = Workplace(SPEC, DOMAIN, Width(2), silent)  # type: ignore[arg-type]  # it is asked for the width alone
    second.crew = Alone(place)
    second.baseline = first.baseline
    assert second.practise([HELPFUL, HELPFUL], 2, hard, 8) == before


class Width:
    def __init__(self, width: int) -> None:
        self.width = width


def test_the_learnability_context_asks_the_base_model() -> None:
    world = practice()
    world.baseline = Baseline(Policy({}), 3)
    rates = world.solve_rates([Problem("0 #1", "0"), Problem("0 #1", "1")], 200)
    assert rates[0] == pytest.approx(0.9, abs=0.07)
    assert rates[1] == 0.0


def saving(**savings: Any) -> Practice:
    world = practice()
    spec = SPEC.model_copy(update={"savings": Savings.model_validate(savings)})
    world.crew = Alone(replace(world.crew.place, spec=spec))
    return world


def test_repeats_go_to_datasets_whose_ranking_is_undecided() -> None:
    world, faithful = saving(race_from=3), practice()
    hard = world.draw_hard(20)
    datasets_G = [HELPFUL, USELESS, HELPFUL[:4], USELESS[:4]]
    raced = world.practise(datasets_G, 6, hard, 16)
    whole = faithful.practise(datasets_G, 6, hard, 16)
    # What helps is far from what does not, and useless questions gain exactly nothing; between the two that help,
    # it takes more than three students each to see which is the better one.
    assert [len(students) for students in raced][1::2] == [3, 3]
    assert 3 < len(raced[0]) == len(raced[2]) <= 6
    for some, all_ in zip(raced, whole, strict=True):
        assert [s.gain for s in some] == [s.gain for s in all_[: len(some)]]


def test_a_dataset_that_was_seen_takes_over_its_gains_and_adds_one_student() -> None:
    world, faithful = saving(reuse_overlap=1.0), practice()
    world.seen = [Seen([(p.question, p.answer) for p in reversed(HELPFUL)], [0.5, 0.3])]
    hard = world.draw_hard(20)
    known, new = world.practise([HELPFUL, USELESS], 3, hard, 16)
    [[measured, *_]] = faithful.practise([HELPFUL], 1, hard, 16)
    assert [student.gain for student in known] == [pytest.approx((measured.gain + 0.5 + 0.3) / 3)]
    assert known[0].policy is not None
    assert len(new) == 3


class Broken(ToyEngine):
    """Students that practise with a stream that `breaks` names have no finite gradient, or do not fit in memory."""

    breaks: tuple[str | int, ...] = ()
    memory = False

    def fleet(self, starts_S: Any, optimizer: Optimizer) -> Any:
        return BrokenFleet(self, super().fleet(starts_S, optimizer))


class BrokenFleet:
    def __init__(self, engine: Broken, inner: Any) -> None:
        self.engine, self.inner, self.broken = engine, inner, set[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sample(self, prompts: Any, sampling: Sampling) -> Any:
        self.broken = {p.policy for p in prompts if p.stream.path[3:6] == self.engine.breaks}
        if self.broken and self.engine.memory:
            raise ModelError("out of memory while sampling a single sequence")
        return self.inner.sample(prompts, sampling)

    def reinforce(self, samples_S: Any) -> Any:
        stats_S = self.inner.reinforce(samples_S)
        return [replace(s, grad_norm=float("nan")) if i in self.broken else s for i, s in enumerate(stats_S)]


def breaking(breaks: tuple[str | int, ...], width: int, *, memory: bool = False) -> tuple[Practice, Shelf]:
    shelf = Shelf()
    world = practice(width, shelf)
    engine = Broken(width, (0.9, 0.9, 0.9, 0.3, 0.3))
    engine.breaks, engine.memory = breaks, memory
    world.crew = Alone(replace(world.crew.place, engine=engine))
    return world, shelf


def test_a_student_without_finite_gradients_is_left_out_and_the_others_are_averaged() -> None:
    world, shelf = breaking(("practice", 1, 0), 4)
    faithful = practice()
    hard = world.draw_hard(20)
    broken, whole = (w.practise([USELESS, HELPFUL], 3, hard, 8) for w in (world, faithful))
    assert [s.repeat for s in broken[1]] == [1, 2]
    assert [s.gain for s in broken[1]] == [s.gain for s in whole[1][1:]]
    assert [s.gain for s in broken[0]] == [s.gain for s in whole[0]]
    assert shelf.lost == {(1, 0): "the gradient of student 0 of dataset 1 is not finite"}


def test_a_fleet_that_does_not_fit_is_left_out_with_all_its_students() -> None:
    world, shelf = breaking(("practice", 1, 0), 2, memory=True)
    students = world.practise([USELESS, HELPFUL], 3, world.draw_hard(20), 8)
    assert [[s.repeat for s in some] for some in students] == [[0, 1], [1, 2]]
    reason = "ModelError: out of memory while sampling a single sequence"
    assert shelf.lost == {(0, 2): reason, (1, 0): reason}


def test_a_dataset_that_lost_all_its_students_ends_the_run() -> None:
    world, _ = breaking(("practice", 1, 0), 1, memory=True)
    with pytest.raises(RunError) as error:
        world.practise([USELESS, HELPFUL], 1, world.draw_hard(20), 8)
    assert str(error.value) == (
        "no student of dataset 1 of outer step 1 came to the end of its practice\n"
        "  the warnings say why. `--resume` trains these students again: that helps where memory was\n"
        "  short or a process died. A gradient that is not finite will be so again: a new run with a\n"
        "  smaller inner.lr"
    )
