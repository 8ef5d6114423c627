"""A server listens where it can keep others out, and a checkpoint's own code runs with leave only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.checkpoints import Checkpoint, inspect_checkpoint
from bundle.errors import UsageError
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.options import LocalOptions
from bundle.serving import transformers_engine
from bundle.serving.engine import Job, ServerSpec
from bundle.serving.gpus import Gpu, Nvidia
from bundle.serving.lmdeploy.engine import LmdeployEngine
from bundle.serving.transformers_engine import TransformersEngine, hub_name
from bundle.system.guarded import ask_program, this_program
from tests.checkpoints.checkpoints import CONFIG, write_checkpoint, write_json
from tests.program import call
from tests.serving.machines import MadeMachine, installed
from tests.serving.stand_in import Stage
from tests.stand_ins.box import GPU, ROOT

ELSEWHERE = ["0.0.0.0", "::", "10.0.0.1", "fe80::1", "gpu-box", "localhost.example.com"]
HERE = ["127.0.0.1", "127.0.0.2", "::1", "localhost"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    config = {**CONFIG, "architectures": ["OPTForCausalLM"], "model_type": "opt"}
    return inspect_checkpoint(write_checkpoint(tmp_path / "model", config=config))


def lmdeploy(checkpoint: Checkpoint, version: str, *arguments: str, host: str = "127.0.0.1") -> ServerSpec:
    machine = MadeMachine(Nvidia(True, gpus=(Gpu(*GPU),)), installed("lmdeploy", version))
    job = Job(checkpoint, machine, arguments=arguments, host=host)
    return LmdeployEngine(job).prepare(lambda _: None)


def transformers(checkpoint: Checkpoint, host: str) -> ServerSpec:
    return TransformersEngine(Job(checkpoint, host=host)).prepare(lambda _: None)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_the_cpu_engine_has_no_key_and_listens_on_loopback_only(host: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError) as caught:
        transformers(checkpoint, host)
    assert f"cannot listen on {host}, where other machines can reach it" in caught.value.message
    assert "ssh -L" in (caught.value.remedy or "")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_lmdeploy_listens_elsewhere_only_in_versions_that_require_the_key(host: str, checkpoint: Checkpoint) -> None:
    command = lmdeploy(checkpoint, "0.13.0", host=host).command(1, Path())
    assert command[command.index("--server-name") + 1] == host
    with pytest.raises(UsageError, match="answers some requests without its API key"):
        lmdeploy(checkpoint, "0.12.3", host=host)


@pytest.mark.parametrize("host", HERE)
def test_on_loopback_both_listen(
    host: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transformers_engine, "_version", lambda: "5.24.0")  # a GPU machine has an older one
    assert host in transformers(checkpoint, host).command(1, Path())
    assert host in lmdeploy(checkpoint, "0.12.0", host=host).command(1, Path())


def test_the_program_refuses_it_before_a_server_is_started(tmp_path: Path, tiny: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    options = ["--engine", "transformers", "--host", "0.0.0.0", "--data", "sample", "--out", tmp_path / "out"]
    result = call("eval-local", model, *options, environment=_environment(tmp_path))
    assert result.returncode == 2
    assert "The CPU engine has no API key." in result.stderr


@pytest.mark.parametrize("option", ["--api-keys", "--api-key", "--api", "--server-n", "--model-n=x", "--ss"])
def test_abbreviated_engine_options_cannot_override_ours(option: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="set by bundle"):
        lmdeploy(checkpoint, "0.18.0", option, "x")


def test_code_in_a_checkpoint_does_not_run_without_permission(tmp_path: Path) -> None:
    code = {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}
    config = {**CONFIG, "architectures": ["LlamaForCausalLM"], "auto_map": code}
    model = write_checkpoint(tmp_path / "model", config=config)
    write_json(model / "tokenizer_config.json", {"auto_map": code})
    was_here = tmp_path / "was-here"
    (model / "evil.py").write_text(f"open({str(was_here)!r}, 'w')\n")
    options = ["--engine", "transformers", "--data", "sample", "--out", tmp_path / "out"]
    result = call("eval-local", model, *options, environment=_environment(tmp_path))
    assert result.returncode == 2
    assert "which needs --trust-remote-code" in result.stderr
    assert not was_here.exists()


def test_files_in_the_current_directory_are_run_by_nothing_that_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a user has changed into a downloaded checkpoint: a module there may have the name of any other."""
    monkeypatch.chdir(tmp_path)
    for name in ("argparse", "typer", "bundle"):
        Path(f"{name}.py").write_text("open('was-here', 'w')\n")
    module = [sys.executable, "-m", "json.tool", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run(module, env=environment, capture_output=True, check=False)
    was_here = Path("was-here")
    assert was_here.exists(), "Python itself runs it"
    was_here.unlink()

    server = Stage(tmp_path / "stage").prepared().environment_beside(environment, "k", tmp_path)
    assert "usage" in subprocess.run(module, env=server, capture_output=True, text=True, check=True).stdout
    ask_program([sys.executable, "-c", "import argparse"], 60)
    again = subprocess.run(
        this_program("--help"), env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "eval-local" in again.stdout
    assert not was_here.exists()


def test_the_shipped_model_files_trust_no_architecture_but_the_digest_of_our_own_file(
    tmp_path: Path, tiny: Path
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    assert LocalCheckpoint(model, LocalOptions(), ()).trusted
    assert not LocalCheckpoint(model, LocalOptions(trust_remote_code=False), ()).trusted

    code = model / "configuration_internlm2.py"
    code.write_text(code.read_text() + "\n")
    changed = LocalCheckpoint(model, LocalOptions(), ())
    assert not changed.trusted
    assert changed.model_file.architectures == ("InternLM2ForCausalLM",), "which is served all the same, without it"
    assert LocalCheckpoint(model, LocalOptions(trust_remote_code=True), ()).trusted


def test_what_lmdeploy_loads_of_an_internlm2_checkpoint_holds_none_of_its_code(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE_CACHE", str(tmp_path / "cache"))
    model = shutil.copytree(tiny, tmp_path / "model")
    (model / "configuration_internlm2.py").write_text("raise SystemExit")
    spec = lmdeploy(inspect_checkpoint(model), "0.18.0")
    loaded = Path(spec.command(1, Path())[5])
    assert loaded == spec.model.directory
    assert loaded.is_relative_to(tmp_path / "cache")
    assert "SystemExit" not in "".join(path.read_text() for path in loaded.glob("*.py"))
    assert json.loads(spec.files["chat_template.json"])["model_path"] == str(loaded)


def test_an_import_that_leaves_the_checkpoint_is_not_followed(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", config={**CONFIG, "auto_map": {"AutoConfig": "code.Config"}})
    (tmp_path / "outside.py").write_text("")
    beyond = str(tmp_path / "outside").strip("/").replace("/", ".")
    (model / "code.py").write_text(f"from ..{beyond} import x\nfrom ...outside import x\n")
    assert inspect_checkpoint(model).remote_code_names == ("code.py",)


def test_scanning_hostile_code_takes_no_time(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", config={**CONFIG, "auto_map": {"AutoConfig": "code.Config"}})
    (model / "code.py").write_text("\n" * 10**6 + "from .x import a" + " " * 10**6 + "b\n")
    assert inspect_checkpoint(model).remote_code_names == ("code.py",)


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("internlm2_5-1_8b-chat", "local/internlm2_5-1_8b-chat"),
        ("模型 v1", "local/v1"),
        ("模型", "local/model"),
        ("a--b..c", "local/a-b-c"),
        ("-x.git", "local/x"),
        ("e\x1b[2J\nvil", "local/e-2J-vil"),
        ("y" * 200, f"local/{'y' * 80}"),
    ],
)
def test_a_directory_of_any_name_is_served_by_the_cpu_engine_under_one_it_allows(directory: str, name: str) -> None:
    from huggingface_hub.utils._validators import validate_repo_id

    assert hub_name(directory) == name
    validate_repo_id(name)


def _environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "BUNDLE_CACHE": str(directory / "cache")}
