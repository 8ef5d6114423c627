"""Whether one run may go on where another ended."""

from typing import Any

import pytest

from bundle.errors import RunError
from bundle.runs.record import require_same

RECORD: dict[str, Any] = {
    "task": "ceval_gen",
    "tasks": [{"name": "ceval_gen", "limit": None, "data_fingerprint": "aa"}],
    "model": {"path": "/models/a", "fingerprint": "ff"},
    "engine": {"name": "lmdeploy", "version": "0.18.0", "arguments": []},
    "sampling": {"temperature": 0.0, "max_out_len": 2048},
    "concurrency": 256,
}


def test_the_same_run_goes_on() -> None:
    require_same(RECORD, RECORD)


def test_where_the_checkpoint_lies_and_how_fast_it_is_asked_does_not_matter() -> None:
    moved = {**RECORD, "model": {"path": "/elsewhere/a", "fingerprint": "ff"}, "concurrency": 1}
    require_same(RECORD, {**moved, "engine": {**RECORD["engine"], "version": "0.18.1"}})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"tasks": [{"name": "cmmlu_gen", "limit": None, "data_fingerprint": "aa"}]}, r"tasks\[0\]\.name"),
        ({"tasks": [{"name": "ceval_gen", "limit": 3, "data_fingerprint": "aa"}]}, r"tasks\[0\]\.limit"),
        ({"tasks": [{"name": "ceval_gen", "limit": None, "data_fingerprint": "bb"}]}, "data_fingerprint"),
        ({"model": {"path": "/models/a", "fingerprint": "00"}}, r"model\.fingerprint"),
        ({"model": {"name": "gpt", "base_url": "http://127.0.0.1/v1"}}, r"model\.name"),
        ({"engine": {"name": "transformers", "version": "5", "arguments": []}}, r"engine\.name"),
        ({"sampling": {"temperature": 0.7, "max_out_len": 2048}}, r"sampling\.temperature"),
        ({"sampling": {"temperature": 0.0, "max_out_len": 2048, "max_seq_len": 9}}, r"sampling\.max_seq_len"),
    ],
)
def test_a_run_that_was_asked_something_else_is_refused_and_it_says_which(change: dict[str, Any], key: str) -> None:
    with pytest.raises(RunError, match=key):
        require_same(RECORD, {**RECORD, **change})


def test_both_values_are_told() -> None:
    with pytest.raises(RunError) as caught:
        require_same(RECORD, {**RECORD, "sampling": {"temperature": 0.7, "max_out_len": 2048}})
    assert caught.value.details == ("sampling.temperature: 0.0 then, 0.7 now",)
