"""The table a run ends with, on a terminal of 80 columns and in a pipe."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from bundle.reports.screen.tables import results_table
from bundle.runs.recorded_run import RecordedRun, read_recorded_run
from bundle.runs.scoring import Score
from bundle.tasks.catalog import find_task
from tests.openai_api import remote_api
from tests.patience import PATIENCE_S
from tests.reports.run_directories import write_run

CEVAL = find_task("ceval_gen")
MARKS = ("best", "worst")


def shown(run: RecordedRun, *, all_subjects: bool = False, width: int = 80, colour: bool = False) -> str:
    """The tables of a run."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    for task in run.tasks:
        names = run.score_names(task)
        scores = {own: run.scores[name] for own, name in names.items() if name in run.scores}
        console.print(results_table(task, scores, all_subjects=all_subjects))
    return stream.getvalue()


def marked(text: str, mark: str) -> list[str]:
    """The lines with this mark."""
    return [line for line in text.splitlines() if f" {mark} " in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """No two subjects are equally good."""
    right = {subject.name: place * 37 % 53 for place, subject in enumerate(CEVAL.subjects, 1)}
    outcomes = {name: "1" * count + "0" * (52 - count) for name, count in right.items()}
    return read_recorded_run(write_run(tmp_path_factory.mktemp("runs") / "run", outcomes))


@pytest.mark.parametrize("all_subjects", [False, True])
def test_no_line_is_wider_than_80_columns_and_no_name_is_cut(run: RecordedRun, all_subjects: bool) -> None:
    text = shown(run, all_subjects=all_subjects)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "…" not in text
    for subject in CEVAL.subjects if all_subjects else ():
        assert subject.chinese in text
        assert subject.english in text


def test_groups_come_first_and_then_only_the_best_and_the_worst(run: RecordedRun) -> None:
    lines = shown(run).splitlines()
    assert lines[0].strip() == "ceval_gen"
    assert lines[3].startswith("ceval, 52 subjects")
    assert [line.split(",")[0] for line in lines[4:9]] == list(CEVAL.groups)[1:]
    best, worst = (marked("\n".join(lines), mark) for mark in MARKS)
    assert len(best) == len(worst) == 3
    assert lines[-1].startswith("46 more subjects: use --all-subjects")


def test_the_best_stand_best_first_and_the_worst_worst_first(run: RecordedRun) -> None:
    text = shown(run)
    best, worst = ([float(line.split()[-3]) for line in marked(text, mark)] for mark in MARKS)
    accuracies = sorted(round(score.accuracy or 0, 2) for name, score in run.scores.items() if name not in CEVAL.groups)
    assert best == accuracies[:-4:-1]
    assert worst == accuracies[:3]


def test_all_subjects_are_shown_in_the_tasks_order_when_asked_for(run: RecordedRun) -> None:
    text = shown(run, all_subjects=True)
    assert "--all-subjects" not in text
    places = [text.index(subject.english) for subject in CEVAL.subjects]
    assert places == sorted(places)
    assert marked(text, "best")
    assert marked(text, "worst")


def test_few_subjects_are_all_shown(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"law": 5 * "11", "logic": 5 * "10", "marxism": 5 * "00"})
    text = shown(read_recorded_run(directory))
    assert re.search("Law 法学 +best +100.00", text)
    assert re.search("Logic 逻辑学 +50.00", text)
    assert re.search("Marxism 马克思主义基本原理 +worst +0.00", text)


def test_where_no_group_is_complete_many_subjects_are_all_shown(tmp_path: Path) -> None:
    some = {subject.name: "10" for subject in CEVAL.subjects if subject.name != "law" and subject.group != "stem"}
    del some["marxism"], some["physician"]
    text = shown(read_recorded_run(write_run(tmp_path / "run", some)))
    assert "--all-subjects" not in text
    assert text.count("50.00") == len(some) == 29


def test_those_that_tie_with_the_last_one_shown_are_counted(tmp_path: Path) -> None:
    outcomes = {subject.name: 5 * "00" for subject in CEVAL.subjects}
    outcomes |= {"law": 5 * "11", "logic": 5 * "10", "marxism": 5 * "10"}
    text = shown(read_recorded_run(write_run(tmp_path / "run", outcomes)))
    assert "College Programming" not in text
    assert re.search("Computer Architecture 计算机组成 +worst +0.00 .*\nand 46 more +worst +0.00", text)
    assert [float(line.split()[-3]) for line in marked(text, "best")] == [100.0, 50.0, 50.0]


def test_a_subject_of_fewer_than_ten_answers_is_neither_the_best_nor_the_worst(tmp_path: Path) -> None:
    outcomes = {"law": 5 * "11", "logic": 5 * "10", "marxism": "000000000x", "physician": "11"}
    text = shown(read_recorded_run(write_run(tmp_path / "run", outcomes)))
    assert re.search("Law 法学 +best +100.00", text)
    assert re.search("Logic 逻辑学 +worst +50.00", text)
    assert re.search("Marxism 马克思主义基本原理 +0.00", text)


def test_an_interval_stands_beside_a_score_also_where_all_are_right(tmp_path: Path) -> None:
    text = shown(read_recorded_run(write_run(tmp_path / "run", {"law": "11", "logic": "xx"})))
    assert re.search(r"Law 法学 +100.00 +34.2–100.0 +2/2", text)
    assert re.search(r"Logic 逻辑学 +– +0/2", text)


def test_groups_left_out_are_counted(tmp_path: Path) -> None:
    some = {subject.name: "10" for subject in CEVAL.subjects if subject.group == "stem"}
    text = shown(read_recorded_run(write_run(tmp_path / "run", some)))
    assert "ceval-stem, 20 subjects" in text
    assert "4 groups left out: not all subjects asked" in text


@pytest.mark.parametrize("outcome", ["1" * 12, "0" * 12, "x" * 12])
def test_where_all_are_the_same_none_is_the_best_or_the_worst(tmp_path: Path, outcome: str) -> None:
    outcomes = {subject.name: outcome for subject in CEVAL.subjects}
    text = shown(read_recorded_run(write_run(tmp_path / "run", outcomes)))
    assert not marked(text, "best")
    assert not marked(text, "worst")
    assert "52 more subjects" in text


def test_a_subject_without_a_reply_has_a_dash_and_is_not_the_worst(tmp_path: Path) -> None:
    text = shown(read_recorded_run(write_run(tmp_path / "run", {"law": "xx", "logic": "10", "marxism": "11"})))
    assert re.search("Law 法学 +– +0/2", text)


def test_a_split_with_secret_answers_has_no_score_and_is_told_apart(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", {"val/law": "10", "test/law": "11"}, task="ceval_gen_2daf24")
    text = shown(read_recorded_run(directory))
    assert re.search(r"Law \(val\) 法学 +50.00", text)
    assert re.search(r"Law \(test\) 法学 +– +2/2", text)


def test_names_from_a_file_are_neither_markup_nor_obeyed_by_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("question,answer,kind\n1?,A,[red]x\x1b[31m\n2?,B,b\n", encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        'description = "own"\nrows = { file = "own.csv", subject = "kind" }\n'
        'prompt = { user = "{question}", examples = 0 }\nanswer = { rule = "first_capital" }\n',
        encoding="utf-8",
    )
    task = find_task(str(tmp_path / "own.toml"))
    scores: Mapping[str, Score] = {
        task.score_name("questions", subject.name): Score(50.0, None, 2, 2) for subject in task.subjects
    }
    stream = io.StringIO()
    Console(file=stream, width=80).print(results_table(task, scores, all_subjects=False))
    assert r"[red]x\x1b[31m" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_colour_is_only_on_the_marks(run: RecordedRun) -> None:
    text = shown(run, colour=True)
    coloured = re.findall(r"\x1b\[3\dm([^\x1b]*)\x1b", text)
    assert {piece.strip() for piece in coloured} == {"best", "worst"}


@pytest.mark.parametrize(("answers", "colours"), [(10, [("best", "32"), ("worst", "31")]), (9, [])])
def test_the_best_are_green_and_the_worst_red_from_ten_answers_on(
    tmp_path: Path, answers: int, colours: list[tuple[str, str]]
) -> None:
    outcomes = {"law": "1" * answers, "logic": "0" * answers}
    text = shown(read_recorded_run(write_run(tmp_path / "run", outcomes)), colour=True)
    found = re.findall(r"\x1b\[(3\d)m *([a-z]+) *\x1b", text)
    assert sorted((mark, colour) for colour, mark in found) == colours


def test_the_program_fills_a_terminal_of_80_columns_and_no_more(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    unwanted = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", str(tmp_path)]
        program = subprocess.Popen(
            [sys.executable, "-m", "bundle", "eval-remote", "m", *options],
            env={**environment, "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        output = read_to_end(ours)
        assert program.wait(PATIENCE_S) == 0
    os.close(ours)
    table = output[output.index("ceval, 52 subjects") : output.index("more subjects:")]
    plain = re.sub(r"\x1b\[[\d;]*m", "", table)
    assert max(cell_len(line.rstrip("\r")) for line in plain.split("\n")) <= 80
    assert "\x1b[1m" in table


def read_to_end(terminal: int) -> str:
    """What a program writes to its terminal, until it ends."""
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody holds the other end
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode(errors="replace")
