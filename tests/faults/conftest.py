"""What the tests of faults share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.box import Box

MakeBox = Callable[..., Box]


@pytest.fixture
def box(tmp_path: Path, tiny: Path) -> Iterator[MakeBox]:
    """Makes the machine; its arguments are the servers' behaviour, a checkpoint and variables of the environment."""
    boxes: list[Box] = []

    def make(behaviour: str = "good", model_dir: Path = tiny, **more: str) -> Box:
        boxes.append(Box(tmp_path, model_dir, behaviour, **more))
        return boxes[-1]

    yield make
    for machine in boxes:
        machine.end()
