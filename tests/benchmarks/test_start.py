"""How long the program takes to start, measured."""

from pathlib import Path

import pytest

from benchmarks.processes import FailedRunError
from benchmarks.start import measure_start
from tests.patience import PATIENCE_S
from tests.stand_ins.box import gpu_box


@pytest.mark.slow
def test_the_help_and_the_servers_start_command_are_timed(tmp_path: Path) -> None:
    start = measure_start(1, tmp_path / "scratch")
    assert 0 < start["help_s"] < PATIENCE_S
    assert 0 < start["command_s"] < PATIENCE_S


@pytest.mark.slow
def test_a_server_that_is_never_started_is_a_failure_that_shows_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.start.gpu_box", lambda directory: gpu_box(directory, gpus=[]))
    with pytest.raises(FailedRunError, match="lmdeploy needs an NVIDIA GPU"):
        measure_start(1, tmp_path)
