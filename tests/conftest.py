"""What several tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

SHARED = Path(__file__).parents[2] / "shared"

# The language of the screen is the locale's.
os.environ["LC_ALL"] = "C.UTF-8"

settings.register_profile("busy machines too", deadline=None)
settings.load_profile("busy machines too")


@pytest.fixture(scope="session", autouse=True)
def _a_closed_terminal_is_heard_of() -> None:
    """Programs that are started under nohup do not hear of it, and tests that close one would wait in vain."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The benchmarks' own data and OpenCompass's recorded requests, which may not be part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with the benchmarks' own data is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _made_up_gpus_are_not_locked_for_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["BUNDLE_GPU_LOCKS"] = str(tmp_path_factory.mktemp("locks"))
