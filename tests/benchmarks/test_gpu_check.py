"""``make gpu-check``, against stand-ins of lmdeploy and of the GPU."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.gpu.configurations import configurations, talkative
from benchmarks.gpu.watching import GpuSample, carrying, while_between
from tests.patience import PATIENCE_S
from tests.stand_ins.box import GPU, ROOT, gpu_box

SAMPLE = ROOT / "bundle" / "tasks" / "sample" / "ceval"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Where the made checkpoint is kept: there is one from an earlier time, a small one."""
    directory = tmp_path_factory.mktemp("work")
    shutil.copytree(tiny, directory / "internlm2_5-1_8b")
    return directory


def gpu_check(*arguments: object, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *map(str, arguments)],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )


def test_without_a_gpu_it_says_so_in_a_line_and_exits_2(tmp_path: Path) -> None:
    result = gpu_check(environment=gpu_box(tmp_path, gpus=[]))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "gpu-check: there is no NVIDIA GPU that this program may use (see `nvidia-smi`)\n"


@pytest.mark.skipif(find_spec("lmdeploy") is not None, reason="this environment has lmdeploy itself")
def test_without_lmdeploy_it_says_how_to_install_it_and_exits_2(tmp_path: Path) -> None:
    environment = {name: value for name, value in gpu_box(tmp_path).items() if name != "BUNDLE_LMDEPLOY"}
    (tmp_path / "bin" / "lmdeploy").unlink()
    result = gpu_check(environment={**environment, "PATH": str(tmp_path / "bin")})
    assert result.returncode == 2
    assert result.stderr.startswith("gpu-check: lmdeploy is not installed. Install it with")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_figures_are_printed_and_kept_and_a_run_that_fails_does_not_keep_the_others_from_being_done(
    tmp_path: Path, work: Path
) -> None:
    environment = gpu_box(tmp_path, gpus=[(*GPU[:4], 70_000, GPU[5])])
    script = tmp_path / "bin" / "lmdeploy"
    fails = 'if "talkative" in options.model_path:\n        sys.exit("it is too talkative")\n    if RECORD:'
    script.write_text(script.read_text().replace("if RECORD:", fails, 1))
    result = gpu_check("--quick", "--limit", 1, "--data", SAMPLE, "--work", work, environment=environment)

    assert result.returncode == 1
    machine, pytorch, talking, whole, table = result.stdout.split("\n\n", 4)
    assert "driver 570.86.15" in machine
    assert pytorch.splitlines()[0] == "pytorch"
    figures = {line[2:33].strip(): line[33:] for line in pytorch.splitlines()[1:]}
    assert "52 questions" in figures["asking"]
    assert figures["GPU memory before and after"] == "11,559 and 11,559 MiB in use"
    assert figures["processes left"] == "none"
    assert "not told" not in figures["to the server's start command"] + figures["to ready"]
    assert "failed: exit code 3" in talking
    assert "it is too talkative" in whole
    assert "| pytorch |" in table
    assert "Failed: pytorch, talkative: error: The lmdeploy server ended before it was ready" in table
    kept = json.loads((work / "gpu.json").read_text())
    assert kept["runs"]["pytorch"]["requests"] == 52
    assert list(kept["failed"]) == ["pytorch, talkative", "pytorch, talkative, whole replies"]
    assert (work / "gpu.md").read_text().strip() == table.strip()
    assert "server ready" in (work / "logs" / "0-pytorch-output.log").read_text()
    assert "it is too talkative" in (work / "logs" / "1-pytorch-talkative-server.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_signal_ends_the_run_under_way_and_what_was_known_is_kept(tmp_path: Path, work: Path) -> None:
    environment = gpu_box(tmp_path, behaviour="never ready")
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--quick", "--data", str(SAMPLE), "--work", str(work)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = ""
        while "\npytorch\n" not in seen:
            seen += process.stdout.readline()
        while not (tmp_path / "record.json").exists() and process.poll() is None:  # until its server has started
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 1
    assert "failed: cut off by SIGTERM" in rest
    kept = json.loads((work / "gpu.json").read_text())
    assert kept["failed"] == {"pytorch": "cut off by SIGTERM"}
    assert list(kept["not_run"]) == ["pytorch, talkative", "pytorch, talkative, whole replies"]
    assert carrying(str(tmp_path / "record.json")) == []


@pytest.mark.slow
def test_what_no_longer_fits_the_budget_is_left_out_and_named(tmp_path: Path, work: Path) -> None:
    result = gpu_check("--quick", "--budget", 30, "--data", SAMPLE, "--work", work, environment=gpu_box(tmp_path))
    assert result.returncode == 0
    kept = json.loads((work / "gpu.json").read_text())
    assert kept["runs"] == kept["failed"] == {}
    assert list(kept["not_run"]) == ["pytorch", "pytorch, talkative", "pytorch, talkative, whole replies"]
    assert "Not run: pytorch: " in (work / "gpu.md").read_text()


def test_what_tells_most_is_run_first_and_turbomind_where_it_loads() -> None:
    names = [one.name for one in configurations(turbomind=True, made=True, quick=False)]
    assert names[:4] == ["turbomind", "pytorch", "turbomind, talkative", "turbomind, talkative, whole replies"]
    assert len(set(names)) == len(names)
    backends = {one.backend for one in configurations(turbomind=False, made=True, quick=False)}
    assert backends == {"pytorch"}


def test_a_checkpoint_of_ones_own_is_asked_for_whole_replies_itself() -> None:
    chosen = configurations(turbomind=False, made=False, quick=True)
    assert [(one.name, one.talkative, one.options) for one in chosen] == [
        ("pytorch", False, ()),
        ("pytorch, whole replies", False, ("--full-replies",)),
    ]


def test_a_talkative_checkpoint_differs_in_what_ends_a_reply(tmp_path: Path, work: Path) -> None:
    checkpoint = work / "internlm2_5-1_8b"
    other = talkative(checkpoint, tmp_path / "talkative")
    same = {path.name for path in checkpoint.iterdir()} - {"generation_config.json", "tokenizer_config.json"}
    assert all((other / name).samefile(checkpoint / name) for name in same)
    ends, other_ends = (
        json.loads((directory / "generation_config.json").read_text()).pop("eos_token_id")
        for directory in (checkpoint, other)
    )
    assert other_ends in ends
    assert len(ends) == 2
    template, other_template = (
        json.loads((directory / "tokenizer_config.json").read_text()).pop("chat_template")
        for directory in (checkpoint, other)
    )
    assert other_template == template.replace("<|im_end|>", "<|action_end|>") != template


def test_of_the_gpu_only_the_time_of_asking_counts() -> None:
    samples = [GpuSample(at, busy, used) for at, busy, used in ((1, 0, 100), (2, 90, 500), (3, 70, 400), (4, 0, 900))]
    assert while_between(samples, 1.5, 3.5) == (80, 500)
    assert while_between(samples, 5, 6) is None
