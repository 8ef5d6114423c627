"""The whole road with a real server: a tiny checkpoint on the CPU, from the command line to ``results.json``."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundle.checkpoints.families import make_family_checkpoint
from bundle.checkpoints.internlm2 import rewrite_as_llama
from bundle.serving.conversion import cpu_dtype
from bundle.tasks.catalog import find_task
from tests.late import late
from tests.patience import PATIENCE_S, wait_until
from tests.program import carrying, results_of, rows_of, run, start
from tests.stand_ins.box import ROOT

torch, transformers = late("torch"), late("transformers", at_least="5.23")

# A model on a CPU that others use as well takes minutes for all questions.
_LONGEST_S = 1500.0
pytestmark = [pytest.mark.timeout(2 * _LONGEST_S), pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    directory = tmp_path_factory.mktemp("real")
    shutil.copytree(tiny, directory / "tiny")
    # As Qwen2.5 has a penalty in it: the server would apply it to greedy replies.
    generation = directory / "tiny" / "generation_config.json"
    sampling = {"repetition_penalty": 5.0, "min_new_tokens": 4}
    generation.write_text(json.dumps(json.loads(generation.read_bytes()) | sampling))
    return directory


@pytest.fixture(scope="module")
def environment(place: Path) -> Mapping[str, str]:
    ours = {"PYTHONPATH": str(ROOT), "BUNDLE_CACHE": str(place / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    # One thread: several wait for each other, and on a busy machine that is most of what they do.
    return os.environ | ours | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def out(place: Path, environment: Mapping[str, str]) -> Path:
    """Where a run on a sample question of every subject was written."""
    asked = ("eval-local", place / "tiny", "--data", "sample", "--limit", 1, "--out", place / "out")
    result = run(*asked, environment=environment, limit_s=_LONGEST_S)
    assert result.returncode == 0, result.stderr
    assert "52 of 52 questions answered" in result.stdout
    assert "own Python code" not in result.stderr  # the conversion has none
    assert not carrying(str(place))
    return place / "out"


def test_every_question_is_answered_and_scored(out: Path) -> None:
    results, rows = results_of(out), rows_of(out)
    assert results["coverage"] == {"total": 52, "answered": 52, "failed": 0}
    assert len({(row["subject"], row["id"]) for row in rows}) == 52
    assert {row["reply"] for row in rows} <= set("ABCD")
    assert all(row["finish_reason"] == "stop" and row["completion_tokens"] == 2 for row in rows)
    assert 0 <= results["scores"]["ceval"]["accuracy"] <= 100


def test_two_servers_give_what_one_gives_row_for_row(
    tmp_path: Path, place: Path, environment: Mapping[str, str], out: Path
) -> None:
    asked = ("eval-local", place / "tiny", "--data", "sample", "--limit", 1, "--out", tmp_path, "--replicas", 2)
    result = run(*asked, environment=environment, limit_s=_LONGEST_S)

    assert result.returncode == 0, result.stderr
    assert _measured(tmp_path) == _measured(out)
    assert sum(one["answered"] for one in results_of(tmp_path)["replicas"]) == 52


def _measured(out: Path) -> dict[tuple[str, int], list[object]]:
    """What a run says of each question, but for how long it took."""
    names = ("reply", "answer", "correct", "finish_reason", "prompt_tokens", "completion_tokens")
    return {(row["subject"], row["id"]): [row[name] for name in names] for row in rows_of(out)}


def test_the_engine_is_on_record(out: Path) -> None:
    (path,) = out.glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    engine = record["engine"]
    assert record["template"]["equal"] is True
    dtype = cpu_dtype({"torch_dtype": "bfloat16"})
    assert engine == {
        "name": "transformers",
        "version": transformers.__version__,
        "arguments": [],
        "file_arguments": [],
        "file_environment": {},
        "dtype": dtype,
        "backend": None,
        "gpus": [],
    }


def test_replies_are_those_of_greedy_generation_in_process(place: Path, out: Path) -> None:
    task = find_task("ceval_gen")
    subjects = task.select(["law", "logic", "college_physics", "art_studies", "accountant", "marxism"])
    questions = [one for one in task.questions(task.load("sample", subjects, lambda _: None), subjects) if one.id == 0]
    served = {(row["subject"], row["id"]): row["reply"] for row in rows_of(out)}

    directory = rewrite_as_llama(place / "tiny", place / "cache" / "llama")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, cpu_dtype(config)))
    ends = transformers.GenerationConfig.from_pretrained(directory).eos_token_id
    model.generation_config = transformers.GenerationConfig(eos_token_id=ends, pad_token_id=2)
    assert len(questions) == 6
    for question in questions:
        inputs = tokenizer.apply_chat_template(
            question.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=task.max_out_len, do_sample=False)
        reply = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert served[question.subject, question.id] == reply


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by their environment")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_real_server_does_not_outlive_us(
    tmp_path: Path, place: Path, environment: Mapping[str, str], number: signal.Signals
) -> None:
    mark = {**environment, "BUNDLE_TEST_MARK": str(tmp_path)}
    log = tmp_path / "log"
    process = start("eval-local", place / "tiny", "--data", "sample", "--out", tmp_path, environment=mark, log=log)
    wait_until(lambda: "server ready" in log.read_text() and rows_of(tmp_path))

    process.send_signal(number)

    assert process.wait(PATIENCE_S) in (130, -signal.SIGKILL)
    wait_until(lambda: not carrying(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama3", ()),
        ("qwen3", ()),
        ("qwen3", ("--model-file", "qwen3-no-thinking")),
        ("qwen3", ("--model-file", "qwen3-thinking")),
        ("deepseek-r1-distill-qwen", ()),  # Qwen's model with a template that is not Qwen's
    ],
)
def test_checkpoints_of_other_families_are_evaluated(
    tmp_path: Path, environment: Mapping[str, str], family: str, options: tuple[str, ...]
) -> None:
    make_family_checkpoint(tmp_path / family, family)
    few = ("--subjects", "law,logic,accountant", "--limit", "1")
    asked = ("eval-local", tmp_path / family, "--data", "sample", "--out", tmp_path / "out", *few, *options)

    result = run(*asked, environment=environment, limit_s=_LONGEST_S)

    assert result.returncode == 0, result.stderr
    record = json.loads(next((tmp_path / "out").glob("*/run.json")).read_text(encoding="utf-8"))
    assert record["template"]["equal"] is True
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 3
    assert {row["reply"] for row in rows} <= set("ABCD")
    assert {row["finish_reason"] for row in rows} == {"stop"}


def test_weights_that_the_model_does_not_find_are_not_made_up(tmp_path: Path, environment: Mapping[str, str]) -> None:
    model = tmp_path / "model"
    make_family_checkpoint(model, "llama3")
    config, weights = model / "config.json", model / "model.safetensors"
    # It has Llama's tensors, which are not known here to be its own.
    granite = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
    config.write_text(json.dumps(json.loads(config.read_bytes()) | granite))
    weights.write_bytes(weights.read_bytes().replace(b".q_proj.", b".query_."))
    few = ("--subjects", "law", "--limit", "1", "--max-out-len", "8")

    result = run(
        "eval-local", model, "--data", "sample", "--out", tmp_path, *few, environment=environment, limit_s=_LONGEST_S
    )

    assert result.returncode == 3
    assert "the checkpoint has no weights for model.layers.{0, 1}.self_attn.q_proj.weight" in result.stderr
