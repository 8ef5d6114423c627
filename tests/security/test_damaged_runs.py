"""Every file of a run's directory, damaged in every way, read by every command: the right number, or what is wrong.

A crashed file system leaves zeros and beginnings of files, people copy the wrong one.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bundle.errors import RunError
from bundle.reports.board.board import Reader
from bundle.reports.formats import FORMATS
from bundle.runs.listing import State, list_run
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.results import Results
from tests.openai_api import Call, ScriptedApi, completion, letter, remote_api
from tests.program import call

FILES = ("run.json", "prompts.jsonl", "predictions.jsonl", "results.json")
WRITTEN = sorted(FORMATS.keys() - {"submission", "model-card"})
"""The others refuse these questions, sound or not."""
SUBJECTS = "law,logic,physician"


class Runs(NamedTuple):
    """Two finished runs of the same questions with other scores, and the server of the first."""

    api: ScriptedApi
    sound: Path
    other: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    async def same(call: Call) -> Any:
        return completion("A")

    with remote_api(letter) as api, remote_api(same) as other:
        sound, another = (
            _evaluated(one, tmp_path_factory.mktemp(name)) for one, name in ((api, "sound"), (other, "other"))
        )
        yield Runs(api, sound, another)


def _evaluated(api: ScriptedApi, out: Path) -> Path:
    done = call(*_command(api, out), environment={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def _command(api: ScriptedApi, out: Path) -> list[object]:
    return ["eval-remote", "m", "--base-url", api.url, "--data", "sample", "--subjects", SUBJECTS, "--out", out]


@pytest.fixture
def run(made: Runs, tmp_path: Path) -> Path:
    """A copy that may be damaged, beside a sound one."""
    shutil.copytree(made.sound, tmp_path / "20250102-000000-sound")
    return shutil.copytree(made.sound, tmp_path / "20250101-000000-damaged")


def in_place(make: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    def damage(path: Path, other: Path) -> None:
        path.unlink()
        make(path)

    return damage


def bytewise(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], object]:
    return lambda path, other: path.write_bytes(change(path.read_bytes()))


def valuewise(change: Callable[[Any], Any]) -> Callable[[Path, Path], object]:
    """Change every value of the last row, or of the only object."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(one) for key, one in value.items()}
        return [*map(changed, value)] if isinstance(value, list) else change(value)

    def damage(path: Path, other: Path) -> None:
        text = path.read_text(encoding="utf-8")
        *rows, last = text.splitlines() if path.suffix == ".jsonl" else [text]
        path.write_text("\n".join([*rows, json.dumps(changed(json.loads(last)))]) + "\n", encoding="utf-8")

    return damage


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda path, other: path.unlink(),
    "empty": bytewise(lambda content: b""),
    "zeros": bytewise(lambda content: bytes(len(content))),
    "5,000 zeros": bytewise(lambda content: bytes(5000)),
    "zeros in the middle": bytewise(lambda content: content[:300] + bytes(200) + content[500:]),
    "zeros for the end": bytewise(lambda content: content[: len(content) // 2] + bytes(len(content) // 2)),
    "zeros after the end": bytewise(lambda content: content + bytes(4096)),
    "zeros for its first row": bytewise(lambda content: bytes(content.index(b"\n")) + content[content.index(b"\n") :]),
    "its beginning": bytewise(lambda content: content[: len(content) // 2]),
    "without its last row": bytewise(lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    "one row twice": bytewise(lambda content: content + content.splitlines(keepends=True)[-1]),
    "a directory": in_place(Path.mkdir),
    "a pipe": in_place(os.mkfifo),
    "a link to itself": in_place(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path, other: path.chmod(0),
    "no text": bytewise(lambda content: b"\xff\xfe" + content),
    "huge numbers": valuewise(lambda value: 10**4000 if is_number(value) else value),
    "numbers as text": valuewise(lambda value: str(value) if is_number(value) else value),
    "text as numbers": valuewise(lambda value: 1 if isinstance(value, str) else value),
    "nothing for everything": valuewise(lambda value: None),
    "another run's": lambda path, other: shutil.copy(other / path.name, path),
}
ALL = [pytest.param((file, damage), id=f"{file}, {damage}") for file in FILES for damage in DAMAGES]


@pytest.fixture(params=ALL)
def damaged(request: pytest.FixtureRequest, run: Path, made: Runs) -> Path:
    """A run with one of its files damaged."""
    file, damage = request.param
    if damage == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    DAMAGES[damage](run / file, made.other)
    return run


def loaded(run: Path) -> RecordedRun | None:
    """The run; None where it is refused, by its name and with a remedy."""
    try:
        return read_recorded_run(run)
    except RunError as error:
        refused = error
    assert run.name in refused.message
    assert refused.remedy
    return None


def test_a_damaged_run_has_its_scores_or_none(damaged: Path, made: Runs) -> None:
    found, sound = loaded(damaged), read_recorded_run(made.sound)
    if found is not None:
        assert found.scores == sound.scores
        assert (found.total, found.answered) == (sound.total, sound.answered)

    listed = list_run(damaged)
    if _has_results_of(damaged, made.other):
        return  # the list looks at results.json and counts rows, and these are as many
    if listed.state is State.DONE:
        assert [one.score for one in listed.headlines] == [one.score for one in list_run(made.sound).headlines]
    else:
        assert (found is None, listed.state) in [
            (True, State.DAMAGED),
            (False, State.CUT_OFF),
            (True, State.NEVER_ASKED),
        ]

    board = Reader(damaged.parent, None).read()
    shown = [one.run.name for table in board.tables for one in table.runs]
    assert (damaged.name in shown) == (found is not None)
    assert (damaged.name in [one.directory.name for one in (*board.damaged, *board.never_asked)]) == (found is None)
    assert len({one.directory for one in board.damaged}) == len(board.damaged)


def _has_results_of(one: Path, other: Path) -> bool:
    path = one / "results.json"
    return path.is_file() and path.read_bytes() == (other / "results.json").read_bytes()


@pytest.mark.slow
def test_every_command_shows_them_or_says_why_not(damaged: Path) -> None:
    is_sound = loaded(damaged) is not None
    beside = damaged.parent / "20250102-000000-sound"
    commands = [["rescore", damaged], ["compare", beside, damaged]]
    commands += [["report", damaged, "--format", name, "--allow-partial"] for name in WRITTEN]
    for arguments in commands:
        ended = call(*arguments, environment={"PATH": os.environ["PATH"]})
        assert ended.returncode == (0 if is_sound else 2), (arguments, ended.stderr)
        assert is_sound or "hint:" in ended.stderr
        assert "Traceback" not in ended.stderr
    listed = call("runs", "--out", damaged.parent, environment={"PATH": os.environ["PATH"]})
    assert (listed.returncode, beside.name[:15] in listed.stdout) == (0, True)


def test_it_is_resumed_to_the_same_scores_or_refused_before_anything_is_asked(damaged: Path, made: Runs) -> None:
    asked = len(made.api.bodies)
    ended = call(*_command(made.api, damaged.parent), "--resume", damaged, environment={"PATH": os.environ["PATH"]})
    assert ended.returncode in (0, 2), ended.stderr
    assert "Traceback" not in ended.stderr
    if ended.returncode == 2:
        assert "hint:" in ended.stderr
        assert len(made.api.bodies) == asked
    else:
        found, sound = read_recorded_run(damaged), read_recorded_run(made.sound)
        assert (found.scores, found.answered) == (sound.scores, sound.total)


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - {"another run's"}))
def test_of_a_run_that_was_cut_off_no_part_passes_for_the_whole(damage: str, run: Path, made: Runs) -> None:
    if damage == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    (run / "results.json").unlink()
    rows = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "predictions.jsonl").write_bytes(b"".join(rows[:-2]))
    for file in ("prompts.jsonl", "predictions.jsonl"):
        copy = shutil.copytree(run, run.with_name(f"{run.name}-{file}"))
        DAMAGES[damage](copy / file, made.other)
        if (found := loaded(copy)) is not None:
            assert found.total == read_recorded_run(made.sound).total
            assert found.answered < found.total
            assert "answered" in found.partial


def test_the_replies_of_another_run_are_not_this_one_s(run: Path, made: Runs) -> None:
    shutil.copy(made.other / "predictions.jsonl", run)
    with pytest.raises(RunError, match=r"predictions\.jsonl scores .* not the .* that results\.json says"):
        read_recorded_run(run)


def test_lost_replies_are_asked_again_once_the_results_are_removed(run: Path, made: Runs) -> None:
    (run / "predictions.jsonl").write_bytes(b"")
    asked, command = len(made.api.bodies), (*_command(made.api, run.parent), "--resume", run)
    environment = {"PATH": os.environ["PATH"]}

    refused = call(*command, environment=environment)
    assert "predictions.jsonl has 0 of the 6 replies that results.json counts" in refused.stderr
    assert list_run(run).fault == f"{run}/predictions.jsonl has 0 of the 6 replies that results.json counts."

    (run / "results.json").unlink()
    assert call(*command, environment=environment).returncode == 0
    assert len(made.api.bodies) == asked + 6
    assert (results := Results.read(run)) is not None
    assert results.coverage.answered == 6


def test_a_prompts_file_is_written_again_where_nothing_is_asked(run: Path, made: Runs) -> None:
    before = (run / "prompts.jsonl").read_bytes()
    (run / "prompts.jsonl").write_bytes(before[:100])
    assert (
        call(*_command(made.api, run.parent), "--resume", run, environment={"PATH": os.environ["PATH"]}).returncode == 0
    )
    assert (run / "prompts.jsonl").read_bytes() == before
