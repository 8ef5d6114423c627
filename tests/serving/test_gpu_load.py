"""How busy GPUs are is seen now and then; a driver that does not answer shows nothing and leaves nothing."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from bundle.serving import gpu_load
from bundle.serving.gpu_load import Load, watch
from bundle.serving.gpus import Gpu, ask_for_gpus
from tests.patience import PATIENCE_S, eventually
from tests.stand_ins.box import GPU, ROOT, install

SHARED = ROOT.parent / "shared" / "cases" / "gpus" / "nvidia-smi"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs, the only one; pauses are short there."""
    monkeypatch.setattr(gpu_load, "_SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr(gpu_load, "_MOST_OF_THE_TIME", 1.0)
    (tmp_path / "bin").mkdir()
    for name in ("bash", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


@pytest.fixture
def driver(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that answers, with two GPUs."""
    install(box, "nvidia-smi")
    second = (1, "GPU-1", *GPU[2:])
    monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": [GPU, second]}))


def of_nvidia_smi() -> list[psutil.Process]:
    """Its processes that this one has started and that are alive."""
    found = []
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += [one] if "nvidia-smi" in " ".join(one.cmdline()) else []
    return found


async def seen_of(gpus: Sequence[Gpu], rounds: int = 2) -> list[Sequence[Load]]:
    """What is seen until so much was, or until the watching ends by itself."""
    seen: list[Sequence[Load]] = []
    enough = asyncio.Event()

    def note(loads: Sequence[Load]) -> None:
        seen.append(loads)
        if len(seen) >= rounds:
            enough.set()

    watching = asyncio.create_task(watch(gpus, note))
    waiting = asyncio.create_task(enough.wait())
    done, _ = await asyncio.wait({watching, waiting}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    assert done
    watching.cancel()
    waiting.cancel()
    await asyncio.gather(watching, waiting, return_exceptions=True)
    await eventually(lambda: not of_nvidia_smi())
    return seen


@pytest.mark.usefixtures("driver")
async def test_each_gpu_of_the_server_is_seen_again_and_again_and_no_other() -> None:
    first, second = ask_for_gpus().gpus
    one = Load(gpu=0, utilization=50, used_mib=1559, total_mib=81559)
    assert (await seen_of([first], rounds=3))[:3] == [[one]] * 3
    assert (await seen_of([first, second]))[0] == [one, Load(gpu=1, utilization=50, used_mib=1559, total_mib=81559)]


@pytest.mark.parametrize(
    ("cells", "utilization", "used"),
    [
        ("93, 41000, 81559", 93, 41000),
        ("[N/A], 41000, 81559", None, 41000),
        ("7, [N/A], [N/A]", 7, None),
        ("101, 7, 9", None, 7),
    ],
)
async def test_what_the_driver_does_not_say_is_not_a_number(
    box: Path, monkeypatch: pytest.MonkeyPatch, cells: str, utilization: int | None, used: int | None
) -> None:
    if not SHARED.exists():
        pytest.skip("needs ../shared/cases/gpus")
    (box / "nvidia-smi").symlink_to(SHARED)
    monkeypatch.setenv("SMI_ROWS", f"GPU-a, {cells}\nGPU-b, 1, 2, 3")
    (load, *_), *_ = await seen_of([Gpu(0, "GPU-a", "H100")])
    assert (load.gpu, load.utilization, load.used_mib) == (0, utilization, used)


@pytest.mark.parametrize(
    "says",
    [
        {"gpus": [], "error": "Failed to initialize NVML: Driver/library version mismatch"},
        {"gpus": [[0, "GPU-a", "H100", "[N/A]", "[N/A]", "570"]], "hangs": True},
        {"gpus": [[0, "GPU-other", "H100", 81559, 80000, "570"]]},
    ],
    ids=["fails", "hangs", "other GPUs"],
)
async def test_a_driver_without_an_answer_is_given_up_and_shows_nothing(
    box: Path, monkeypatch: pytest.MonkeyPatch, says: dict[str, object]
) -> None:
    install(box, "nvidia-smi")
    monkeypatch.setattr(gpu_load, "_LONGEST_ANSWER_S", 0.5)
    monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps(says))
    assert await seen_of([Gpu(0, "GPU-a", "H100")]) == []


@pytest.mark.usefixtures("driver")
async def test_the_parts_of_a_gpu_are_not_asked_about() -> None:
    assert await seen_of([Gpu(None, "MIG-1", "part of a GPU")]) == []


@pytest.mark.usefixtures("box")
async def test_without_nvidia_smi_there_is_nothing_to_see() -> None:
    assert await seen_of([Gpu(0, GPU[1], "H100")]) == []


async def test_cancelled_while_it_asks_it_leaves_no_process(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(box, "nvidia-smi")
    monkeypatch.setenv("NVIDIA_SMI_STAND_IN", json.dumps({"gpus": [GPU], "hangs": True}))
    watching = asyncio.create_task(watch([Gpu(0, GPU[1], "H100")], lambda loads: None))
    await eventually(of_nvidia_smi)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await eventually(lambda: not of_nvidia_smi())
