"""What the tests of the code domain share: the real data beside the checkout."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def data() -> Path:
    """The folder of real data files."""
    if not DATA.is_dir():
        pytest.skip("the real data files are not beside this checkout (../shared/data)")
    return DATA
