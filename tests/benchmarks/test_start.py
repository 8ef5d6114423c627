"""How long the program takes to start, measured."""

from pathlib import Path

import pytest

from benchmarks.measurement import FailedRunError
from benchmarks.start import COMMAND_S, measure_start, outcomes
from tests.stand_ins.box import gpu_box


def test_the_help_and_the_servers_start_command_are_timed(tmp_path: Path) -> None:
    start = measure_start(1, tmp_path / "scratch")
    assert 0 < start["help_s"] < 30
    assert 0 < start["command_s"] < 30
    assert 0 < start["command_cpu_s"] < 30


def test_a_server_that_is_never_started_is_a_failure_that_shows_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.start.gpu_box", lambda directory: gpu_box(directory, gpus=[]))
    with pytest.raises(FailedRunError, match="lmdeploy needs an NVIDIA GPU"):
        measure_start(1, tmp_path)


@pytest.mark.parametrize("seconds", [COMMAND_S / 2, COMMAND_S * 2])
def test_the_start_command_must_come_soon_enough(seconds: float) -> None:
    (one,) = outcomes({"start": {"command_s": seconds}})
    assert one.reached == (seconds < COMMAND_S)
    assert outcomes({}) == []
