"""What several tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The benchmarks' own data and OpenCompass's recorded requests, which may not be part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with the benchmarks' own data is not beside this checkout")
    return SHARED
