"""`soarctl study` as a command: what it prints and leaves behind. The study itself is tested beside its code."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from soarctl.spec_reader import LoadedSpec
from soarctl.study import loading
from soarctl.testing import toy_run

STUDY = """\
name: s
run: run.yaml
arms: [base, hard_only, pq]
seeds: 2
runs: {grounded: {count: 1}}
training: {steps: 2, synthetic_steps: 1, questions: 4}
measure: {every: 1, samples: 4, k: [1, 4]}
"""


@pytest.fixture
def toy_specs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study in the working directory whose runs are those of the toy world."""
    (folder / "study.yaml").write_text(STUDY)

    def load(path: Path, changes: Sequence[str], *, first: Sequence[str]) -> LoadedSpec:
        assert not first
        values = dict(change.partition("=")[::2] for change in changes)
        sections: dict[str, Any] = {
            "outer": {"steps": 1},
            "domain": {"each": 6},
            "reward": {"questions": 4, "repeats": 1},
        }
        if values:
            reuse = json.loads(values["filter.reuse"])
            sections |= {"name": values["name"], "filter": {"samples": 4, "reuse": reuse}, "evaluation": None}
        return toy_run(**sections)

    monkeypatch.setattr(loading, "load_spec", load)


@pytest.mark.usefixtures("toy_specs")
def test_the_table_is_printed_and_written_in_four_forms(folder: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("study", "study.yaml")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "s: 3 arms, in runs/s"
    assert "grounded-0: a run that the arms need" in lines
    assert [line.split()[:2] for line in lines if line.startswith(("base  ", "hard_only  "))] == [
        ["base", "2"],
        ["hard_only", "2"],
    ]
    assert "pq is left out: no run made a promotion" in lines
    assert lines[-1] == "table.csv, table.tex and table.json are in runs/s"
    assert {p.name for p in (folder / "runs/s").glob("table.*")} == {"table.csv", "table.tex", "table.json"}


@pytest.mark.usefixtures("toy_specs")
def test_json_is_the_table_and_nothing_else(folder: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("study", "study.yaml", "--json", "--out", "here")
    assert [arm["arm"] for arm in json.loads(ran.out)["arms"]] == ["base", "hard_only"]
    assert "hard_only: step 2" in ran.err
