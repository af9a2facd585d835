"""The teacher's work in pieces: the same samples and the same update, bit for bit."""

from collections.abc import Iterator, Sequence

import numpy as np

from soarctl.api import GradedSample, Optimizer, Prompt, Sampling, Stream
from soarctl.crew import Alone, Failed, Job, Result, Workplace
from soarctl.events import silent
from soarctl.shared_teacher import GradientJob, SampleJob, SharedTeacher, shares
from soarctl.testing import ToyDomain, ToyEngine, toy_run

ENGINE = ToyEngine(1, (0.9, 0.9, 0.9, 0.3, 0.3), share=16)
PLACE = Workplace(toy_run().spec, ToyDomain(), ENGINE, silent)


class Two(Alone):
    """Does as two processes do, the last job first, and remembers the jobs."""

    size = 2

    def __init__(self) -> None:
        super().__init__(PLACE)
        self.done: list[Job[object]] = []

    def map(self, jobs: Sequence[Job[Result]]) -> Iterator[tuple[int, Result | Failed]]:
        self.done += jobs
        yield from reversed(list(super().map(jobs)))


def prompt(samples: int, name: str = "write") -> Prompt:
    return Prompt(0, "write", samples, Stream((name,)))


def test_a_request_is_cut_into_shares_of_the_same_size() -> None:
    pieces = shares([prompt(5, "a"), prompt(2, "b"), prompt(4, "c")], 4)
    assert [[(i, p.first, p.samples) for i, p in piece] for piece in pieces] == [
        [(0, 0, 4)],
        [(0, 4, 1), (1, 0, 2), (2, 0, 1)],
        [(2, 1, 3)],
    ]


def test_a_shared_teacher_writes_and_learns_as_one_alone() -> None:
    crew = Two()
    alone = ENGINE.fleet([ENGINE.start()], Optimizer(lr=PLACE.spec.teacher_optimizer.lr))
    shared = SharedTeacher(ENGINE.fleet([ENGINE.start()], PLACE.spec.teacher_optimizer), crew)
    for turn in range(2):
        asked = [prompt(40, f"a{turn}"), prompt(3, f"b{turn}")]
        written = alone.sample(asked, Sampling(8))
        assert shared.sample(asked, Sampling(8)) == written
        graded = [[GradedSample(c, (-1.0) ** i) for i, c in enumerate(written[0])]]
        assert shared.reinforce(graded) == alone.reinforce(graded)
    assert all(np.array_equal(shared.state()[name], tensor) for name, tensor in alone.state().items())
    assert sum(isinstance(job, SampleJob) for job in crew.done) == 2 * 3
    assert sum(isinstance(job, GradientJob) for job in crew.done) == 2 * 10
