"""GPU, driver and CUDA against what lmdeploy and its torch need."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle.doctor import machine as doctors
from bundle.serving.environments import Environment
from bundle.serving.gpu_locks import GpuLocks
from bundle.serving.gpus import Gpu, Nvidia, ask_for_gpus
from bundle.serving.lmdeploy.checks import check_gpus, check_packages, check_torch
from bundle.serving.lmdeploy.support import has_turbomind_code
from bundle.system.findings import Finding, Status
from tests.doctor.examined import Examined, bare_machine, examine, stand_in_packages, stand_in_torch
from tests.patience import PATIENCE_S
from tests.serving.machines import MadeMachine, installed
from tests.stand_ins.box import install

GPU = (0, "GPU-aaaa", "NVIDIA H100 80GB HBM3", 81559, 80000, "580.95.05")
LMDEPLOY = {"lmdeploy": ["torch<=2.12.1,>=2.0.0", "transformers!=5.7.*,>=4.56.0"]}
WELL = {
    "lmdeploy": "0.18.0",
    "torch": "2.12.1",
    "transformers": "4.57.6",
    "sentencepiece": "0.2.1",
    "safetensors": "0.6.2",
    "protobuf": "6.30",
}


class Made(MadeMachine):
    """A machine made up: what its nvidia-smi says, and what is installed."""

    def __init__(
        self,
        nvidia: Nvidia,
        *,
        cuda: str | None = None,
        lmdeploy: str | None = None,
        versions: Mapping[str, str] | None = None,
        devices: int = 0,
        architectures: Sequence[str] = (),
    ) -> None:
        super().__init__(nvidia, *([] if lmdeploy is None else [installed("lmdeploy", lmdeploy)]))
        self._environment = Environment(versions or {}, LMDEPLOY, cuda)
        self._torch = {"torch": "2.12.1", "cuda": cuda, "devices": devices, "architectures": architectures, "why": ""}

    def environment(self, interpreter: str) -> Environment:
        return self._environment

    def torch(self, interpreter: str) -> dict[str, Any]:
        return self._torch


def gpu_machine(
    directory: Path, *, gpus: Sequence[Sequence[object]] = (GPU,), site: Path | None = None, **said: object
) -> dict[str, str]:
    """The environment of a machine with GPUs and lmdeploy, as its nvidia-smi tells."""
    environment = bare_machine(directory)
    install(directory / "bin", "lmdeploy", "nvidia-smi")
    if site is None:
        site = stand_in_packages(directory / "site", WELL, LMDEPLOY)
        stand_in_torch(site, cuda="13.0", devices=0, architectures=[])
    environment["PYTHONPATH"] = f"{site}:{environment['PYTHONPATH']}"
    return environment | {"NVIDIA_SMI_STAND_IN": json.dumps({"gpus": list(map(list, gpus)), **said})}


@pytest.fixture(scope="module")
def holder() -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen([sys.executable, "-c", "input()", "--api-key=sk-secret"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory, holder: "subprocess.Popen[bytes]") -> Examined:
    """A machine on which everything fits; somebody holds memory."""
    directory = tmp_path_factory.mktemp("well")
    site = stand_in_packages(directory / "site", WELL, LMDEPLOY)
    stand_in_torch(site, cuda="13.0", devices=1, architectures=["sm_80", "sm_90"])
    processes = [("GPU-aaaa", holder.pid, "python", 900), ("GPU-aaaa", 2**22 + 1, "?", "[N/A]")]
    return examine(environment=gpu_machine(directory, site=site, processes=processes))


def test_on_a_gpu_box_where_all_is_well_every_line_says_so(well: Examined) -> None:
    assert well.one("gpu", "driver 580.95.05")["status"] == "ok"
    assert well.one("gpu", "GPU 0: NVIDIA H100 80GB HBM3, compute capability 9.0")["status"] == "ok"
    assert well.one("engine", "--engine auto chooses lmdeploy")["status"] == "ok"
    assert well.one("lmdeploy", "lmdeploy 0.18.0")["status"] == "ok"
    assert well.one("torch", "torch 2.12.1 (CUDA 13.0) finds 1 GPU")["status"] == "ok"


def test_free_memory_and_who_holds_the_rest_is_told_but_for_their_arguments(
    well: Examined, holder: "subprocess.Popen[bytes]"
) -> None:
    finding = well.one("gpu memory", "GPU 0: 78.1 GiB of 79.6 GiB free")
    held, unseen = finding["details"]
    assert held.startswith(f"0.9 GiB: process {holder.pid}, python")
    assert "user " in held
    assert "sk-secret" not in held
    assert "hidden from here" in unseen


def test_a_driver_too_old_for_torchs_cuda_fails_with_both_ways_out(tmp_path: Path) -> None:
    site = stand_in_packages(tmp_path / "site", WELL, LMDEPLOY)
    said = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12040)."
    stand_in_torch(site, cuda="13.0", devices=0, architectures=[], said=said)
    found = examine(environment=gpu_machine(tmp_path, gpus=[(*GPU[:5], "550.54.15")], site=site))

    assert (found.code, found.status) == (2, "failing")
    driver = found.one("gpu", "driver 550.54.15 is too old")
    assert "CUDA 13.0" in driver["text"]
    assert "580.65.06" in driver["remedy"]
    assert "pip install 'torch<2.11'" in driver["remedy"]
    assert "too old (found version 12040)" in found.one("torch", "finds no GPU")["text"]


def test_an_nvidia_smi_that_hangs_holds_up_nothing_and_the_limit_is_said(tmp_path: Path) -> None:
    began = time.monotonic()
    found = examine("--time-limit", 8, environment=gpu_machine(tmp_path, hangs=True))

    assert time.monotonic() - began < PATIENCE_S
    assert found.code == 2
    assert "nvidia-smi did not answer within 7.2 s" in found.one("gpu", "did not answer")["text"]
    assert found.one("engine", "--engine auto starts nothing. A GPU cannot be used: nvidia-smi did not answer")
    assert found.one("packages", "openai")["status"] == "ok"


# What follows asks nvidia-smi, and leaves out the rest of the program.


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvidia]:
    """What an nvidia-smi that is like this tells."""

    def ask(*, gpus: Sequence[Sequence[object]] = (GPU,), **said: object) -> Nvidia:
        for name, value in gpu_machine(tmp_path, gpus=gpus, site=None, **said).items():
            if name in ("PATH", "NVIDIA_SMI_STAND_IN"):
                monkeypatch.setenv(name, value)
        return ask_for_gpus(20)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return ask


def test_what_nvidia_smi_says_when_it_fails_is_shown_with_the_remedy_for_it(asked: Callable[..., Nvidia]) -> None:
    error = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"
    (finding,) = doctors.check_gpus(Made(asked(error=error)))
    assert finding.status is Status.FAILING
    assert "Driver/library version mismatch NVML library version: 580.95" in finding.text
    assert "reboot" in str(finding.remedy)


def test_a_card_that_cannot_be_used_fails_for_the_gpu_and_the_engine(
    asked: Callable[..., Nvidia], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia = asked()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    for finding in (*doctors.check_gpus(Made(nvidia)), *doctors.check_engine(Made(nvidia))):
        assert finding.status is Status.FAILING
        assert "CUDA_VISIBLE_DEVICES='7' names no GPU that nvidia-smi lists (0)" in finding.text
        assert "--engine transformers" in str(finding.remedy)


def test_a_part_of_a_gpu_is_named_and_its_memory_unknown(
    asked: Callable[..., Nvidia], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia = asked()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    (left,) = doctors.check_gpus(Made(nvidia))
    assert left.text == "CUDA_VISIBLE_DEVICES='MIG-1234' leaves GPU MIG-1234 of 1"
    assert [finding.text for finding in doctors.check_gpu_memory(Made(nvidia))] == ["GPU MIG-1234: memory unknown"]


def test_gpus_that_are_hidden_are_told_and_the_cpu_engine_is_taken(
    asked: Callable[..., Nvidia], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia = asked()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (hidden,) = doctors.check_gpus(Made(nvidia))
    assert hidden.status is Status.WARNING
    assert "CUDA_VISIBLE_DEVICES='-1' hides every GPU" in hidden.text
    (choice,) = doctors.check_engine(Made(nvidia))
    assert "--engine auto chooses transformers: CUDA_VISIBLE_DEVICES='-1' hides every GPU" in choice.text


def test_a_driver_that_knows_no_compute_capability_is_asked_without(asked: Callable[..., Nvidia]) -> None:
    nvidia = asked(gpus=[(*GPU[:5], "470.57.02")], old=True)
    driver, gpu = check_gpus(Made(nvidia))
    assert "does not report its compute capability" in gpu.text
    assert "driver 470.57.02 is too old" in driver.text
    assert "torch<2.11" not in str(driver.remedy), "which would not help: CUDA 12 wants 525 at least"


def test_a_gpu_that_does_not_tell_its_memory_is_used(asked: Callable[..., Nvidia]) -> None:
    nvidia = asked(gpus=[(0, "GPU-a", "NVIDIA GB10", "[N/A]", "[N/A]", "580.95.05")])
    assert list(doctors.check_gpus(Made(nvidia))) == []
    (memory,) = doctors.check_gpu_memory(Made(nvidia))
    assert (memory.status, memory.text) == (Status.OK, "GPU 0: memory unknown")
    (choice,) = doctors.check_engine(Made(nvidia))
    assert choice.text == "--engine auto chooses lmdeploy: GPU available (NVIDIA GB10)"


def test_a_gpu_that_a_run_uses_is_told(asked: Callable[..., Nvidia]) -> None:
    nvidia = asked()
    locks = GpuLocks()
    assert locks.take(nvidia.gpus[0])

    (memory,) = doctors.check_gpu_memory(Made(nvidia))

    assert memory.details[0].startswith(f"in use by a run: process {os.getpid()}, ")
    assert "user " in memory.details[0]


# What follows needs no process: the judgement itself, on what nvidia-smi and torch can say.


def judged(
    capability: tuple[int, int] = (9, 0), driver: str = "580.95.05", cuda: str | None = None, lmdeploy: str = "0.18.0"
) -> list[Finding]:
    gpu = Gpu(0, "GPU-a", "A GPU", 80000, 70000, driver)
    nvidia = Nvidia(installed=True, gpus=(gpu,), capabilities={"GPU-a": capability})
    return list(check_gpus(Made(nvidia, cuda=cuda, lmdeploy=lmdeploy if cuda else None, devices=1)))


@pytest.mark.parametrize(
    ("capability", "cuda", "status", "remedy"),
    [
        ((9, 0), "13.0", Status.OK, None),
        ((8, 6), "12.8", Status.OK, None),
        ((7, 0), "12.8", Status.OK, None),
        ((7, 0), "13.0", Status.FAILING, "torch<2.11"),
        ((7, 0), None, Status.FAILING, "torch<2.11"),
        ((6, 1), "12.8", Status.FAILING, "--engine transformers"),
        ((10, 3), "13.0", Status.OK, None),
    ],
)
def test_a_gpu_is_judged_by_its_compute_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], cuda: str | None, status: Status, remedy: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = judged(capability, cuda=cuda)[-1]
    assert finding.status is status
    assert remedy is None or remedy in str(finding.remedy)


@pytest.mark.parametrize(
    ("driver", "cuda", "status"),
    [
        ("580.65.06", "13.0", Status.OK),
        ("525.60.13", "12.8", Status.OK),
        ("525.60.11", "12.8", Status.FAILING),
        ("570.86.15", None, Status.FAILING),  # nothing is installed, and pip would install torch for CUDA 13
    ],
)
def test_the_driver_is_judged_by_the_cuda_that_torch_is_built_for(
    monkeypatch: pytest.MonkeyPatch, driver: str, cuda: str | None, status: Status
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = Gpu(0, "GPU-a", "A GPU", 80000, 70000, driver)
    nvidia = Nvidia(installed=True, gpus=(gpu,), capabilities={"GPU-a": (9, 0)})
    assert next(check_gpus(Made(nvidia, cuda=cuda, lmdeploy="0.18.0" if cuda else None))).status is status


def test_an_old_driver_with_forward_compatibility_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = judged(driver="535.104.05", cuda="13.0")[0]
    assert finding.status is Status.OK
    assert "forward compatibility" in finding.text


@pytest.mark.parametrize(
    ("capability", "version", "expected"),
    [
        ((7, 0), (0, 12), True),
        ((7, 2), (0, 12), True),
        ((8, 9), (0, 12), True),
        ((9, 0), (0, 12), True),
        ((10, 0), (0, 12), False),
        ((10, 0), (0, 13), True),
        ((12, 0), (0, 18), True),
        ((12, 1), (0, 18), False),
        ((6, 1), (0, 18), False),
    ],
)
def test_turbomind_has_code_for_what_its_wheels_hold(
    capability: tuple[int, int], version: tuple[int, int], expected: bool
) -> None:
    assert has_turbomind_code(capability, version) is expected


@pytest.mark.parametrize(
    ("architectures", "capability", "status"),
    [
        (["sm_80", "sm_86", "sm_90"], (9, 0), Status.OK),
        (["sm_80"], (8, 9), Status.OK),
        (["sm_90a"], (9, 0), Status.OK),
        (["sm_75", "sm_80"], (7, 0), Status.FAILING),
        (["sm_90"], (12, 0), Status.FAILING),
        (["sm_90", "compute_120"], (12, 1), Status.OK),
        (["sm_100", "compute_100"], (12, 0), Status.OK),
    ],
)
def test_torch_must_hold_code_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch, architectures: list[str], capability: tuple[int, int], status: Status
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = Gpu(0, "GPU-a", "A GPU", 80000, 70000, "580.95.05")
    nvidia = Nvidia(installed=True, gpus=(gpu,), capabilities={"GPU-a": capability})
    machine = Made(nvidia, cuda="13.0", lmdeploy="0.18.0", devices=1, architectures=architectures)
    assert [finding.status for finding in check_torch(machine)] == [status]


def lmdeploy_beside(**versions: str) -> Finding:
    """What is said of an lmdeploy with these versions of packages beside it."""
    installed = {**WELL, **versions}
    machine = Made(Nvidia(installed=False), lmdeploy=installed["lmdeploy"], versions=installed)
    (finding,) = check_packages(machine)
    return finding


def test_a_transformers_under_which_internlms_tokenizer_breaks_is_a_warning() -> None:
    trap = lmdeploy_beside(transformers="5.6.0")
    assert trap.status is Status.WARNING
    assert "transformers 5.6.0" in trap.text
    assert "drops spaces and newlines" in trap.text
    assert "`/opt/lmdeploy/bin/python -m pip install 'transformers>=4.56,<5'`" in str(trap.remedy)


def test_a_transformers_that_lmdeploy_itself_excludes_is_told_too() -> None:
    machine = Made(Nvidia(installed=False), lmdeploy="0.18.0", versions={**WELL, "transformers": "5.7.1"})
    excluded, trap = check_packages(machine)
    assert "transformers 5.7.1 is installed, but transformers>=4.56.0,!=5.7.* is required" in excluded.text
    assert "drops spaces and newlines" in trap.text


def test_what_lmdeploy_itself_asks_for_is_held_against_what_is_there() -> None:
    text = lmdeploy_beside(torch="2.13.0", lmdeploy="0.11.0").text
    assert "torch 2.13.0 is installed, but torch>=2.0.0,<=2.12.1 is required" in text
    assert "lmdeploy 0.11.0 is installed, but lmdeploy>=0.12,<0.19 is required" in text


def test_where_there_is_a_gpu_and_no_lmdeploy_the_two_ways_out_are_told() -> None:
    (finding,) = check_packages(Made(Nvidia(installed=True, gpus=(Gpu(*GPU),))))
    assert finding.status is Status.FAILING
    assert "'.[gpu]'" in str(finding.remedy)
    assert "--engine transformers" in str(finding.remedy)
