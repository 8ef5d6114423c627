"""``bundle eval-local`` as a user types it, on a machine with a GPU and lmdeploy (stand-ins of both)."""

import itertools
import json
import re
import shutil
import signal
import socket
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bundle.pipeline import pipeline
from tests.checkpoints.base_model import base_model
from tests.checkpoints.lora import lora_adapter
from tests.late import late
from tests.patience import PATIENCE_S, wait_until
from tests.program import call, carrying, results_of, rows_of, run, start
from tests.stand_ins.box import gpu_box
from tests.stand_ins.journal import read_journal

safetensors = late("safetensors.torch")


@dataclass(frozen=True)
class Finished:
    """A run that went well: what the user saw, where it was written, what the server was started with."""

    stdout: str
    stderr: str
    out: Path
    server: dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Finished:
    directory = tmp_path_factory.mktemp("finished")
    options = ["--data", "sample", "--out", directory / "out", "--concurrency", 16]
    result = run("eval-local", tiny, *options, "--", "--backend", "pytorch", environment=gpu_box(directory))
    assert result.returncode == 0, result.stderr
    server = json.loads((directory / "record.json").read_text())["options"]
    return Finished(result.stdout, result.stderr, directory / "out", server)


def test_a_run_ends_with_a_table_and_its_directory(finished: Finished) -> None:
    assert "104 of 104 questions answered" in finished.stdout
    assert "ceval-hard" in finished.stdout
    assert "近代史纲要" not in finished.stdout  # one of many: neither among the best nor among the worst
    directory = Path(finished.stdout.splitlines()[-1])
    assert directory.parent == finished.out
    files = {"run.json", "prompts.jsonl", "predictions.jsonl", "results.json", "report.html", "server.log"}
    assert {path.name for path in directory.iterdir()} - {"gpus.jsonl"} == files  # there may be no time to see GPUs
    assert finished.stdout.splitlines()[-2] == f"report: {directory / 'report.html'}"
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"still running at \d|>No reply yet<", page)


def test_code_of_the_checkpoint_that_may_run_is_named(finished: Finished) -> None:
    allowed = "allowing the checkpoint's own Python code (model file internlm2_5-1_8b): configuration_internlm2.py"
    assert allowed in finished.stderr


def test_scores_are_those_of_the_replies(finished: Finished) -> None:
    rows, results = rows_of(finished.out), results_of(finished.out)
    assert len({(row["subject"], row["id"]) for row in rows}) == len(rows) == 104
    assert all(row["correct"] == (row["answer"] == row["gold"]) for row in rows)
    law = [row["correct"] for row in rows if row["subject"] == "law"]
    assert results["scores"]["ceval-law"]["accuracy"] == 100 * sum(law) / len(law)
    assert results["coverage"] == {"total": 104, "answered": 104, "failed": 0}
    assert set(results["timing"]) == {"load_s", "start_s", "prove_s", "ask_s", "stop_s", "total_s"}
    tokens = {"prompt": 104 * 300, "completion": 104 * 2, "cut_replies": 0, "uncounted_replies": 0}
    assert results["tokens"] == tokens


def test_what_was_asked_is_on_record(finished: Finished) -> None:
    (path,) = finished.out.glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["task"] == "ceval_gen"
    assert record["data"]["source"] == "sample"
    assert re.fullmatch("[0-9a-f]{64}", record["data"]["fingerprint"])
    assert record["model"]["architecture"] == "InternLM2ForCausalLM"
    assert record["engine"] == {
        **{"name": "lmdeploy", "version": "0.18.0", "dtype": None, "backend": None, "gpus": ["NVIDIA H100 80GB HBM3"]},
        **{"arguments": ["--backend", "pytorch"], "file_arguments": ["--session-len", "8192"], "file_environment": {}},
    }
    assert record["sampling"]["temperature"] == 0.0
    assert record["sampling"]["max_out_len"] == 2048
    assert record["concurrency"] == 16
    assert record["template"] == {"checked": 3, "equal": True, "note": None}


def test_the_sample_comes_with_a_warning_that_its_score_means_nothing(finished: Finished) -> None:
    assert "partial: sample questions, which say nothing about a model" in finished.stderr
    assert "PARTIAL: 104 sample questions" in finished.stdout


def test_remote_code_is_named_with_what_allowed_it(finished: Finished) -> None:
    assert "configuration_internlm2.py" in finished.stderr
    assert "internlm2_5-1_8b" in finished.stderr


def test_output_that_is_no_terminal_has_no_escapes(finished: Finished) -> None:
    assert "\x1b" not in finished.stdout + finished.stderr


def test_arguments_after_two_dashes_reach_the_server(finished: Finished) -> None:
    assert finished.server["backend"] == "pytorch"


def test_the_server_listens_on_loopback_only_and_its_port_is_free_afterwards(finished: Finished) -> None:
    assert finished.server["server_name"] == "127.0.0.1"
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", finished.server["server_port"]))


def test_only_the_first_questions_of_the_chosen_subjects_are_asked(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", "sample", "--subjects", "law,logic", "--limit", "1", "--out", out]
    result = call("eval-local", tiny, *options, environment=gpu_box(tmp_path))

    assert {(row["subject"], row["id"]) for row in rows_of(out)} == {("law", 0), ("logic", 0)}
    assert "Mean of 2 of 52 subjects" in result.stdout
    assert "ceval-stem" not in result.stdout


@pytest.mark.parametrize("where", ["after --", "config.json", "--max-seq-len"])
@pytest.mark.slow
def test_examples_are_dropped_for_the_smallest_context(tmp_path: Path, tiny: Path, where: str) -> None:
    directory, more = tiny, []
    if where == "config.json":
        directory = tmp_path / "short"
        shutil.copytree(tiny, directory)
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 400}))
    elif where == "after --":
        more = ["--", "--session-len", "400"]
    else:
        more = ["--max-seq-len", "400"]
    source = "--session-len" if where == "after --" else where
    options = ["--data", "sample", "--subjects", "law", "--max-out-len", 16, "--out", tmp_path / "out"]
    result = call("eval-local", directory, *options, *more, environment=gpu_box(tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"2 of 2 questions have fewer examples, to fit 400 tokens ({source})" in result.stderr
    assert "2 of 2 questions were sent with fewer examples" in result.stdout
    (run_json,) = (tmp_path / "out").glob("*/run.json")
    context = json.loads(run_json.read_text())["context"]
    assert (context["max_tokens"], context["set_by"]) == (400, source)
    assert context["counted_with"].startswith("tokenizer.json (SHA-256 ")
    assert all(0 < row["examples_dropped"] < 5 for row in rows_of(tmp_path / "out"))


def test_a_resume_with_other_options_is_refused_before_a_server_starts(tmp_path: Path, tiny: Path) -> None:
    options = ["--data", "sample", "--subjects", "law", "--out", tmp_path / "out"]
    first = call("eval-local", tiny, *options, environment=gpu_box(tmp_path))
    directory = first.stdout.splitlines()[-1]
    (tmp_path / "record.json").unlink()
    again = ["eval-local", tiny, *options, "--resume", directory]
    temperature = call(*again, "--temperature", "0.5", environment=gpu_box(tmp_path))
    arguments = call(*again, "--", "--backend", "pytorch", environment=gpu_box(tmp_path))
    assert (temperature.returncode, arguments.returncode) == (2, 2)
    assert "--temperature: 0.0 then, 0.5 now" in temperature.stderr
    assert "arguments after --: none then, --backend pytorch now" in arguments.stderr
    assert not (tmp_path / "record.json").exists(), "a server was started"


def test_a_resume_after_the_model_file_gives_the_engine_something_else_is_refused(tmp_path: Path, tiny: Path) -> None:
    file = tmp_path / "mine.toml"
    options = ["--data", "sample", "--subjects", "law", "--out", tmp_path / "out", "--model-file", file]
    settings = 'description = "m"\ntrust_remote_code = true\n[lmdeploy]\nargs = ["--session-len", "8192"]\n'
    file.write_text(settings)
    first = call("eval-local", tiny, *options, environment=gpu_box(tmp_path))
    directory = Path(first.stdout.splitlines()[-1])
    assert json.loads((directory / "run.json").read_text())["engine"]["file_arguments"] == ["--session-len", "8192"]

    file.write_text(settings + 'env = { NCCL_DEBUG = "INFO", HF_TOKEN = "secret" }')
    again = call("eval-local", tiny, *options, "--resume", directory, environment=gpu_box(tmp_path))
    assert again.returncode == 2
    assert "model file, variable NCCL_DEBUG: none then, INFO now" in again.stderr
    assert "secret" not in again.stderr


def test_questions_without_a_reply_are_shown_and_make_the_exit_code_4(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    result = call(
        "eval-local", tiny, "--data", "sample", "--out", out, environment=gpu_box(tmp_path, behaviour="fails some")
    )
    assert result.returncode == 4
    coverage = results_of(out)["coverage"]
    assert coverage["failed"] > 0
    assert f"{coverage['answered']} of 104 questions answered, {coverage['failed']} without a reply" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limitt", "3"], "No such option"),
        (["--task", "ceval_gne"], "Did you mean ceval_gen"),
        (["--subjects", "laww"], "Did you mean law"),
        (["--engine", "lmdeplyo"], "Did you mean lmdeploy"),
        (["--data", "nowhere/at/all"], "nowhere/at/all"),
        (["--gpu", "9"], "no such GPU"),
        (["--model-file", "internlm"], "There is no model internlm"),
        (["limit", "3"], "limit is not a directory"),
    ],
)
def test_a_mistyped_option_starts_no_server_and_is_explained(
    tmp_path: Path, tiny: Path, arguments: list[str], said: str
) -> None:
    result = call("eval-local", tiny, "--out", tmp_path / "out", *arguments, environment=gpu_box(tmp_path))
    assert result.returncode in (2, 3)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "record.json").exists()


def asked_with(directory: Path) -> list[dict[str, Any]]:
    """The fields of every request but its messages, as the server's journal tells."""
    return read_journal(directory / "journal").all_of("fields")


def box(directory: Path, behaviour: str = "good") -> dict[str, str]:
    """A machine with a GPU whose server keeps a journal."""
    environment = gpu_box(directory, behaviour=behaviour)
    return environment | {"LMDEPLOY_STAND_IN_JOURNAL": str(directory / "journal")}


def test_a_server_with_another_chat_template_is_asked_nothing(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", "sample", "--limit", "1", "--out", out]
    result = call("eval-local", tiny, *options, environment=box(tmp_path, "another template"))

    assert result.returncode == 3
    assert "does not build prompts with the checkpoint's chat template" in result.stderr
    said = re.search(r"has (\d+) tokens on the server, (\d+) by the checkpoint's template", result.stderr)
    assert said is not None
    assert int(said[1]) == int(said[2]) + 330
    assert "<s><|im_start|>" in result.stderr
    assert "--chat-template" in result.stderr
    assert "Traceback" not in result.stderr
    assert asked_with(tmp_path) == []
    assert len(read_journal(tmp_path / "journal").lives) == 1
    (path,) = out.glob("*/run.json")
    assert json.loads(path.read_text(encoding="utf-8"))["template"]["equal"] is False


@pytest.mark.parametrize(
    ("behaviour", "arguments", "said", "equal"),
    [
        ("another template", ["--", "--chat-template", "llama2"], "--chat-template gives other prompts", False),
        ("counts nothing", [], "could not verify", None),
    ],
)
def test_a_template_of_the_users_choice_and_one_that_cannot_be_checked_are_warnings(
    tmp_path: Path, tiny: Path, behaviour: str, arguments: list[str], said: str, equal: bool | None
) -> None:
    out = tmp_path / "out"
    options = ["--data", "sample", "--subjects", "law", "--out", out, *arguments]
    result = call("eval-local", tiny, *options, environment=box(tmp_path, behaviour))

    assert result.returncode == 0, result.stderr
    assert f"warning: {said}" in result.stderr or said in result.stderr
    (path,) = out.glob("*/run.json")
    assert json.loads(path.read_text(encoding="utf-8"))["template"]["equal"] is equal


@pytest.mark.slow
def test_greedy_requests_say_so_and_an_end_of_turn_that_no_file_lists_is_sent(tmp_path: Path, tiny: Path) -> None:
    unlisted = shutil.copytree(tiny, tmp_path / "unlisted")
    (unlisted / "generation_config.json").write_text('{"eos_token_id": 2}')
    options = ["--data", "sample", "--subjects", "law", "--repeat", "2", "--out", tmp_path / "out"]
    result = call("eval-local", unlisted, *options, environment=box(tmp_path))

    assert result.returncode == 0, result.stderr
    fields = asked_with(tmp_path)
    assert len(fields) == 4  # two questions, each of them twice
    assert all((one["temperature"], one["top_k"], one["stop"]) == (0.0, 1, ["<|im_end|>"]) for one in fields)
    (path,) = (tmp_path / "out").glob("*/run.json")
    sampling = json.loads(path.read_text(encoding="utf-8"))["sampling"]
    assert sampling["extra_body"] == {"top_k": 1, "stop": ["<|im_end|>"]}
    assert results_of(tmp_path / "out")["repeat"] == {
        "questions": 2,
        "times": 2,
        "answers_changed": 0,
        "replies_changed": 0,
        "failed": 0,
    }
    assert "2 questions asked 2 times: 0 answers and 0 replies changed" in result.stdout


@pytest.mark.parametrize(
    "thinking", ["chat_template_kwargs = { enable_thinking = false }", "extra_body = { enable_thinking = false }"]
)
@pytest.mark.slow
def test_the_model_files_template_arguments_are_sent_and_the_prompts_proved_with_them(
    tmp_path: Path, tiny: Path, thinking: str
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    path = model / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["chat_template"] += "{% if enable_thinking is false %}{{ '\\n\\n' }}{% endif %}"
    path.write_text(json.dumps(content))
    file = tmp_path / "brief.toml"
    options = ["--data", "sample", "--subjects", "law", "--model-file", file, "--out"]

    # The stand-in's template knows nothing of the argument: only without it are the prompts those of the checkpoint.
    file.write_text('description = "m"\ntrust_remote_code = true\n[sampling]\ntop_p = 0.9')
    plain = call("eval-local", model, *options, tmp_path / "plain", environment=gpu_box(tmp_path))
    file.write_text(f"{file.read_text()}\n{thinking}")
    brief = call("eval-local", model, *options, tmp_path / "brief", environment=box(tmp_path))

    assert plain.returncode == 0, plain.stderr
    (record,) = (tmp_path / "plain").glob("*/run.json")
    assert json.loads(record.read_text())["sampling"]["extra_body"] == {"top_k": 1, "top_p": 0.9}
    assert brief.returncode == 3
    assert asked_with(tmp_path) == []
    counted = read_journal(tmp_path / "journal").all_of("counted")
    assert counted[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "does not build prompts with the checkpoint's chat template" in brief.stderr


@pytest.fixture
def base_dir(tmp_path: Path, tiny: Path) -> Path:
    """A checkpoint without a chat template."""
    return base_model(tiny, tmp_path / "base")


def test_a_base_model_is_asked_to_continue_plain_text(tmp_path: Path, base_dir: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", "sample", "--subjects", "law", "--out", out]
    result = call("eval-local", base_dir, *options, environment=box(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "no chat template: prompting as a base model" in result.stderr
    assert [one["max_tokens"] for one in asked_with(tmp_path)] == [1024, 1024]
    assert all("stop" not in one for one in asked_with(tmp_path))
    (path,) = out.glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["tasks"][0]["shape"] == "plain"
    assert record["template"] == {"checked": 2, "equal": True, "note": None}

    (tmp_path / "journal").unlink()
    chat = call("eval-local", tiny, *options, environment=box(tmp_path))
    assert chat.returncode == 0, chat.stderr
    compared = call("compare", *sorted(out.iterdir()), environment=box(tmp_path))
    assert compared.returncode == 2
    assert "shape plain and turns" in compared.stderr


@pytest.mark.slow
def test_a_model_is_served_with_a_lora_adapter_merged_into_it(tmp_path: Path, tiny: Path) -> None:
    adapter, out = lora_adapter(tiny, tmp_path / "sft-lora"), tmp_path / "out"
    options = ["--data", "sample", "--limit", "1", "--subjects", "law", "--out", out]
    result = call("eval-local", tiny, "--adapter", adapter, *options, environment=gpu_box(tmp_path))

    assert result.returncode == 0, result.stderr
    assert f"checkpoint {tiny} with adapter {adapter}" in result.stderr
    assert "the adapter was trained on someone/another-model, according to its config" in result.stderr
    served = json.loads((tmp_path / "record.json").read_text())["options"]
    assert served["model_name"] == "sft-lora"
    (path,) = out.glob("*-sft-lora/run.json")
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    assert (model["path"], model["adapter"]) == (str(tiny), str(adapter))

    # What was merged is what is resumed, and another adapter is another model.
    again = run("resume", path.parent, environment=gpu_box(tmp_path))
    assert again.returncode == 0, again.stderr
    (adapter / "adapter_model.safetensors").write_bytes(
        (lora_adapter(tiny, tmp_path / "other", seed=1) / "adapter_model.safetensors").read_bytes()
    )
    changed = run("resume", path.parent, environment=gpu_box(tmp_path))
    assert changed.returncode == 2
    assert "settings differ" in changed.stderr


def test_an_adapter_that_does_not_fit_starts_no_server(tmp_path: Path, tiny: Path) -> None:
    adapter = lora_adapter(tiny, tmp_path / "lora", module="model.layers.77.attention.wqkv")
    options = ["--adapter", adapter, "--data", "sample", "--out", tmp_path / "out"]
    result = call("eval-local", tiny, *options, environment=gpu_box(tmp_path))

    assert result.returncode == 2
    assert "the model has no model.layers.77.attention.wqkv.weight" in result.stderr
    assert not (tmp_path / "record.json").exists()


def test_a_dry_run_checks_an_adapter_and_merges_nothing(tmp_path: Path, tiny: Path) -> None:
    adapter = lora_adapter(tiny, tmp_path / "lora")
    options = ["--adapter", adapter, "--data", "sample", "--subjects", "law", "--dry-run"]
    cache = {"BUNDLE_CACHE": str(tmp_path / "cache")}
    result = call("eval-local", tiny, *options, environment=gpu_box(tmp_path) | cache)

    assert result.returncode == 0, result.stderr
    assert "nothing was started: --dry-run" in result.stdout
    assert "merg" not in result.stderr
    assert not (tmp_path / "cache").exists()

    (adapter / "adapter_model.safetensors").unlink()
    refused = call("eval-local", tiny, *options, environment=gpu_box(tmp_path) | cache)
    assert refused.returncode == 2
    assert "has no adapter_model.safetensors" in refused.stderr
    several = call("eval-local", tiny, "--adapter", "none", *options, environment=gpu_box(tmp_path) | cache)
    assert several.returncode == 2, "the model alone can be evaluated, and its adapter cannot"


def test_weights_that_are_not_numbers_start_no_server(tmp_path: Path, tiny: Path) -> None:
    diverged = tmp_path / "diverged"
    shutil.copytree(tiny, diverged)
    weights = safetensors.load_file(diverged / "model.safetensors")
    safetensors.save_file({name: one * float("nan") for name, one in weights.items()}, diverged / "model.safetensors")
    result = call("eval-local", diverged, "--data", "sample", "--out", tmp_path / "out", environment=gpu_box(tmp_path))

    assert result.returncode == 2
    assert "holds values that are not finite (NaN or infinite)" in result.stderr
    assert not (tmp_path / "record.json").exists()


def test_a_base_model_starts_no_server_to_be_asked_as_a_chat_model(tmp_path: Path, base_dir: Path) -> None:
    options = ["--data", "sample", "--out", tmp_path / "out", "--prompt-shape", "turns"]
    result = call("eval-local", base_dir, *options, environment=gpu_box(tmp_path))

    assert result.returncode == 2
    assert "has no chat template, so it cannot be asked as a chat model" in result.stderr
    assert "--prompt-shape plain" in result.stderr
    assert not (tmp_path / "record.json").exists()


_EACH = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ m.content ", "line 1: unexpected end"),
        (_EACH.replace("m.content", "m.content[:60]"), "it leaves out text of a message"),
        ("{{ strftime_now('%H:%M') }}" + _EACH, "a prompt changes from one moment to the next: '00:00<"),
        (
            _EACH + "{% if messages | length > 9 %}{{ raise_exception('at most 4 turns') }}{% endif %}",
            "at most 4 turns",
        ),
    ],
    ids=["broken", "cutting", "of the time", "of few turns"],
)
def test_a_chat_template_that_does_not_make_the_runs_prompts_ends_it_before_a_question(
    tmp_path: Path, tiny: Path, template: str, told: str, more: list[str]
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    (model / "chat_template.jinja").write_text(template)
    options = ["--data", "sample", "--out", tmp_path / "out", *more]
    result = call("eval-local", model, *options, environment=box(tmp_path, "never ready"))

    assert result.returncode == 2
    assert f"The chat template in {model}/chat_template.jinja cannot be used: " in result.stderr
    assert told in result.stderr
    assert asked_with(tmp_path) == []
    if more:
        assert not (tmp_path / "record.json").exists()


@pytest.mark.slow
def test_prompts_that_depend_on_the_day_are_told_of_by_a_run_its_resume_and_a_comparison(
    tmp_path: Path, tiny: Path
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    # The stand-in's template knows no date: in this one it shows in a year that is over.
    (model / "chat_template.jinja").write_text(template + "{% if strftime_now('%Y') == '2025' %}!{% endif %}")
    options = ["eval-local", model, "--data", "sample", "--subjects", "law", "--out"]
    ran = [call(*options, tmp_path / name, environment=gpu_box(tmp_path)) for name in ("one", "two")]
    one, two = (path.parent for name in ("one", "two") for path in (tmp_path / name).glob("*/run.json"))
    record = json.loads((one / "run.json").read_text())
    today = record["sampling"]["prompt_date"]
    record["sampling"]["prompt_date"] = "2026-05-06"
    (one / "run.json").write_text(json.dumps(record))
    compared = call("compare", one, two, environment=gpu_box(tmp_path))
    whole = call(*options, tmp_path / "one", "--resume", one, environment=gpu_box(tmp_path))
    (one / "results.json").unlink()
    (one / "predictions.jsonl").write_text((one / "predictions.jsonl").read_text().splitlines(keepends=True)[0])
    resumed = call(*options, tmp_path / "one", "--resume", one, environment=gpu_box(tmp_path))

    assert [result.returncode for result in ran] == [0, 0]
    assert f"the chat template makes other prompts on other days: scores are those of {today}" in ran[0].stderr
    assert "prompts are made with that of chat_template.jinja" in ran[0].stderr
    assert whole.returncode == 0, whole.stderr
    assert resumed.returncode == 2
    assert f"date in the chat template's prompts: 2026-05-06 then, {today} now" in resumed.stderr
    assert re.search(f"date in the chat template's prompts.*2026-05-06.*{today}", compared.stdout)


def test_a_run_past_midnight_has_the_dates_of_both_days_in_its_prompts(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(date):
        @classmethod
        def today(cls) -> "Tomorrow":
            return cls.fromordinal(date.today().toordinal() + 1)

    monkeypatch.setattr(pipeline, "date", Tomorrow)
    model = shutil.copytree(tiny, tmp_path / "model")
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    (model / "chat_template.jinja").write_text(template + "{% if strftime_now('%Y') == '2025' %}!{% endif %}")
    options = ["--data", "sample", "--subjects", "law", "--out", tmp_path / "out"]
    result = call("eval-local", model, *options, environment=gpu_box(tmp_path))

    assert result.returncode == 0, result.stderr
    dates = json.loads(next(tmp_path.glob("out/*/run.json")).read_text())["sampling"]["prompt_date"]
    assert re.fullmatch(r"(\S{10}) to (?!\1)\S{10}", dates)
    assert f"from {dates}: they differ in it" in result.stderr


def test_a_task_that_the_engine_cannot_answer_starts_no_server(tmp_path: Path, base_dir: Path) -> None:
    options = ["--task", "ceval_ppl", "--data", "sample", "--out", tmp_path / "out"]
    result = call("eval-local", base_dir, *options, environment=gpu_box(tmp_path))

    assert result.returncode == 2
    assert "ceval_ppl needs log-probabilities of the prompt, which the lmdeploy server does not report" in result.stderr
    assert "--engine vllm" in result.stderr
    assert not (tmp_path / "record.json").exists()


def test_a_server_that_leaves_out_the_token_before_a_text_is_asked_nothing(tmp_path: Path, base_dir: Path) -> None:
    options = ["--data", "sample", "--limit", "1", "--out", tmp_path / "out"]
    result = call("eval-local", base_dir, *options, environment=box(tmp_path, "no special token"))

    assert result.returncode == 3
    assert "does not make the checkpoint's tokens of a text" in result.stderr
    assert "begins a text with a special token that the server leaves out" in result.stderr
    assert asked_with(tmp_path) == []


def test_a_broken_checkpoint_starts_no_server_and_is_explained(tmp_path: Path, tiny: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    result = call("eval-local", broken, "--data", "sample", environment=gpu_box(tmp_path))

    assert result.returncode == 2
    assert "model.safetensors" in result.stderr
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(
    ("behaviour", "said", "limit_s"),
    [("out of memory", "out of memory", PATIENCE_S), ("wrong key", "key", PATIENCE_S), ("never ready", "not ready", 4)],
)
def test_a_server_that_does_not_come_up_is_diagnosed(
    tmp_path: Path, tiny: Path, behaviour: str, said: str, limit_s: float
) -> None:
    options = ["--data", "sample", "--out", tmp_path, "--start-timeout", limit_s]
    environment = gpu_box(tmp_path, behaviour=behaviour)
    result = call("eval-local", tiny, *options, environment=environment)
    assert result.returncode == 3
    assert said in result.stderr
    assert "Traceback" not in result.stderr.partition("hint")[2]
    assert not carrying(str(tmp_path))


def test_a_server_that_dies_midway_ends_the_run_with_what_there_is(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    result = call(
        "eval-local",
        tiny,
        *["--data", "sample", "--out", out, "--concurrency", 2],
        environment=gpu_box(tmp_path, behaviour="crash midway"),
    )
    assert result.returncode == 3
    assert "server" in result.stderr
    rows, results = rows_of(out), results_of(out)
    assert 0 < results["coverage"]["answered"] == len(rows) < 104
    assert results["scores"]["ceval"]["accuracy"] is None  # most subjects were not answered at all
    assert not carrying(str(tmp_path))


PHASES = {
    "starting": ("never ready", "loading weights"),
    "asking": ("silent", "server ready"),
}


# The other signals are treated as SIGINT is.
@pytest.mark.parametrize(
    ("phase", "number"),
    [
        *itertools.product(PHASES, (signal.SIGINT, signal.SIGKILL)),
        *(("asking", number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)),
        *(pytest.param("asking", number, marks=pytest.mark.slow) for number in (signal.SIGUSR2, signal.SIGXCPU)),
        *(
            pytest.param("starting", number, marks=pytest.mark.slow)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
        ),
    ],
)
@pytest.mark.slow
def test_however_it_is_ended_no_process_is_left(tmp_path: Path, tiny: Path, phase: str, number: signal.Signals) -> None:
    behaviour, sign = PHASES[phase]
    log, out = tmp_path / "log", tmp_path / "out"
    environment = gpu_box(tmp_path, behaviour=behaviour)
    process = start("eval-local", tiny, "--data", "sample", "--out", out, environment=environment, log=log)
    wait_until(lambda: sign in log.read_text())
    if phase == "asking":
        wait_until(lambda: rows_of(out))

    process.send_signal(number)

    assert process.wait(PATIENCE_S) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    wait_until(lambda: not carrying(str(tmp_path)))
    if number != signal.SIGKILL:
        assert "Traceback" not in log.read_text()
        if phase == "asking":
            assert results_of(out)["coverage"]["answered"] == len(rows_of(out)) > 0
            assert "questions answered" in log.read_text()


def test_a_second_interrupt_ends_it_at_once_and_still_leaves_nothing(tmp_path: Path, tiny: Path) -> None:
    log = tmp_path / "log"
    environment = gpu_box(tmp_path, behaviour="never ready")
    process = start("eval-local", tiny, "--data", "sample", "--out", tmp_path, environment=environment, log=log)
    wait_until(lambda: "loading weights" in log.read_text())

    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)

    assert process.wait(PATIENCE_S) == 130
    wait_until(lambda: not carrying(str(tmp_path)))
