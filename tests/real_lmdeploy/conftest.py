"""Real lmdeploy on this machine's CPU, as ``make test-lmdeploy`` installs it; without that these tests skip."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.real_lmdeploy.box import NEWEST, LmdeployBox

INSTALLED = os.environ.get("BUNDLE_TEST_LMDEPLOY")

MakeBox = Callable[..., LmdeployBox]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(7200))
            if INSTALLED is None:
                item.add_marker(pytest.mark.skip(reason="`make test-lmdeploy` installs real lmdeploy and runs it"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured. Nothing depends on it: a busy machine takes longer."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"measured: {name}: {value}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made checkpoint that replies with a letter."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_checkpoint(directory, like="tiny")
    return directory


@contextlib.contextmanager
def made_box(directory: Path, version: str = NEWEST, **variables: str) -> Iterator[LmdeployBox]:
    """A machine with real lmdeploy, of which nothing may be left at the end."""
    assert INSTALLED is not None
    installation = Path(INSTALLED) / version
    if not (installation / "bin" / "lmdeploy").exists():
        pytest.skip(f"lmdeploy {version} could not be installed")
    box = LmdeployBox(directory, installation, variables)
    yield box
    box.check_nothing_is_left()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[LmdeployBox]:
    """A run of the whole sample on the newest version."""
    with made_box(tmp_path_factory.mktemp("whole")) as box:
        result = box.run(tiny, "--full-replies", "--", "--backend", "pytorch")
        assert result.returncode == 0, result.stderr
        yield box


@pytest.fixture
def make_box(tmp_path: Path) -> Iterator[MakeBox]:
    """Makes such machines."""
    with contextlib.ExitStack() as boxes:

        def make(version: str = NEWEST, **variables: str) -> LmdeployBox:
            directory = tmp_path / f"box-{uuid.uuid4().hex[:8]}"
            directory.mkdir()
            return boxes.enter_context(made_box(directory, version, **variables))

        yield make
