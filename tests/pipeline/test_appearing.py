"""Checkpoints are taken as they appear, and none while it is written."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint
from bundle.pipeline.checkpoint_folder import appearing

Step = Callable[[], object]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_checkpoint(directory, like="tiny")
    return directory


class Watched:
    """A watched folder. One step of the training happens between two looks, which are five seconds apart."""

    def __init__(self, folder: Path, steps: Iterator[Step]) -> None:
        self.said: list[str] = []
        self.taken: list[tuple[str, float]] = []
        self._folder = folder
        self._steps = steps
        self._now = 0.0

    async def until(self, name: str) -> list[str]:
        async for taken, *_ in appearing(
            self._folder, name, self.said.append, still_s=10.0, clock=lambda: self._now, pause=self._pause
        ):
            self.taken.append((taken, self._now))
        return [taken for taken, _ in self.taken]

    async def _pause(self, seconds: float) -> None:
        self._now += seconds
        next(self._steps)()
        await asyncio.sleep(0)


def nothing() -> None:
    """The training computes."""


def forever(*steps: Step) -> Iterator[Step]:
    yield from steps
    for _ in range(100):
        yield nothing


def append(path: Path, content: bytes) -> Step:
    def write() -> None:
        with path.open("ab") as file:
            file.write(content)

    return write


async def test_one_that_is_written_piece_by_piece_is_taken_when_it_has_been_still(
    tmp_path: Path, original: Path
) -> None:
    folder, checkpoint = tmp_path / "sft", tmp_path / "sft" / "checkpoint-100"
    folder.mkdir()
    weights = (original / "model.safetensors").read_bytes()
    others = shutil.ignore_patterns("model.safetensors")
    half = len(weights) // 2
    watched = Watched(
        folder,
        forever(
            nothing,
            lambda: shutil.copytree(original, checkpoint, ignore=others),
            append(checkpoint / "model.safetensors", weights[:half]),
            *[nothing] * 5,  # a slow disk: longer than it must be still, and not whole
            append(checkpoint / "model.safetensors", weights[half:]),
            append(checkpoint / "trainer_state.json", b"{}"),
        ),
    )

    assert await watched.until("checkpoint-100") == ["checkpoint-100"]

    written_at = 5.0 * 10
    assert watched.taken[0][1] >= written_at + 10
    assert len(watched.said) == 1
    assert watched.said[0].startswith("checkpoint-100: not evaluated unless it changes: ")


async def test_those_that_are_there_come_in_order_and_each_once_and_it_ends_with_the_one_that_was_named(
    tmp_path: Path, original: Path
) -> None:
    folder = tmp_path / "sft"
    for step in (1000, 500):
        shutil.copytree(original, folder / f"checkpoint-{step}")
    late = [nothing] * 6 + [lambda: shutil.copytree(original, folder / "checkpoint-1500")]
    watched = Watched(folder, forever(*late))

    assert await watched.until("checkpoint-1500") == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]


async def test_one_that_is_renamed_into_place_or_taken_away_is_no_trouble(tmp_path: Path, original: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(original, folder / "tmp-checkpoint-100")
    shutil.copytree(original, folder / "checkpoint-50")
    watched = Watched(
        folder,
        forever(
            lambda: shutil.rmtree(folder / "checkpoint-50"),
            *[nothing] * 5,
            lambda: (folder / "tmp-checkpoint-100").rename(folder / "checkpoint-100"),
        ),
    )

    assert await watched.until("checkpoint-100") == ["checkpoint-100"]
    assert watched.said == []


@pytest.mark.skipif(not os.geteuid(), reason="root may read everything")
async def test_what_may_not_be_read_holds_up_nothing(tmp_path: Path, original: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(original, folder / "checkpoint-1")
    (folder / "checkpoint-1" / "global_step1").mkdir(mode=0o000)

    assert await Watched(folder, forever()).until("checkpoint-1") == ["checkpoint-1"]


async def test_a_link_to_what_is_gone_holds_up_nothing(tmp_path: Path, original: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(original, folder / "checkpoint-1")
    (folder / "checkpoint-1" / "previous").symlink_to("../checkpoint-0")

    assert await Watched(folder, forever()).until("checkpoint-1") == ["checkpoint-1"]
