"""Why no GPU serves, and when the CPU may without being asked for."""

from pathlib import Path

import pytest

from bundle.errors import UsageError
from bundle.serving import missing_gpus
from bundle.serving.engines import automatic_engine
from bundle.serving.gpus import Gpu, Nvidia
from bundle.serving.missing_gpus import require_gpus, why_no_gpu
from tests.serving.machines import MadeMachine

H100 = Nvidia(True, gpus=(Gpu(0, "GPU-aaaa", "H100", 80000, 70000, "570"), Gpu(1, "GPU-bbbb", "H100")))
NOTHING = Nvidia(installed=False)
MISMATCH = "failed with exit code 18: Failed to initialize NVML: Driver/library version mismatch"
NO_DRIVER = (
    "failed with exit code 9: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure "
    "that the latest NVIDIA driver is installed and running."
)
LOST = "failed with exit code 15: Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error"
HANGS = "did not answer within 30 s"


@pytest.fixture(autouse=True)
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The PCI slots of this machine, with nothing in them."""
    monkeypatch.setattr(missing_gpus, "_PCI_DEVICES", tmp_path)
    monkeypatch.setattr(missing_gpus, "_DEVICE_FILES", tmp_path)
    monkeypatch.setattr(missing_gpus, "_SMI_OF_WSL", tmp_path / "wsl" / "nvidia-smi")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def plug_in(slots: Path, vendor: str = "0x10de", kind: str = "0x030200") -> None:
    (slots / "0000:01:00.0").mkdir()
    (slots / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (slots / "0000:01:00.0" / "class").write_text(f"{kind}\n")


@pytest.mark.parametrize("value", [None, "0", "1,0", "GPU-aaaa", "MIG-1234"])
def test_a_gpu_that_may_be_used_is_used(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert automatic_engine(MadeMachine(H100)) == ("lmdeploy", None)


@pytest.mark.parametrize("nvidia", [NOTHING, Nvidia(True, MISMATCH)])
def test_a_part_of_a_gpu_that_is_named_is_tried_although_nvidia_smi_says_nothing(
    monkeypatch: pytest.MonkeyPatch, nvidia: Nvidia
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    assert automatic_engine(MadeMachine(nvidia)) == ("lmdeploy", None)
    assert [gpu.device for gpu in require_gpus(nvidia, "lmdeploy", None)] == ["MIG-1234"]


@pytest.mark.parametrize(
    ("nvidia", "why"),
    [
        (NOTHING, "no NVIDIA GPU found (no nvidia-smi)"),
        (Nvidia(True), "no NVIDIA GPU found (nvidia-smi lists none)"),
        (Nvidia(True, NO_DRIVER), f"nvidia-smi {NO_DRIVER}"),
        (Nvidia(True, "failed with exit code 1: no output"), "nvidia-smi failed with exit code 1"),
        (Nvidia(True, "failed with exit code 6: No devices were found"), "nvidia-smi failed with exit code 6"),
    ],
)
def test_without_a_gpu_the_cpu_serves_and_it_is_said_why(nvidia: Nvidia, why: str) -> None:
    engine, said = automatic_engine(MadeMachine(nvidia))
    assert engine == "transformers"
    assert said is not None
    assert said.startswith(why)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
@pytest.mark.parametrize("nvidia", [H100, Nvidia(True, MISMATCH), NOTHING])
def test_a_user_who_hides_every_gpu_gets_the_cpu(
    slots: Path, monkeypatch: pytest.MonkeyPatch, value: str, nvidia: Nvidia
) -> None:
    plug_in(slots)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert automatic_engine(MadeMachine(nvidia)) == ("transformers", f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(MISMATCH, "reboot"), (LOST, "Make nvidia-smi work"), (HANGS, "A driver that hangs"), ("anything", "work")],
)
def test_a_driver_that_fails_is_never_answered_with_the_cpu(error: str, remedy: str) -> None:
    with pytest.raises(UsageError, match="A GPU cannot be used: nvidia-smi") as caught:
        automatic_engine(MadeMachine(Nvidia(True, error)))
    assert error in caught.value.message
    assert remedy in str(caught.value.remedy)
    assert "--engine transformers" in str(caught.value.remedy)


@pytest.mark.parametrize("nvidia", [NOTHING, Nvidia(True), Nvidia(True, NO_DRIVER)])
def test_a_card_that_is_plugged_in_and_cannot_be_used_is_refused(slots: Path, nvidia: Nvidia) -> None:
    plug_in(slots)
    with pytest.raises(UsageError, match="A GPU cannot be used"):
        automatic_engine(MadeMachine(nvidia))


@pytest.mark.parametrize(("vendor", "kind"), [("0x8086", "0x030000"), ("0x10de", "0x040300")])
def test_another_makers_card_or_its_sound_device_is_no_gpu(slots: Path, vendor: str, kind: str) -> None:
    plug_in(slots, vendor, kind)
    none = why_no_gpu(NOTHING)
    assert none is not None
    assert none.serve_on_cpu


def test_a_number_that_no_gpu_has_is_a_mistake_and_not_a_wish_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES='7' names no GPU that nvidia-smi lists \(0, 1\)"):
        automatic_engine(MadeMachine(H100))


@pytest.mark.parametrize(("wanted", "visible", "devices"), [("0,1", None, ["0", "1"]), (None, "GPU-a", ["GPU-a"])])
def test_an_engine_that_was_asked_for_takes_the_users_word_where_nvidia_smi_fails(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, visible: str | None, devices: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.device for gpu in require_gpus(Nvidia(True, LOST), "lmdeploy", wanted)] == devices


@pytest.mark.parametrize("nvidia", [NOTHING, Nvidia(True, MISMATCH)])
def test_an_engine_without_its_gpu_says_why(nvidia: Nvidia) -> None:
    none = why_no_gpu(nvidia)
    assert none is not None
    with pytest.raises(UsageError) as caught:
        require_gpus(nvidia, "lmdeploy", None)
    assert caught.value.message == f"lmdeploy needs an NVIDIA GPU: {none.why}."


@pytest.mark.parametrize("nvidia", [NOTHING, Nvidia(installed=True), Nvidia(True, NO_DRIVER)])
@pytest.mark.parametrize("sandbox", ["gVisor", "WSL"])
def test_a_gpu_that_is_no_pci_device_is_not_passed_over_for_the_cpu(slots: Path, nvidia: Nvidia, sandbox: str) -> None:
    """A sandbox has the driver's device files, WSL what Windows' driver brings."""
    if sandbox == "WSL":
        (slots / "wsl").mkdir()
    (slots / {"gVisor": "nvidia0", "WSL": "wsl/nvidia-smi"}[sandbox]).touch()

    none = why_no_gpu(nvidia)

    assert none is not None
    assert not none.serve_on_cpu
    assert none.remedy
    if sandbox == "WSL" and not nvidia.installed:
        assert none.remedy == f"`export PATH=$PATH:{slots / 'wsl'}`."
