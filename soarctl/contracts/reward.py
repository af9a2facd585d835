"""What every reward promises, one check for each promise."""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from soarctl.api import Policy, Problem, Reward, Scores, Student
from soarctl.contracts.findings import Check, is_a, is_number, run_checks, shown, strict_options

_DATASETS_G = tuple(tuple(Problem(f"question {n} of dataset {g}", str(g + n)) for n in range(3)) for g in range(4))


def chance(*names: object) -> float:
    """A number in [0, 1) that its names decide."""
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:6], "big") / 2**48


@dataclass
class ScriptedContext:
    """Answers what a reward may ask for, with numbers that follow from the questions alone."""

    gains: float = 1.0
    """Scale of the students' gains; 0: nobody learns anything."""
    hard: tuple[Problem, ...] = tuple(Problem(f"hard {i}", str(i)) for i in range(256))
    trained: list[Student] = field(default_factory=list[Student])

    def draw_hard(self, count: int) -> Sequence[Problem]:
        if count > len(self.hard):
            raise ValueError(f"the context has {len(self.hard)} hard problems, the reward asks for {count}")
        return self.hard[:count]

    def practise(
        self, datasets_G: Sequence[Sequence[Problem]], repeats: int, questions: Sequence[Problem], samples: int
    ) -> list[list[Student]]:
        unknown = [q for q in questions if q not in self.hard]
        if unknown:
            raise ValueError(f"students are measured on {unknown[0].question!r}, which draw_hard did not give")
        students_G_R = [[self._student(dataset, j) for j in range(repeats)] for dataset in datasets_G]
        self.trained += [student for students_R in students_G_R for student in students_R]
        return students_G_R

    def solve_rates(self, problems: Sequence[Problem], samples: int) -> list[float]:
        return [round(chance("solves", p.question) * samples) / samples for p in problems]

    def _student(self, dataset: Sequence[Problem], repeat: int) -> Student:
        gain = self.gains * (chance("gain", [p.question for p in dataset], repeat) - 0.5)
        return Student(Policy({"weights": np.full(2, gain)}) if gain else None, 0.5 + gain, gain, repeat)


def check_reward(reward: Reward, *, seconds: float = 60.0) -> None:
    """Holds a reward to what api.py promises; the checks are listed in docs/reference/contracts.md.

    Args:
        reward: to be checked.
        seconds: after which a check counts as hanging.

    Raises:
        ContractError: promises are broken. All of them are in the message.
    """
    run_checks("check_reward", reward, reward, CHECKS, seconds)


def options(reward: Reward) -> Iterator[str]:
    """Its fields are its options: unknown ones are errors, and a loaded reward never changes."""
    yield from strict_options(reward)
    before = reward.model_dump()
    reward.score(_DATASETS_G, ScriptedContext())
    if reward.model_dump() != before:
        yield f"its options were {shown(before)} and are {shown(reward.model_dump())} after it worked"


def travels(reward: Reward) -> Iterator[str]:
    """It can be pickled."""
    try:
        same = pickle.loads(pickle.dumps(reward)) == reward
    except Exception as error:  # whatever pickle says is the finding
        yield f"not picklable: {type(error).__name__}: {error}"
        return
    if not same:
        yield "not picklable: the copy is another reward"


def one_for_each(reward: Reward) -> Iterator[str]:
    """There is one finite reward per dataset, for two datasets as for four."""
    for count in (4, 2):
        scores = reward.score(_DATASETS_G[:count], ScriptedContext())
        if not is_a(scores, Scores):
            yield f"score returned {shown(scores)} and not soarctl.api.Scores"
            return
        if len(scores.rewards_G) != count:
            yield f"{len(scores.rewards_G)} rewards for {count} datasets"
        if not all(map(is_number, scores.rewards_G)):
            yield f"a reward is not a finite number: {shown(list(scores.rewards_G))}"


def repeats_itself(reward: Reward) -> Iterator[str]:
    """The same datasets get the same rewards: nothing is drawn and nothing is remembered."""
    first, second = (list(reward.score(_DATASETS_G, ScriptedContext()).rewards_G) for _ in range(2))
    if first != second:
        yield f"the same datasets got {shown(first)}, then {shown(second)}"


def stays_with_its_dataset(reward: Reward) -> Iterator[str]:
    """Each reward is that of its dataset: datasets in another order have the same rewards in that order."""
    order = (2, 0, 3, 1)
    rewards_G = reward.score(_DATASETS_G, ScriptedContext()).rewards_G
    moved_G = reward.score([_DATASETS_G[g] for g in order], ScriptedContext()).rewards_G
    if not np.allclose(moved_G, [rewards_G[g] for g in order], rtol=1e-9, atol=1e-12):
        yield f"in the order {order} the rewards {shown(list(rewards_G))} became {shown(list(moved_G))}"


def students(reward: Reward) -> Iterator[str]:
    """It returns the students that it trained, in the order of their datasets, or none at all."""
    context = ScriptedContext()
    students_G_R = reward.score(_DATASETS_G, context).students_G_R
    if students_G_R is None:
        return
    if len(students_G_R) != len(_DATASETS_G):
        yield f"students of {len(students_G_R)} datasets for {len(_DATASETS_G)} datasets"
        return
    if not all(students_G_R):
        yield "a dataset has no students: nobody could be promoted"
        return
    trained = {id(student) for student in context.trained}
    if any(id(student) not in trained for students_R in students_G_R for student in students_R):
        yield "a student was not trained by `practise`"
    for g, students_R in enumerate(students_G_R):
        [own_R] = context.practise([_DATASETS_G[g]], len(students_R), (), 0)
        if sorted(s.gain for s in students_R) != sorted(s.gain for s in own_R):
            yield f"the students of dataset {g} practised another one"
            return


def leaves_datasets_alone(reward: Reward) -> Iterator[str]:
    """It does not change the datasets."""
    datasets_G = [list(dataset) for dataset in _DATASETS_G]
    reward.score(datasets_G, ScriptedContext())
    if datasets_G != [list(dataset) for dataset in _DATASETS_G]:
        yield "a dataset is another one after it was scored"


def copes_with_nothing(reward: Reward) -> Iterator[str]:
    """Where no student gains anything, as at the start of every run, rewards are finite still."""
    rewards_G = reward.score(_DATASETS_G, ScriptedContext(gains=0.0)).rewards_G
    if len(rewards_G) != len(_DATASETS_G) or not all(map(is_number, rewards_G)):
        yield f"rewards {shown(list(rewards_G))}"


CHECKS: tuple[Check[Reward], ...] = (
    options,
    travels,
    one_for_each,
    repeats_itself,
    stays_with_its_dataset,
    students,
    leaves_datasets_alone,
    copes_with_nothing,
)
