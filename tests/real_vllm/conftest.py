"""vLLM's CPU build, as ``make test-vllm`` installs it; without that these tests are skipped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.real_vllm.box import VllmBox

INSTALLED = os.environ.get("BUNDLE_TEST_VLLM")

MakeBox = Callable[[], VllmBox]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))  # a machine that is busy takes minutes for each start
            if INSTALLED is None:
                item.add_marker(pytest.mark.skip(reason="`make test-vllm` installs vLLM's CPU build and runs these"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made checkpoint that replies with a letter."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_checkpoint(directory, like="tiny")
    return directory


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted checkpoints are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_box(tmp_path: Path, cache: Path) -> Iterator[MakeBox]:
    """Makes machines with vLLM, and checks at the end that nothing of them is left."""
    assert INSTALLED is not None
    boxes: list[VllmBox] = []

    def make() -> VllmBox:
        directory = tmp_path / f"box-{len(boxes)}"
        directory.mkdir()
        boxes.append(VllmBox(directory, Path(INSTALLED), cache))
        return boxes[-1]

    yield make
    for box in boxes:
        box.end()
