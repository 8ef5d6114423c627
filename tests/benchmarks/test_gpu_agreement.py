"""The check that engines agree on a trained checkpoint, tried with the CPU engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.stand_ins.box import ROOT

SAMPLE = ROOT / "bundle" / "tasks" / "sample" / "ceval"


@pytest.mark.slow
def test_the_cpu_engine_gives_the_letters_of_plain_pytorch(tmp_path: Path) -> None:
    small = ("--hidden", "256", "--layers", "1", "--passes", "60", "20", "--subjects", "law,logic")
    cpu = ("--device", "cpu", "--engine", "transformers")
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.agreement", tmp_path / "work", "--data", SAMPLE, *cpu, *small],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "trained: 4 of 4 letters as in plain PyTorch, torch.float32\n" in result.stdout
