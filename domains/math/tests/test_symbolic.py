"""The worker processes: killed when late, replaced when dead, and the same from everywhere."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from soarctl_math import symbolic
from soarctl_math.domain import MathDomain
from soarctl_math.symbolic import Reply, Workers

from soarctl.api import Problem

pytestmark = pytest.mark.skipif(
    not symbolic.available(), reason="Math-Verify is not installed: pip install 'soarctl[math]'"
)

MATRIX = r"\begin{pmatrix}6&8\end{pmatrix}"
ATTEMPTS = [
    (Problem("", MATRIX), r"\boxed{\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}5&6\end{pmatrix}}"),
    (Problem("", MATRIX), r"\boxed{\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}5&5\end{pmatrix}}"),
    (Problem("", "5"), r"\boxed{9^{9^9}}"),
    (Problem("", r"\sqrt6+\sqrt2"), r"\boxed{\sqrt{8+4\sqrt3}}"),
]
OUTCOMES = ["correct", "wrong", "wrong", "correct"]


def outcomes() -> list[str]:
    return [str(verdict.outcome) for verdict in MathDomain(workers=1).grade(ATTEMPTS)]


@pytest.mark.slow
def test_a_request_that_runs_late_costs_its_worker_and_nobody_else_anything() -> None:
    pool = Workers(1, limit=0.5, memory=2 << 30)
    pool.ask([{"gold": "1", "answer": "1"}])
    # With gmpy2 the first three sit in one C call, or abort the interpreter; without it they are slow or raise.
    bombs = [r"(10^9)!", r"\binom{10^9}{5\cdot 10^8}", r"(2^{2^{4^{8^{16}}}}, \infty)"]
    for bomb in bombs:
        start = time.monotonic()
        (reply,) = pool.ask([{"gold": "5", "answer": bomb}])
        assert not reply.equal
        assert time.monotonic() - start < 0.5 + 1
    replies = pool.ask([{"gold": "5", "answer": bomb} for bomb in bombs] + [{"gold": "0.5", "answer": "1/2"}] * 100)
    assert replies[3:] == [Reply(True, "symbolic")] * 100
    pool.close()


def test_a_worker_that_dies_is_a_crash_of_its_request_alone() -> None:
    pool = Workers(1, limit=5, memory=2 << 30)
    pool.ask([{"gold": "1", "answer": "1"}])
    (worker,) = pool._workers  # pyright: ignore[reportPrivateUsage]
    os.kill(worker.pid, signal.SIGKILL)
    replies = pool.ask([{"gold": "5", "answer": "5.0"}, {"gold": "5", "answer": "5.0"}])
    assert replies == [Reply(False, "crash"), Reply(True, "symbolic")]
    pool.close()


def test_workers_are_there_again_when_the_process_that_forks_them_has_died() -> None:
    pool = Workers(1, limit=5, memory=2 << 30)
    pool.ask([{"gold": "1", "answer": "1"}])
    assert pool._nursery is not None  # pyright: ignore[reportPrivateUsage]
    pool._nursery.process.kill()  # pyright: ignore[reportPrivateUsage]
    pool._nursery.process.wait()  # pyright: ignore[reportPrivateUsage]
    assert pool.ask([{"gold": "5", "answer": "5.0"}]) == [Reply(True, "symbolic")]
    pool.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux tells the limits of another process")
def test_memory_is_capped_and_a_closed_pool_leaves_no_process() -> None:
    pool = Workers(1, limit=5, memory=400 << 20)
    pool.ask([{"gold": "1", "answer": "1"}])
    (worker,) = pool._workers  # pyright: ignore[reportPrivateUsage]
    limits = Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
    assert next(line.split()[3] for line in limits if line.startswith("Max address space")) == str(400 << 20)
    pool.close()
    assert not Path(f"/proc/{worker.pid}").exists()


def _in_a_thread() -> list[str]:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(outcomes()))
    thread.start()
    thread.join()
    return found


async def _in_a_loop() -> list[str]:
    direct, beside = outcomes(), await asyncio.to_thread(outcomes)
    assert direct == beside
    return direct


def _forked() -> list[str]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(outcomes()))
    process.start()
    found: list[str] = ours.recv()
    process.join()
    return found


def _spawned() -> list[str]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [str(verdict.outcome) for verdict in pool.submit(MathDomain(workers=1).grade, ATTEMPTS).result()]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "place",
    [outcomes, _in_a_thread, lambda: asyncio.run(_in_a_loop()), _forked, _spawned],
    ids=["main thread", "thread", "asyncio", "forked", "spawned"],
)
def test_verdicts_are_the_same_from_everywhere_and_no_signal_is_touched(place: Callable[[], list[str]]) -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rang.append(number))
    signal.setitimer(signal.ITIMER_REAL, 300)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        assert place() == OUTCOMES
        assert signal.getsignal(signal.SIGALRM) is handler
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 200
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == []
