"""A run is a directory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import RunError
from bundle.runs import Prediction, Run, read_predictions

PREDICTION = Prediction(
    subject="law",
    id=3,
    reply="答案是A。\n",
    answer="A",
    gold="B",
    correct=False,
    finish_reason="stop",
    decided_early=False,
    prompt_tokens=100,
    completion_tokens=4,
    latency_s=0.25,
    attempts=1,
)


def test_two_runs_of_the_same_second_get_directories_of_their_own(tmp_path: Path) -> None:
    with Run.create(tmp_path, "ceval_gen-tiny") as one, Run.create(tmp_path, "ceval_gen-tiny") as two:
        assert one.directory != two.directory


def test_a_row_has_the_documented_fields_and_an_error_only_where_there_is_one(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.append(PREDICTION)
        run.append(replace(PREDICTION, error="HTTP 500"))

    first, second = read_predictions(run.directory)
    documented = "subject id reply answer gold correct finish_reason decided_early prompt_tokens completion_tokens"
    assert list(first) == [*documented.split(), "latency_s", "attempts"]
    assert second["error"] == "HTTP 500"


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_reply_survives_being_written_down(reply: str) -> None:
    line = replace(PREDICTION, reply=reply).to_json()
    assert "\n" not in line
    assert json.loads(line.encode()) == json.loads(line)
    assert json.loads(line)["reply"] == reply


def test_a_last_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.append(PREDICTION)
        run.append(PREDICTION)
    path = run.directory / "predictions.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(list(read_predictions(run.directory))) == 1


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        Run.create(tmp_path / "file", "r")


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {"题": "目"})
        with pytest.raises(TypeError):
            run.write("run.json", {"no": object()})

    assert json.loads((run.directory / "run.json").read_text(encoding="utf-8")) == {"题": "目"}
