"""A third party's wheel and ours, in an environment with nothing else: listed, checked, run, read."""

import json
import os
import random
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SPEC = """\
name: sorting
model: {base: tiny-model}
trainer: {plugin: tiny, texts: texts.jsonl, updates: 300}
domain: {plugin: sorting, length: 4}
reward: {plugin: grounded, questions: 8, repeats: 2, samples: 4}
filter: {samples: 8, max_new_tokens: 12}
outer: {steps: 2}
teacher: {group_size: 2, dataset_size: 8, max_new_tokens: 32, lr: 1.0e-3, warmup_steps: 0, resample_cap: 40}
inner: {steps: 3, per_promotion: 0, batch_size: 4, group_size: 8, max_new_tokens: 12, lr: 2.0e-3}
evaluation: {samples: 4, k: [1, 4]}
"""

CONTRACT = """\
from soarctl.testing import check_domain
from soarctl_sorting import SortingDomain

check_domain(
    SortingDomain(length=6),
    accepted=["3 1 2 = 1 2 3"],
    rejected={"3 1 2": "no equals sign", "three = 3": "not digits"},
)
print("kept")
"""


def call(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wheel(source: Path, place: Path) -> Path:
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", place, source, cwd=place)
    [built] = place.glob(f"{'soarctl_sorting' if 'plugins' in source.parts else 'soarctl'}-*.whl")
    return built


def texts() -> str:
    """Two and three digits, right nine times in ten; four, never."""
    rng, rows = random.Random(0), list[dict[str, Any]]()
    for _ in range(1500):
        digits = rng.choices("0123456789", k=rng.choice((2, 3, 4)))
        right = rng.random() < 0.9 and len(digits) < 4
        question, answer = " ".join(digits), " ".join(sorted(digits) if right else rng.sample(digits, len(digits)))
        rows.append({"prompt": f"sort: {question} =", "completion": f" {answer}"})
        rows.append({"prompt": "ask:", "completion": f" {question} = {answer}"})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_a_third_partys_domain_works_from_its_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    venv.create(tmp_path / "environment", with_pip=True)
    tools = tmp_path / "environment" / "bin"
    ours, theirs = wheel(ROOT, wheels), wheel(Path(__file__).parent / "sorting", wheels)
    call(tools / "pip", "install", "-q", f"{ours}[testing]", theirs, cwd=tmp_path)

    listed = json.loads(call(tools / "soarctl", "plugins", "--check", "--json", cwd=tmp_path))
    [sorting] = [p for p in listed if p["name"] == "sorting"]
    assert (sorting["kind"], sorting["package"], sorting["problem"]) == ("domain", "soarctl-sorting", None)

    assert call(tools / "python", "-c", CONTRACT, cwd=tmp_path) == "kept\n"

    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "texts.jsonl").write_text(texts())
    call(tools / "soarctl", "validate", "spec.yaml", cwd=tmp_path)
    call(tools / "soarctl", "run", "spec.yaml", cwd=tmp_path)
    shown = json.loads(call(tools / "soarctl", "show", "--json", cwd=tmp_path))
    assert len(shown["outer_steps"]) == 2
    assert shown["held_out"][0]["name"] == "base"

    call(tools / "pip", "uninstall", "-q", "-y", "soarctl-sorting", cwd=tmp_path)
    gone = subprocess.run(
        [tools / "soarctl", "validate", "spec.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert gone.returncode == 2
    assert 'no domain is called "sorting"' in gone.stderr
