"""A run is a directory."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import RunError
from bundle.runs.listing import State, list_runs
from bundle.runs.predictions import Prediction, read_predictions
from bundle.runs.record import RunRecord
from bundle.runs.run import Run
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe

PREDICTION = Prediction(
    task="ceval_gen",
    split="val",
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


@pytest.mark.parametrize("character", ["x", "模", "𝒳"])
def test_a_long_name_is_shortened_on_a_character_s_boundary_and_stays_its_own(tmp_path: Path, character: str) -> None:
    labels = [character * 300 + last for last in ("a", "b")]
    with Run.create(tmp_path, labels[0]) as one, Run.create(tmp_path, labels[1]) as two:
        names = [run.directory.name.encode() for run in (one, two)]
        assert all(len(name) <= 16 + 120 for name in names)
        assert names[0][-8:] != names[1][-8:]
        assert names[0].decode()[16:].startswith(character * 20)


def test_a_runs_directory_is_its_users_alone(tmp_path: Path) -> None:
    with Run.create(tmp_path / "out", "label") as run:
        assert run.directory.stat().st_mode & 0o777 == 0o700


def test_a_record_with_a_name_that_is_not_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    with Run.create(tmp_path, "label") as run:
        record = describe(find_task("ceval_gen"), "\udce9")
        run.begin(record, [])
        assert RunRecord.read(run.directory) == record


def test_a_row_has_the_documented_fields_and_an_error_only_where_there_is_one(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.append(PREDICTION)
        run.append(replace(PREDICTION, error="HTTP 500"))

    first, second = map(json.loads, (run.directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    documented = "task split subject id reply answer gold correct finish_reason decided_early prompt_tokens"
    assert list(first) == [*documented.split(), "completion_tokens", "latency_s", "attempts"]
    assert second["error"] == "HTTP 500"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is slow
@given(st.text(st.characters(codec=None, categories=None)))
def test_any_reply_survives_being_written_down(reply: str) -> None:
    one = replace(PREDICTION, reply=reply)
    line = one.to_json()
    assert "\n" not in line
    assert json.loads(line) == {name: value for name, value in asdict(one).items() if value is not None}
    assert Prediction.from_json(line.encode()).reply == reply


def test_a_run_cut_off_at_any_byte_goes_on_with_its_whole_rows(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        for number in range(2):
            run.append(replace(PREDICTION, id=number))
    path = run.directory / "predictions.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Run.resume(run.directory) as again:
            known = [row.id for row in again.rows()]
            assert known == list(range(whole[:cut].count(b"\n")))
            again.append(replace(PREDICTION, id=99))
        assert [row.id for row in read_predictions(run.directory)] == [*known, 99]


def test_zeros_that_a_file_system_leaves_at_the_end_after_a_power_cut_are_no_row(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        run.append(PREDICTION)
    path = run.directory / "predictions.jsonl"
    path.write_bytes(path.read_bytes() + bytes(4096))

    with Run.resume(run.directory) as again:
        assert [*again.rows()] == [PREDICTION]


def test_questions_without_a_reply_and_rows_told_twice_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        run.append(PREDICTION)
        run.append(replace(PREDICTION, id=4, reply=None, answer=None, correct=None, error="HTTP 500"))
        run.append(PREDICTION)

    with Run.resume(run.directory) as again:
        assert [*again.rows()] == [PREDICTION]
    assert read_predictions(run.directory) == [PREDICTION]


@pytest.mark.parametrize("damage", [b"{\n", b"[]\n", b'{"subject": "law"}\n', b"\xff\n", b"\n"])
def test_a_damaged_row_is_an_error_that_names_its_line(tmp_path: Path, damage: bytes) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        run.append(PREDICTION)
    path = run.directory / "predictions.jsonl"
    path.write_bytes(path.read_bytes() + damage + path.read_bytes())
    with pytest.raises(RunError, match=r"predictions\.jsonl, line 2"):
        Run.resume(run.directory)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        with pytest.raises(RunError, match="in use"):
            Run.resume(run.directory)
    with Run.resume(run.directory):
        pass


@pytest.fixture
def locks_of_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none to be had in a test: NFS locks no directories, for what is locked must be open for writing."""

    def lock(descriptor: int, how: int, real: Callable[[int, int], None] = fcntl.flock) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock)


@pytest.mark.usefixtures("locks_of_nfs")
def test_where_directories_cannot_be_locked_a_run_in_use_is_refused_as_well(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.write("run.json", {})
        with pytest.raises(RunError, match="in use"):
            Run.resume(run.directory)
    with Run.resume(run.directory):
        pass
    with Run.create(tmp_path, "r") as nothing:
        pass
    assert not nothing.directory.exists()


@pytest.mark.usefixtures("locks_of_nfs")
def test_where_directories_cannot_be_locked_a_run_in_progress_is_seen_as_such(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as run:
        run.begin(describe(find_task("ceval_gen"), "tiny"), [])
        (listed,) = list_runs(tmp_path)
        assert listed.state is State.RUNNING
    (listed,) = list_runs(tmp_path)
    assert listed.state is State.CUT_OFF


def test_where_nothing_can_be_locked_a_run_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", lock)
    with Run.create(tmp_path, "r") as run:
        run.append(PREDICTION)

    assert read_predictions(run.directory) == [PREDICTION]


def test_a_directory_that_tells_nothing_is_not_kept(tmp_path: Path) -> None:
    with Run.create(tmp_path, "r") as nothing:
        nothing.server_log.touch()
    with Run.create(tmp_path, "r") as server_failed:
        server_failed.server_log.write_text("CUDA out of memory")
    with Run.create(tmp_path, "r") as asked:
        asked.write("run.json", {})

    assert set(tmp_path.iterdir()) == {server_failed.directory, asked.directory}


def test_a_directory_without_a_run_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"contains no run\.json"):
        Run.resume(tmp_path)


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
