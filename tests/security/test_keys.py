"""Keys are in no argument list, record, core dump or process that has no need of them."""

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bundle.checkpoints import prove_tokenizer
from bundle.errors import TokenizerError
from bundle.serving.gpus import ask_for_gpus
from bundle.serving.machine import Machine
from bundle.system.guarded import without_keys
from tests.checkpoints.checkpoints import write_checkpoint
from tests.openai_api import Call, letter, remote_api
from tests.patience import wait_until
from tests.program import run, start
from tests.stand_ins.box import ROOT

SECRET = "sk-this-key-is-secret"
SECRETS = {
    "OPENAI_API_KEY": SECRET,
    "INTERNLM_API_KEYS": SECRET,
    "PUYU_KEY": SECRET,
    "HF_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "DB_PASSWORD": SECRET,
    "GOOGLE_CREDENTIALS": SECRET,
    "PIP_INDEX_URL": f"https://me:{SECRET}@packages.example/simple",
}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def recorder(path: Path, record: Path, then: str = "exit 1") -> Path:
    """An executable that writes its environment down."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nenv > {record}\n{then}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def assert_no_key(environment: str) -> None:
    assert "PATH=" in environment
    assert SECRET not in environment


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_children_inherit_all_variables_but_keys_and_passwords() -> None:
    others = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "TOKENIZERS_PARALLELISM": "false",
        "KEYBOARD": "de",
        "HTTPS_PROXY": "http://proxy:3128",
        "MAIL": "me@example.com",
        "SSH_AUTH_SOCK": "/tmp/agent",
    }
    assert without_keys({**others, **SECRETS}) == others


def test_nvidia_smi_gets_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: None) -> None:
    recorder(tmp_path / "bin" / "nvidia-smi", tmp_path / "environment")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    ask_for_gpus()
    assert_no_key((tmp_path / "environment").read_text())


async def test_the_tokenizer_check_gets_no_keys(tmp_path: Path, secrets: None) -> None:
    python = recorder(tmp_path / "bin" / "python", tmp_path / "environment")
    with pytest.raises(TokenizerError):
        await prove_tokenizer(write_checkpoint(tmp_path / "model"), python=str(python), trust_remote_code=True)
    assert_no_key((tmp_path / "environment").read_text())


def test_the_lmdeploy_version_check_gets_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: None
) -> None:
    python = recorder(tmp_path / "bin" / "python3", tmp_path / "environment", then="echo 0.18.0 in /nowhere/lmdeploy")
    script = tmp_path / "bin" / "lmdeploy"
    script.write_text(f"#!{python}\n")
    script.chmod(0o755)
    monkeypatch.setenv("BUNDLE_LMDEPLOY", str(script))
    assert Machine().installation("lmdeploy").version == "0.18.0"
    assert_no_key((tmp_path / "environment").read_text())


@linux_only
def test_a_key_is_in_no_argument_list_record_or_core_dump(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def looking(call: Call) -> web.StreamResponse:
        process = Path(f"/proc/{(tmp_path / 'pid').read_text()}")
        seen["arguments"] = (process / "cmdline").read_text()
        seen["limits"] = (process / "limits").read_text()
        return await letter(call)

    environment = _environment(**SECRETS, MY_KEY=SECRET, HF_ENDPOINT=SECRETS["PIP_INDEX_URL"])
    with remote_api(looking) as api:
        options = ["--base-url", api.url, "--api-key-env", "MY_KEY", "--data", "sample", "--out", tmp_path / "out"]
        program = start(
            *("eval-remote", "m", "--subjects", "law", *options), environment=environment, log=tmp_path / "log"
        )
        (tmp_path / "pid").write_text(str(program.pid))
        wait_until(lambda: program.poll() is not None)

    assert program.returncode == 0, (tmp_path / "log").read_text()
    assert set(api.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in seen["arguments"]
    core = next(line for line in seen["limits"].splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
    written = [tmp_path / "log", *(path for path in (tmp_path / "out").rglob("*") if path.is_file())]
    assert {path.name for path in written} >= {"run.json", "predictions.jsonl", "results.json"}
    for path in written:
        assert SECRET not in path.read_text(encoding="utf-8")


@linux_only
def test_child_processes_leave_no_core_dump() -> None:
    program = """
        import subprocess
        from bundle.system.limits import forbid_core_dumps
        forbid_core_dumps()
        print(subprocess.run(["sh", "-c", "ulimit -c"], capture_output=True, text=True).stdout)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"


def test_an_address_with_a_password_in_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    url = f"http://me:{SECRET}@127.0.0.1:1/v1"
    result = run("eval-remote", "m", "--base-url", url, "--out", tmp_path / "out", environment=_environment())
    assert result.returncode == 2
    assert SECRET not in result.stdout + result.stderr
    assert not (tmp_path / "out").exists()


def _environment(**more: str) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}
