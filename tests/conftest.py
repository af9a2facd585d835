"""A small run, written through the ledger as `soarctl.run` writes one, with numbers that can be followed on paper."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from soarctl.alarms import judge
from soarctl.api import Completion, Domain, Outcome, Policy, Problem, StepStats, Student, Verdict
from soarctl.inner_loop import Attempt, PracticeLog
from soarctl.ledger import Filtered, Ledger
from soarctl.plugins import load
from soarctl.practice import Baseline, Practised
from soarctl.rloo import leave_one_out
from soarctl.run_directory import save_baseline
from soarctl.soar import StepRecord, Writing
from soarctl.spec import Spec

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "model": {"base": "package:soarctl_letters/model"},
    "domain": {"plugin": "letters", "lengths": [3, 4, 5], "candidates": 10, "seed": 0},
    "reward": {"plugin": "grounded", "questions": 4, "repeats": 3, "samples": 0},
    "outer": {"steps": 4},
    "teacher": {"group_size": 2, "dataset_size": 2},
    "promotion": {"tau": 0.01, "window": 2},
    "evaluation": {"samples": 4, "k": [1, 2, 4]},
}

# Of step 2: the first answer is right, the second is not (DOG flips to ODG, and its first letter up is PDG).
USEFUL = [("CAT | up", "DBU"), ("DOG | flip bump", "QDG")]
PLAIN = [("CAT | reverse", "TAC"), ("DOG | left", "OGD")]

# One line per outer step: gains_G_R. Step 2 has the window 0, 0.125 and promotes; the others do not.
GAINS = [
    [[0.0, 0.0, 0.0], [0.25, 0.0, -0.25]],
    [[0.0, 0.0, 0.0], [0.25, 0.5, 0.0]],
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    [[-0.25, 0.0, 0.25], [0.0, 0.0, 0.0]],
]


@pytest.fixture(autouse=True, scope="session")
def no_rates_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Runs look for what `soarctl bench` measured; tests find nothing unless they measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class Scripted:
    """Writes the outer steps of a run whose gains are given."""

    def __init__(self, directory: Path, spec: Spec, facts: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True)
        self.directory, self.spec = directory, spec
        self.ledger = Ledger.create(directory, {"spec": spec.model_dump(mode="json"), "overrides": [], **facts})
        self.domain = load(Domain, spec.domain.plugin, spec.domain.options)
        self.stage, self.window = 0, list[float]()
        hard = [f"CAT | {' '.join(['up'] * (n + 3))}" for n in range(8)]
        self.problems = [Problem(question, self.domain.solve(question) or "") for question in hard]
        self.train, self.test = self.problems[:4], self.problems[4:]
        easy = [Problem("CAT | reverse", "TAC"), Problem("CAT | left", "ATC")]
        with self.ledger.transaction():
            self.ledger.put_problems(
                [
                    *(Filtered(p, 128, 0, {"wrong": 128}, "train") for p in self.train),
                    *(Filtered(p, 128, 0, {"wrong": 128}, "test") for p in self.test),
                    *(Filtered(p, 8, 1, {"correct": 1, "wrong": 7}) for p in easy),
                ]
            )
            self.ledger.put_baseline(0, None, None, None)

    def step(self, step: int, gains_G_R: Sequence[Sequence[float]], datasets_G: Sequence[Sequence[Problem]]) -> None:
        """One outer step, promoting by the rule."""
        m = self.spec.promotion.window
        before = 0.25 if self.stage else 0.0
        rewards_G = [fmean(gains) for gains in gains_G_R]
        self.window.append(fmean(rewards_G))
        window, stage, promoted = tuple(self.window), self.stage, None
        if len(window) >= m and fmean(window[-m:]) > self.spec.promotion.tau:
            k = rewards_G.index(max(rewards_G))
            gains_R = gains_G_R[k]
            promoted = (k, gains_R.index(sorted(gains_R)[(len(gains_R) - 1) // 2]))
            self.stage += 1
            self.window.clear()
        questions = [p for dataset in datasets_G for p in dataset]
        completions = [Completion(f"{p.question} = {p.answer}", (0,), (1, 2), (-1.0, -1.0), "eos") for p in questions]
        record = StepRecord(
            step=step,
            stage=stage,
            writing=Writing(questions, completions, Counter({"no equals sign": 1}), len(questions) + 1),
            datasets_G=datasets_G,
            asked=self.train,
            rewards_G=rewards_G,
            advantages_G=leave_one_out(rewards_G),
            reward=window[-1],
            window=window,
            promoted=promoted,
            teacher=StepStats(stepped=True, grad_norm=0.5, tokens=8),
        )
        with self.ledger.transaction():
            rates = {p.id: float(stage > 0 and i == 0) for i, p in enumerate(self.train)}
            self.ledger.put_baseline_rates(stage, 0, rates)
            for k, gains_R in enumerate(gains_G_R):
                for j, gain in enumerate(gains_R):
                    verdict = Verdict(Outcome.CORRECT, 1.0)
                    log = PracticeLog([0.5], 1, 40, Counter({"correct": 4, "wrong": 4}), [1.0], 0.0)
                    log.attempts.append(Attempt(0, datasets_G[k][0].question, datasets_G[k][0].answer, verdict))
                    practised = Practised(k, j, Student(None, before + gain, gain, j), log)
                    self.ledger.put_students(step, [practised], [None], "fingerprint")
            if promoted is not None:
                policy = Policy({"layer.lora_A": np.full((1, 2), float(self.stage), np.float32)})
                digest = save_baseline(self.directory, Baseline(policy, self.stage), step)
                self.ledger.put_baseline(self.stage, step, promoted, digest)
            self.ledger.put_step(record, self.window, [self.domain.measure(p) for p in questions])
            self.ledger.put_alarms(step, judge(self.ledger))
            self.ledger.put_checkpoint(step, f"hash of step {step}")
            self.ledger.put_timing(step, "outer_step", 2.0, 480)

    def measure_held_out(self, correct_by_arm: Mapping[str, Sequence[int]]) -> None:
        for arm, correct_P in correct_by_arm.items():
            counts = {p.id: correct for p, correct in zip(self.test, correct_P, strict=True)}
            self.ledger.put_evaluation(arm, 4, counts)


def _facts() -> dict[str, Any]:
    return {
        "soarctl_version": "0.1.0",
        "started": "2026-01-02T03:04:05+00:00",
        "machine": "a machine",
        "model": {"base": "package:soarctl_letters/model", "weights_sha256": "f" * 64},
        "spec_sha256": "a" * 64,
        "split": {"train": {"count": 4, "sha256": "1" * 64}, "test": {"count": 4, "sha256": "2" * 64}},
    }


@pytest.fixture
def write_run() -> Callable[..., Path]:
    """Writes a run and returns its directory: `write_run(directory, gains=..., steps=..., spec=...)`."""

    def write(
        directory: Path,
        gains: Sequence[Sequence[Sequence[float]]] = GAINS,
        datasets_of_step: Mapping[int, Sequence[Sequence[tuple[str, str]]]] | None = None,
        held_out: Mapping[str, Sequence[int]] | None = None,
        **changes: Any,
    ) -> Path:
        spec = Spec.model_validate({**SMALL, **changes})
        run = Scripted(directory, spec, _facts())
        for step, gains_G_R in enumerate(gains, start=1):
            pairs_G = (datasets_of_step or {2: [PLAIN, USEFUL]}).get(step, [PLAIN, PLAIN])
            run.step(step, gains_G_R, [[Problem(q, a) for q, a in pairs] for pairs in pairs_G])
        run.measure_held_out(held_out or {})
        run.ledger.close()
        return directory

    return write


@pytest.fixture
def small_run(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """A finished run of four outer steps: g 2, n 2, r 3, M 4, one promotion at step 2, both arms measured."""
    return write_run(tmp_path / "runs" / "small", held_out={"base": [0, 0, 0, 1], "promoted": [4, 2, 0, 1]})
