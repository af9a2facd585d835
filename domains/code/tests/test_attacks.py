"""The attack corpus: every verdict right, nothing that must not happen, in each tier that this machine offers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.jail import tiers

# WebAssembly has no threads, so an honest program and a hostile one fail that would pass.
NEEDS_THREADS = {"control-d03", "atexit_thread-d01"}
CORPUS = Path(__file__).with_name("attack_corpus.py")
OTHER_PYTHONS = [path for path in os.environ.get("SOARCTL_TEST_PYTHONS", "").split(os.pathsep) if path]


def run_corpus(data: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(CORPUS), str(data / "sandbox_attacks.jsonl"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_strongest_tier_meets_every_row(data: Path) -> None:
    tier = tiers.choose("auto", "seccomp", "", ()).tier
    found = run_corpus(data, "--tier", tier, "--batch", "100")
    assert found["wrong"] == {}
    assert found["rows"] == 91


@pytest.mark.slow
@pytest.mark.parametrize("python", ["", *OTHER_PYTHONS])
@pytest.mark.parametrize("container", [False, True], ids=["", "container"])
@pytest.mark.parametrize("tier", tiers.ISOLATING)
def test_each_tier_meets_every_row_one_by_one(data: Path, tier: tiers.Tier, container: bool, python: str) -> None:
    if container and tier == "namespace":
        pytest.skip("a container's filter refuses namespaces")
    if not (report := tiers.inspect_tier(tier, python)).usable:
        pytest.skip(f"{tier}: {report.reason}")
    options = ["--tier", tier, "--python", python, *(["--container"] if container else [])]
    wrong = run_corpus(data, *options)["wrong"]
    if tier == "wasm":
        assert {name: [why[:21] for why in whys] for name, whys in wrong.items()} == {
            name: ["verdict runtime_error"] for name in NEEDS_THREADS
        }
    else:
        assert wrong == {}


@pytest.mark.slow
def test_verdicts_are_the_same_three_times(data: Path) -> None:
    tier = tiers.choose("auto", "seccomp", "", ()).tier
    assert run_corpus(data, "--tier", tier, "--batch", "100", "--rounds", "3")["wrong"] == {}
