"""Whole runs with a real vLLM, and with one that is killed."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from bundle.checkpoints._safetensors import read_safetensors_header
from bundle.checkpoints.families import make_family_checkpoint
from bundle.checkpoints.internlm2 import rewrite_as_llama
from tests.patience import wait_until
from tests.program import results_of, rows_of, run
from tests.real_vllm.box import SAMPLE
from tests.real_vllm.conftest import MakeBox

LAW = (
    "--subjects",
    "law,logic,accountant,physician,art_studies,marxism,high_school_physics,probability_and_statistics",
)


def test_a_whole_run_answers_as_the_transformers_engine_does_and_leaves_nothing(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--engine", "vllm", "--full-replies", "--", "--dtype", "float32")
    box.until_answered(1, process)
    box.api_server()
    assert process.wait() == 0, box.log.read_text()
    box.check_nothing_is_left()

    assert box.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}
    record = json.loads(next(box.out.glob("*/run.json")).read_text())
    assert record["engine"]["name"] == "vllm"
    assert record["engine"]["dtype"] == "float32"
    assert record["engine"]["version"].endswith("+cpu")

    other = make_box()
    other.run(tiny, "--engine", "transformers", "--full-replies", *LAW, "--", "--dtype", "float32")
    expected = {key: (row["reply"], row["finish_reason"], row["prompt_tokens"]) for key, row in other.rows().items()}
    rows = box.rows()
    found = {key: (rows[key]["reply"], rows[key]["finish_reason"], rows[key]["prompt_tokens"]) for key in expected}
    assert len(expected) == 16
    assert found == expected


def test_a_reply_ends_where_the_template_ends_a_turn_although_no_file_says_so(
    make_box: MakeBox, tiny: Path, tmp_path: Path
) -> None:
    # A Llama checkpoint: vLLM serves it as it is, where InternLM2's conversion would list the end mark.
    unlisted = shutil.copytree(rewrite_as_llama(tiny, tmp_path / "converted", say=print), tmp_path / "unlisted")
    (unlisted / "generation_config.json").unlink()
    box = make_box()
    said = box.run(unlisted, "--engine", "vllm", "--subjects", "law", "--full-replies")
    assert "sending it with every request (stop_token_ids)" in said
    assert {row["finish_reason"] for row in box.rows().values()} == {"stop"}
    assert {row["reply"] for row in box.rows().values()} <= set("ABCD")


def test_of_two_formats_that_of_hugging_face_is_served(make_box: MakeBox, tmp_path: Path) -> None:
    model = tmp_path / "mistral"
    make_family_checkpoint(model, "mistral")
    shard = (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(read_safetensors_header(shard).tensors, shard.name)
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name in ("consolidated.safetensors", "params.json", "tekken.json"):  # none of which it looks into
        (model / name).write_text("{}")
    box = make_box()
    box.run(model, "--engine", "vllm", "--subjects", "law", "--full-replies")
    assert {row["reply"] for row in box.rows().values()} <= set("ABCD")


def test_the_api_server_and_then_its_engine_are_killed_and_no_answer_is_lost(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    # Few at a time, so that both deaths come in the middle.
    process = box.start(tiny, "--engine", "vllm", "--concurrency", 4, "--full-replies")
    box.until_answered(10, process)
    box.worker()
    box.api_server().send_signal(signal.SIGKILL)
    box.until_answered(50, process)
    box.engine().send_signal(signal.SIGKILL)
    assert process.wait() == 0, box.log.read_text()
    assert box.results()["coverage"] == {"total": SAMPLE, "answered": SAMPLE, "failed": 0}
    assert len(box.rows()) == SAMPLE
    assert box.log.read_text().count("server ready after") == 3, box.log.read_text()
    box.check_nothing_is_left()


def test_what_a_run_killed_with_its_guardian_leaves_is_found_and_ended_by_doctor(make_box: MakeBox, tiny: Path) -> None:
    box = make_box()
    process = box.start(tiny, "--engine", "vllm", "--concurrency", 1, "--full-replies")
    box.until_answered(1, process)
    survivors = [box.engine(), box.worker()]
    guardian = box.api_server().parent()
    assert guardian is not None
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that neither acts on the other's death
        process.send_signal(number)
        guardian.send_signal(number)
    process.wait()
    guardian.wait()
    assert all(one.is_running() for one in survivors)

    result = run("doctor", "--clean", "--data", "sample", environment=box.environment)

    for one in survivors:
        assert f"process {one.pid}," in result.stdout
    assert not box.processes()
    assert box.shared_memory
    wait_until(lambda: not [path for path in box.shared_memory if path.exists()])


@pytest.fixture
def talkative(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint that goes on after its letter until it is stopped: it knows no end of a turn."""
    import torch  # imported late: slow, and these tests are skipped more often than not
    from safetensors.torch import load_file, save_file

    directory = tmp_path / "talkative"
    shutil.copytree(tiny, directory)
    weights = load_file(directory / "model.safetensors")
    ends = json.loads((directory / "generation_config.json").read_text())["eos_token_id"]
    weights["output.weight"][torch.tensor(ends)] = 0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_early_decisions_end_generation_at_the_server_and_change_no_score(
    make_box: MakeBox, talkative: Path, tmp_path: Path
) -> None:
    box, generated, found = make_box(), [], []
    with box.server(talkative, "--max-num-seqs", 32, "--dtype", "float32") as base_url:
        for name, options in (("early", ()), ("whole", ("--full-replies",))):
            before, out = box.metric("vllm:generation_tokens_total"), tmp_path / name
            box.run_remote(base_url, out, "--concurrency", 32, "--max-out-len", 512, *options)
            after = box.metric("vllm:generation_tokens_total")
            assert before is not None
            assert after is not None
            generated.append(after - before)
            found.append({(row["subject"], row["id"]): row for row in rows_of(out)})
            assert results_of(out)["coverage"]["answered"] == SAMPLE
    early, whole = found
    assert {key: row["answer"] for key, row in early.items()} == {key: row["answer"] for key, row in whole.items()}
    assert all(whole[key]["reply"].startswith(row["reply"]) for key, row in early.items())
    assert sum(row["decided_early"] for row in early.values()) > SAMPLE / 2
    assert generated[1] == 512 * SAMPLE
    assert 0 < generated[0] <= 0.5 * generated[1]  # a quiet machine has 0.2; a busy one generates more before it hears
