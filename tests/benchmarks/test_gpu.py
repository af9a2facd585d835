"""The harness for a GPU, in a tiny shape on a CPU."""

import importlib.util
import sys
from itertools import count
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest
import torch

from soarctl.model_size import shape_of
from soarctl.random_model import write_random_model
from soarctl.spec_reader import load_spec
from soarctl.trainers import decode_batch

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their types
    spec.loader.exec_module(module)
    return module


gpu: Any = load("gpu")


def test_the_shape_is_that_of_llama_3_2_3b() -> None:
    shape = shape_of(gpu.SHAPES["llama-3.2-3b"])
    assert shape is not None
    assert shape.parameters == 3_212_749_824  # as the model's page says


def test_the_settings_are_the_papers() -> None:
    assert gpu.PAPER.students == 16
    assert gpu.PAPER.students * gpu.PAPER.inner_steps * gpu.PAPER.batch_size * gpu.PAPER.group_size == 40_960


def test_lengths_have_the_distribution_that_is_stated() -> None:
    assert gpu.survival(0.34 * 1024, 1024) == pytest.approx(0.5)
    assert gpu.mean_length(1024) == pytest.approx(0.4 * 1024, rel=0.02)
    alive = 1.0
    for t, hazard in enumerate(gpu.hazards(1024), start=1):
        alive *= 1 - hazard
        assert alive == pytest.approx(gpu.survival(t, 1024))


def test_sampled_completions_are_as_long_as_stated(tmp_path: Path) -> None:
    shape = write_random_model(gpu.SHAPES["tiny"], tmp_path)
    bench = gpu.Bench(tmp_path, gpu.TINY, shape.parameters, 1000)
    groups, _ = bench.sample(bench.fleet(2), bench.prompts(2, 2, 500, "lengths"), 16)
    lengths = [len(completion.token_ids) for group in groups for completion in group]
    # Their standard deviation is about 3.5 of 16, so that of a mean of 2,000 is 0.08.
    assert fmean(lengths) == pytest.approx(gpu.mean_length(16), abs=0.3)
    assert fmean(length > 5.44 for length in lengths) == pytest.approx(gpu.survival(5, 16), abs=0.05)
    assert {completion.finish for group in groups for completion in group} == {"eos", "length"}


def test_the_limit_in_force_is_the_one_that_memory_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = write_random_model(gpu.SHAPES["tiny"], tmp_path)
    bench = gpu.Bench(tmp_path, gpu.TINY, shape.parameters, 8)
    drawn, draw = count(), decode_batch.draw

    def twice_out_of_memory(*arguments: object) -> object:
        if next(drawn) in (2, 4):
            raise torch.OutOfMemoryError
        return draw(*arguments)

    monkeypatch.setattr(decode_batch, "draw", twice_out_of_memory)
    for limit in (2, 8):
        bench.sample(bench.fleet(1), bench.prompts(1, 2, 4, "limit"), 16)
        assert bench.limit == limit


def test_the_outer_step_has_the_limit_of_the_papers_spec() -> None:
    assert (
        gpu.PAPER.max_sequences == load_spec(ROOT / "specs" / "math_fail128.yaml").spec.trainer.options["max_sequences"]
    )


def test_the_harness_writes_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--shape", "tiny", "--out", str(tmp_path / "gpu.md")])
    page = (tmp_path / "gpu.md").read_text()
    assert page == capsys.readouterr().out.removesuffix("\n")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    # Of each table: a header, and two sizes, two fleets, five parts.
    assert [row[0].strip("| ") for row in rows] == [
        *["students", "1", "4"],
        *["part", "teacher writes 4", "teacher's update", "4 students sample", "4 students' updates"],
        "2 hard problems each",
        *["sequences", "8", "16"],
    ]
    assert [row[1] for row in rows[-2:]] == ["8", "16"], "each with as many side by side"
    assert all(float(row[4].replace(",", "")) > 0 for row in rows[-2:]), "tokens per second"
    assert "at most 12 sequences side by side (the limit at its end was 12)" in page
    assert "\n3 outer steps x " in page
