import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = """\
name: small
model: {base: "package:soarctl_letters/model"}
domain: {plugin: letters, candidates: 30}
filter: {samples: 8, max_new_tokens: 24}
outer: {steps: 2}
teacher: {group_size: 2, dataset_size: 4, max_new_tokens: 24}
reward: {questions: 4, repeats: 1, samples: 2}
inner: {steps: 2, batch_size: 2, group_size: 4, max_new_tokens: 24}
trainer: {rank: 2, width: 2}
evaluation: {samples: 2, k: [1]}
"""


def test_what_is_measured_here_is_what_plan_and_run_expect_and_a_run_ends_beside_it(
    folder: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    (folder / "small.yaml").write_text(SMALL)
    ran = soarctl("bench", "small.yaml", "--seconds", "5")
    assert ran.code == 0
    [kept] = (folder / "soarctl" / "rates").iterdir()
    assert ran.out.endswith(f"`soarctl plan` with this spec reads {kept}\n")
    for what in ("teacher", "practice", "filter", "reward"):
        assert f"\n{what} " in ran.out
    planned = json.loads(soarctl("plan", "small.yaml", "--json").out)
    [estimate] = planned["estimates"]
    assert estimate["source"] == f"measured by soarctl bench on {json.loads(kept.read_text())['made']}"
    assert f", {estimate['source']}: " in soarctl("plan", "small.yaml").out

    ran = soarctl("run", "small.yaml")
    assert ran.code == 0
    assert f", {estimate['source']}\n" in ran.out
    assert "\ntook " in ran.out
    finished = json.loads(soarctl("run", "small.yaml", "--resume", "--json").out.splitlines()[-1])
    assert finished["estimate"]["seconds"] == estimate["seconds"]
    assert finished["seconds"] > 0


def test_a_config_that_is_none_is_refused(folder: Path, soarctl: Callable[..., Any]) -> None:
    (folder / "small.yaml").write_text(SMALL)
    (folder / "config.json").write_text("[]")
    ran = soarctl("bench", "small.yaml", "--config", "config.json")
    assert ran.code == 2
    assert ran.err == (
        "error: config.json: is not a model's config: 'list' object has no attribute 'get'\n"
        "  give the config.json of a Llama-like model\n"
    )
