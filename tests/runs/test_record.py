"""``run.json``, and whether a run may be resumed with other settings."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bundle.config.files import file_names
from bundle.errors import RunError
from bundle.runs.record import (
    ContextRecord,
    EngineRecord,
    LocalModelRecord,
    RemoteModelRecord,
    RunRecord,
    SamplingRecord,
)
from bundle.runs.same_settings import require_same, require_same_plan
from bundle.runs.task_record import TaskRecord
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe

LOCAL = LocalModelRecord(path="/models/a", architecture="Llama", weight_bytes=1, quantization=None, fingerprint="ff")
ENGINE = EngineRecord(name="lmdeploy", version="0.18.0", arguments=())
RECORD = describe(find_task("ceval_gen"), "").model_copy(update={"model": LOCAL, "engine": ENGINE, "requests": None})


def changed(**parts: Any) -> RunRecord:
    return RECORD.model_copy(update=parts)


def of_task(**parts: Any) -> dict[str, Any]:
    return {"tasks": (RECORD.tasks[0].model_copy(update=parts),)}


def test_a_record_is_read_as_it_was_written() -> None:
    assert RunRecord.model_validate(RECORD.to_json()) == RECORD


def test_a_record_has_the_documented_keys_and_those_of_a_later_version_are_kept() -> None:
    keys = "task data tasks model engine sampling concurrency adaptive full_replies prefix_order versions hardware"
    assert list(RECORD.to_json()) == keys.split()

    later = RECORD.to_json() | {"replicas": 8}
    assert RunRecord.model_validate(later).to_json() == later


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("concurrency", "5"),
        ("concurrency", 5.0),
        ("concurrency", True),
        ("adaptive", 1),
        ("adaptive", "true"),
        ("sampling temperature", "0"),
        ("sampling max_out_len", "8"),
        ("tasks 0 examples", "5"),
        ("tasks 0 limit", "3"),
        ("hardware cores", "2"),
    ],
)
def test_a_value_of_another_type_is_not_taken_for_what_it_looks_like(tmp_path: Path, path: str, value: Any) -> None:
    content = json.loads(json.dumps(RECORD.to_json()))
    *above, last = (int(name) if name.isdecimal() else name for name in path.split())
    functools.reduce(lambda part, name: part[name], above, content)[last] = value
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"run\.json is damaged: key '.*must be"):
        RunRecord.read(tmp_path)


def test_a_whole_number_is_a_temperature(tmp_path: Path) -> None:
    content = RECORD.to_json() | {"sampling": RECORD.sampling.model_dump() | {"temperature": 0}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert RunRecord.read(tmp_path) == RECORD


def test_a_record_tells_apart_tasks_that_ask_or_score_differently() -> None:
    tasks = [find_task(name) for name in file_names("configs")]
    records = [TaskRecord.of(task, shape=task.shape).model_dump() for task in tasks]
    for record in records:
        record.pop("name")
    assert all(one != other for number, one in enumerate(records) for other in records[:number])


def test_the_same_run_can_be_resumed() -> None:
    require_same(RECORD, RECORD)


def test_where_the_checkpoint_is_and_how_fast_it_is_asked_does_not_matter() -> None:
    moved = LOCAL.model_copy(update={"path": "/elsewhere/a"})
    newer = ENGINE.model_copy(update={"version": "0.18.1", "gpus": ("NVIDIA H100",)})
    require_same(RECORD, changed(model=moved, engine=newer, concurrency=1))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (of_task(name="cmmlu_gen"), r"--task: ceval_gen then, cmmlu_gen now"),
        (of_task(limit=3), r"--limit: all then, 3 now"),
        (of_task(subjects=("law",)), r"--subjects: all then, law now"),
        (of_task(data_fingerprint="bb"), "--data, fingerprint: "),
        ({"model": LOCAL.model_copy(update={"fingerprint": "00"})}, r"checkpoint, fingerprint: "),
        ({"model": RemoteModelRecord(name="gpt", base_url="http://127.0.0.1/v1")}, r"--base-url: none then"),
        ({"engine": ENGINE.model_copy(update={"name": "transformers"})}, r"--engine: .* then, transformers now"),
        (
            {"engine": ENGINE.model_copy(update={"file_arguments": ("--quant-policy", "8")})},
            r"model file, engine's args: none then, --quant-policy 8 now",
        ),
        (
            {"sampling": SamplingRecord(temperature=0.7, max_out_len=2048, max_seq_len=None)},
            r"--temperature: 0\.0 then",
        ),
        (
            {"sampling": SamplingRecord(temperature=0.0, max_out_len=2048, max_seq_len=9)},
            r"--max-seq-len: no limit",
        ),
        (
            {"sampling": RECORD.sampling.model_copy(update={"prompt_date": "2026-05-06"})},
            r"date in the chat template's prompts: none then, 2026-05-06 now",
        ),
    ],
)
def test_a_run_that_asked_something_else_is_not_resumed_and_the_setting_is_named(
    change: dict[str, Any], key: str
) -> None:
    with pytest.raises(RunError, match="settings differ") as caught:
        require_same(RECORD, changed(**change))
    assert re.search(key, "\n".join(caught.value.details))


@pytest.mark.parametrize("proved", [{"prompt_date": "2026-05-06"}, {"extra_body": {"stop_token_ids": [7]}}])
def test_what_the_tokenizers_proof_finds_out_does_not_matter_to_a_run_that_asks_nothing_more(
    proved: dict[str, Any],
) -> None:
    then = changed(sampling=RECORD.sampling.model_copy(update=proved))
    require_same(then, RECORD, asks=False)
    with pytest.raises(RunError, match="settings differ"):
        require_same(then, RECORD)


def test_both_values_of_a_setting_are_shown() -> None:
    with pytest.raises(RunError) as caught:
        require_same(RECORD, changed(sampling=SamplingRecord(temperature=0.7, max_out_len=2048, max_seq_len=None)))
    assert caught.value.details == ("--temperature: 0.0 then, 0.7 now",)


def test_of_a_plan_only_what_is_known_is_compared() -> None:
    tasks = [one.model_copy(update={"data_fingerprint": None, "available": None}) for one in RECORD.tasks]
    sampling = RECORD.sampling.model_copy(update={"extra_body": {}})
    with_extra = changed(sampling=RECORD.sampling.model_copy(update={"extra_body": {"top_k": 1}}))
    require_same_plan(with_extra, tasks, sampling)
    require_same_plan(with_extra, tasks, sampling, RECORD.served)
    with pytest.raises(RunError, match=r"settings differ from the original run \(--engine\)"):
        require_same_plan(
            RECORD, tasks, sampling, RECORD.served._replace(engine=ENGINE.model_copy(update={"name": "vllm"}))
        )


def test_another_context_is_another_question_unless_an_older_run_has_not_recorded_it() -> None:
    now = changed(context=ContextRecord(max_tokens=900, set_by="--session-len", counted_with=None))
    require_same(RECORD, now)
    before = changed(context=ContextRecord(max_tokens=1000, set_by="--session-len", counted_with=None))
    with pytest.raises(RunError) as caught:
        require_same(before, now)
    assert caught.value.details == ("context length: 1000 then, 900 now",)
