"""What several tests share."""

import fcntl
import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.stand_ins.box import KEPT_PROBES

SHARED = Path(__file__).parents[2] / "shared"
LONGEST = tuple(
    f"tests/{name}"
    for name in (
        "test_real_server.py",
        "pipeline",
        "faults",
        "serving",
        "checkpoints",
        "doctor",
        "cli",
        "reports/test_html",
    )
)

# The language of the screen is the locale's.
os.environ["LC_ALL"] = "C.UTF-8"

settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=30)


def pytest_configure(config: pytest.Config) -> None:
    """`make test`, which leaves out what is slow, tries fewer made-up examples as well."""
    gc.disable()
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "thorough")


@pytest.hookimpl(tryfirst=True)  # before those with a mark are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no worker is left alone with a file of it at the end."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """All that was collected stays: searching it for garbage again and again took seconds of every worker."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _what_a_terminal_sends_is_heard_of() -> None:
    """Programs started under nohup ignore its closing, those started with & its Ctrl-C: tests would wait in vain."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
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


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the workers of these tests share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def tiny(of_all_workers: Path) -> Path:
    """A made checkpoint, which takes a second or two to make; tests read it and change nothing in it."""
    with (of_all_workers / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (of_all_workers / "tiny").is_dir():
            make_checkpoint(of_all_workers / "tiny", like="tiny")
    return of_all_workers / "tiny"


@pytest.fixture(scope="session", autouse=True)
def _probes_are_kept(of_all_workers: Path) -> None:
    """What tokenizers' probes say to the servers' stand-ins is kept."""
    kept = of_all_workers / "probes"
    kept.mkdir(exist_ok=True)
    os.environ[KEPT_PROBES] = str(kept)
