"""Which GPUs there are, may be used, and are chosen."""

from dataclasses import replace
from pathlib import Path

import pytest

from bundle.errors import UsageError
from bundle.serving.gpus import Gpu, ask_for_gpus, list_processes, require_memory, select_gpus, visible_gpus
from bundle.serving.missing_gpus import why_no_gpu
from tests.serving.stand_in import Stage
from tests.stand_ins.box import GPU, gpu_box

FIRST = Gpu(0, "GPU-aaaa", "H100", 80000, 10000, "570")
SECOND = Gpu(1, "GPU-bbbb", "H100", 80000, 70000, "570")
THIRD = Gpu(2, "GPU-cccc", "H100", 80000, 30000, "570")
ALL = [FIRST, SECOND, THIRD]


def on_box(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_gpus_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_box(monkeypatch, gpu_box(tmp_path, processes=[(GPU[1], 4242, "/opt/a, b/python3", 900)]))

    assert ask_for_gpus().gpus == (Gpu(0, str(GPU[1]), "NVIDIA H100 80GB HBM3", 81559, 80000, "570.86.15"),)
    assert [(one.pid, one.name, one.used_mib) for one in list_processes()] == [(4242, "/opt/a, b/python3", 900)]


def test_without_a_driver_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_for_gpus().gpus == ()
    assert list_processes() == []


def test_a_gpu_that_is_lost_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, lost = (0, "GPU-a", "NVIDIA A100", 40536, 40000, "580.1"), (1, *["[GPU is lost]"] * 5)
    on_box(monkeypatch, gpu_box(tmp_path, gpus=[there, lost]))
    assert [gpu.uuid for gpu in ask_for_gpus().gpus] == ["GPU-a"]

    on_box(monkeypatch, gpu_box(tmp_path, gpus=[lost]))
    none = why_no_gpu(ask_for_gpus())
    assert none is not None
    assert (none.why, none.serve_on_cpu) == ("nvidia-smi says that it has lost GPU 1", False)


@pytest.mark.parametrize("cell", ["[N/A]", "[Insufficient Permissions]", "[Unknown Error]"])
def test_memory_that_the_driver_does_not_tell_is_unknown_and_the_gpu_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    on_box(monkeypatch, gpu_box(tmp_path, gpus=[(0, "GPU-a", "NVIDIA GB10", cell, cell, "580.126.09")]))
    (gpu,) = ask_for_gpus().gpus
    assert (gpu.total_mib, gpu.free_mib, str(gpu)) == (None, None, "0 (NVIDIA GB10, memory unknown)")
    assert select_gpus([gpu], None, 1) == [gpu]
    require_memory([gpu], 10**9)


def test_of_several_gpus_the_one_that_tells_its_free_memory_is_preferred() -> None:
    assert select_gpus([Gpu(3, "GPU-dddd", "H100"), FIRST], None, 1) == [FIRST]


def test_a_part_of_a_gpu_is_used_under_its_own_name_and_its_memory_is_unknown(tmp_path: Path) -> None:
    part = Gpu(None, "MIG-1111", "part of a GPU")
    assert visible_gpus(ALL, {"CUDA_VISIBLE_DEVICES": "MIG-1111"}) == [part]
    assert visible_gpus(ALL, {"CUDA_VISIBLE_DEVICES": "MIG-1111,1"}) == [part, SECOND]
    assert select_gpus(ALL, "MIG-1111", 1) == [part]
    spec = replace(Stage(tmp_path).prepared(), gpus=(part, SECOND))
    assert spec.environment_beside({}, "key", Path())["CUDA_VISIBLE_DEVICES"] == "MIG-1111,1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ALL),
        ("", []),
        ("-1", []),
        ("1", [SECOND]),
        ("2,0", [THIRD, FIRST]),
        ("GPU-bb", [SECOND]),
        ("1,9,0", [SECOND]),  # as for CUDA, what follows an entry that names none does not count
    ],
)
def test_cuda_visible_devices_is_respected(value: str | None, expected: list[Gpu]) -> None:
    assert visible_gpus(ALL, {} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == expected


def test_the_one_with_the_most_free_memory_is_chosen() -> None:
    assert select_gpus(ALL, None, 1) == [SECOND]
    assert select_gpus(ALL, None, 2) == [SECOND, THIRD]


def test_the_users_choice_wins() -> None:
    assert select_gpus(ALL, "0", 1) == [FIRST]
    assert select_gpus(ALL, "2,0", 2) == [THIRD, FIRST]


@pytest.mark.parametrize("wanted", ["7", "", "one"])
def test_a_gpu_that_is_not_there_is_an_error_that_lists_those_that_are(wanted: str) -> None:
    with pytest.raises(UsageError, match="Available GPUs: 0, 1, 2"):
        select_gpus(ALL, wanted, 1)


def test_too_few_gpus_are_an_error_that_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"needs 4 GPUs, and only 3 may be used\. Lower --tp"):
        select_gpus(ALL, None, 4)
    with pytest.raises(UsageError, match=r"needs 2 GPUs, and only 1 may be used\. Name as many, or lower --tp"):
        select_gpus(ALL, "1,1", 2)
