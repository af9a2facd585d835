"""What the tests of the math domain share: the real data beside the checkout, and whether Math-Verify is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from soarctl_math import symbolic
from soarctl_math.symbolic import Workers

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def data() -> Path:
    """The folder of real data files."""
    if not DATA.is_dir():
        pytest.skip("the real data files are not beside this checkout (../shared/data)")
    return DATA


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """One worker process with Math-Verify."""
    if not symbolic.available():
        pytest.skip("Math-Verify is not installed: pip install 'soarctl[math]'")
    pool = Workers(1, limit=1.5, memory=2 << 30)
    yield pool
    pool.close()
