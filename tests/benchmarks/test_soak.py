"""Long runs do not grow."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_soak", ROOT / "benchmarks" / "soak.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_ends_are_the_second_and_the_last_tenth(soak: Any) -> None:
    assert soak.ends([9.0] * 10 + [1.0] * 10 + [5.0] * 70 + [2.0] * 10) == (1.0, 2.0)


def test_growth_beyond_what_is_allowed_is_named(soak: Any) -> None:
    measured = {"resident memory, MB": (100.0, 106.0), "CPU seconds per step": (1.0, 1.2), "reading": (1.0, 1.3)}
    assert soak.too_much(measured) == ["resident memory, MB", "reading"]


@pytest.mark.slow
def test_memory_is_flat_and_late_steps_take_no_longer_than_early_ones(soak: Any, tmp_path: Path) -> None:
    # Reading the ledger takes a third of a millisecond, too little to be judged beside other programs.
    measured = soak.soak(60, tmp_path)
    assert [name for name in soak.too_much(measured) if "reading" not in name] == [], measured
