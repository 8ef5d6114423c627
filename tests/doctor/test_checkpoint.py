"""A checkpoint, looked over as a run would before its server is asked anything."""

import importlib.util
import itertools
import json
import shutil
from pathlib import Path

import pytest

from bundle.doctor.inputs import check_checkpoint
from bundle.errors import CheckpointError
from bundle.serving.gpus import Gpu, Nvidia
from bundle.system.findings import Status
from tests.checkpoints.checkpoints import write_checkpoint, write_json, write_safetensors
from tests.checkpoints.tokenizers import BPE_SIZE, write_bpe
from tests.doctor.examined import bare_machine, examine
from tests.doctor.test_gpu import Made


def test_internlm_on_the_cpu_has_its_tokenizer_written_anew(tiny: Path) -> None:
    whole, tokenizer = check_checkpoint(tiny, Made(Nvidia(installed=False)), limit_s=1)
    assert "InternLM2ForCausalLM" in whole.text
    assert "converted for the CPU engine" in tokenizer.text


@pytest.mark.parametrize(("free_mib", "status"), [(1000, Status.FAILING), (3000, Status.OK)])
def test_the_memory_it_needs_is_held_against_what_is_free(tiny: Path, free_mib: int, status: Status) -> None:
    gpus = [Gpu(number, f"GPU-{number}", "A GPU", 80000, free, "580") for number, free in enumerate((500, free_mib))]
    machine = Made(Nvidia(installed=True, gpus=tuple(gpus)), lmdeploy="0.18.0")
    _, memory = itertools.islice(check_checkpoint(tiny, machine, limit_s=1), 2)
    assert memory.status is status
    assert f"GPU 1 (A GPU, {free_mib / 1024:.1f} GiB of 78.1 GiB free)" in memory.text


def test_a_base_model_is_told_apart_by_its_missing_chat_template(tiny: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny, tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_bytes())
    del settings["chat_template"]
    write_json(base / "tokenizer_config.json", settings)
    _, finding, _ = check_checkpoint(base, Made(Nvidia(installed=False)), limit_s=1)
    assert finding.status is Status.OK
    assert "it has no chat template: a base model" in finding.text


def test_internlm_with_code_of_its_own_is_served_on_a_gpu_without_it(tiny: Path, tmp_path: Path) -> None:
    published = shutil.copytree(tiny, tmp_path / "published")
    (published / "configuration_internlm2.py").write_text("raise SystemExit")
    machine = Made(Nvidia(installed=True, gpus=(Gpu(0, "GPU-a", "A GPU", 80000, 70000, "580"),)), lmdeploy="0.18.0")
    _, _, code = check_checkpoint(published, machine, limit_s=1)
    assert (code.status, code.text.partition(":")[0]) == (Status.OK, "none of its Python code runs")


def test_a_checkpoint_that_is_not_whole_fails_as_a_run_would(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", shards=2)
    (model / "model-00002-of-00002.safetensors").unlink()
    (finding,) = examine("--model-dir", model, environment=bare_machine(tmp_path)).of("checkpoint")
    assert finding["status"] == "failing"
    assert "model-00002-of-00002.safetensors" in finding["text"]
    assert finding["remedy"]


def test_weights_of_zeros_fail_as_a_run_would(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"embed.weight": ("BF16", [64, 4])})
    with pytest.raises(CheckpointError, match="are zeros"):
        next(check_checkpoint(tmp_path, Made(Nvidia(installed=False)), limit_s=1))


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize(
    ("vocab_size", "status", "words"),
    [(BPE_SIZE, Status.OK, "reproduces its input"), (10, Status.FAILING, "the model's vocab_size is 10")],
)
def test_its_tokenizer_is_proved_by_the_interpreter_that_would_serve_it(
    tmp_path: Path, vocab_size: int, status: Status, words: str
) -> None:
    model = write_bpe(tmp_path / "model")
    write_safetensors(model / "model.safetensors")
    write_json(
        model / "config.json", {"architectures": ["LlamaForCausalLM"], "vocab_size": vocab_size, "eos_token_id": 2}
    )
    _, finding = check_checkpoint(model, Made(Nvidia(installed=False)), limit_s=60)
    assert finding.status is status
    assert words in finding.text
