"""What the tests of faults share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from tests.faults.box import Box

MakeBox = Callable[..., Box]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_checkpoint(directory, like="tiny")
    return directory


@pytest.fixture
def box(tmp_path: Path, model_dir: Path) -> Iterator[MakeBox]:
    """Makes the machine; its arguments are the servers' behaviour and variables of the environment."""
    boxes: list[Box] = []

    def make(behaviour: str = "good", **more: str) -> Box:
        boxes.append(Box(tmp_path, model_dir, behaviour, **more))
        return boxes[-1]

    yield make
    for machine in boxes:
        machine.end()
