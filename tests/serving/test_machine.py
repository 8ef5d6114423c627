"""What a machine has to serve with, looked for ahead."""

from pathlib import Path

import pytest

from bundle.errors import ServerError
from bundle.serving.gpus import Nvidia
from bundle.serving.machine import Machine
from tests.patience import wait_until
from tests.stand_ins.box import GPU, gpu_box, without_servers_of_our_own


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU whose ``nvidia-smi`` leaves a line in the file whenever it is run."""
    for name, value in gpu_box(tmp_path).items():
        monkeypatch.setenv(name, value)
    runs = tmp_path / "runs"
    runs.touch()
    nvidia_smi = tmp_path / "bin" / "nvidia-smi"
    nvidia_smi.write_text(
        nvidia_smi.read_text().replace("import json", f"import json; open({str(runs)!r}, 'a').write('x')", 1)
    )
    return runs


def test_looking_ahead_finds_what_is_wanted_later_and_nothing_is_asked_twice(counted: Path) -> None:
    machine = Machine()
    machine.look("lmdeploy")
    wait_until(lambda: counted.read_text() == "x")
    assert [gpu.uuid for gpu in machine.gpus] == [GPU[1]]
    assert machine.installation("lmdeploy").version == "0.18.0"
    assert machine.gpus is machine.gpus
    assert counted.read_text() == "x"


def test_without_looking_ahead_the_machine_is_asked_when_something_is_wanted(counted: Path) -> None:
    machine = Machine()
    assert counted.read_text() == ""
    assert len(machine.gpus) == 1
    assert counted.read_text() == "x"


def test_what_is_missing_is_an_error_only_for_who_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    without_servers_of_our_own(monkeypatch)
    machine = Machine()
    machine.look("lmdeploy")
    assert machine.gpus == ()
    for _ in range(2):
        with pytest.raises(ServerError, match="not installed"):
            machine.installation("lmdeploy")


def test_what_cannot_be_found_out_is_not_asked_again_either(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def fails(limit_s: float) -> Nvidia:
        asked.append(limit_s)
        raise OSError("no")

    monkeypatch.setattr("bundle.serving.machine.ask_for_gpus", fails)
    machine = Machine(1.0)
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            assert machine.nvidia
    assert asked == [1.0]
