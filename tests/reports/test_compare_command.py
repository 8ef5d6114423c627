"""``bundle compare`` and ``bundle runs`` as a user types them."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from bundle.tasks.catalog import find_task
from tests.program import call
from tests.reports.run_directories import random_outcomes, write_run
from tests.stand_ins.box import ROOT

ENVIRONMENT = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
BASE, NEW, OTHER = "20250101-000000-ceval_gen-a", "20250102-000000-ceval_gen-b", "20250103-000000-cmmlu_gen-c"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all of C-Eval's subjects, one of them better in humanities, and one of another task."""
    folder = tmp_path_factory.mktemp("outputs")
    task = find_task("ceval_gen")
    outcomes = random_outcomes(task, 0.5, seed=1)
    better = {
        subject.name: outcomes[subject.name].replace("0", "1", 3 if subject.group == "humanities" else 0)
        for subject in task.subjects
    }
    write_run(folder / BASE, outcomes, model="base")
    write_run(folder / NEW, better | {"physician": "0" * 10}, model="new\x1b[31m")
    write_run(folder / OTHER, {"anatomy": "1"}, task="cmmlu_gen")
    return folder


def test_two_runs_named_by_the_beginnings_of_their_names_are_compared(out: Path) -> None:
    done = call("compare", "20250101", "20250102", "--out", out, environment=ENVIRONMENT)

    assert done.returncode == 0, done.stderr
    assert "Statistically significant" in done.stdout
    assert "ceval-humanities" in done.stdout
    assert "52 subjects differ significantly" in done.stdout
    assert "\x1b" not in done.stdout
    flips = [line for line in done.stdout.splitlines() if line.startswith(("lost", "won"))]
    assert len(flips) == 10
    assert re.search(r"^lost   [A-D] +[A-D] +[A-D] +Physician +\d+  \S", flips[0])
    assert re.search(r"^\d+ more lost and \d+ more won: --flips \d+, ", done.stdout, re.MULTILINE)


def test_subjects_and_more_flips_are_shown_where_they_are_asked_for(out: Path) -> None:
    done = call("compare", BASE, NEW, "--out", out, "--subjects", "--flips", "500", environment=ENVIRONMENT)

    assert all(f"\n{subject.english} "[:20] in done.stdout for subject in find_task("ceval_gen").subjects)
    assert "more lost" not in done.stdout


def test_several_runs_end_with_all_of_them_in_one_table(tmp_path: Path) -> None:
    for model, law in (("sft-1000", "0000"), ("sft-2000", "0011"), ("sft-3000", "1111")):
        write_run(tmp_path / model, {"law": law, "logic": "01"}, model=model)
    done = call("compare", "sft-1000", "sft-2000", "sft-3000", "--out", tmp_path, environment=ENVIRONMENT)

    assert (done.returncode, done.stderr) == (0, "")
    table = done.stdout.rpartition("ceval_gen\n")[2]
    assert re.findall(r"^sft-\d+", table, re.MULTILINE) == ["sft-1000", "sft-2000", "sft-3000"]
    assert "corrected for 2 comparisons): against sft-1000" in table


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--model", "new"], [NEW]),
        (["--task", "ceval"], [NEW, BASE]),
        (["--task", "ceval", "--model", "b"], [BASE]),
        (["--task", "gen"], []),
    ],
)
def test_runs_are_filtered_by_how_models_and_tasks_begin(out: Path, filters: list[str], expected: list[str]) -> None:
    listed = call("runs", "--out", out, "--json", *filters, environment=ENVIRONMENT)
    assert [one["run"] for one in json.loads(listed.stdout)] == expected


@pytest.mark.parametrize("columns", [80, 70, 50])
def test_it_fits_the_terminal_and_names_stay_whole(out: Path, columns: int) -> None:
    # A terminal of its own: what is shown there is not what is shown to a pipe.
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bundle", "compare", BASE, NEW, "--out", out, "--subjects"],
        env=ENVIRONMENT | {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
    ) as process:
        os.close(theirs)
        text = b""
        while piece := _read(ours):
            text += piece
        os.close(ours)
    assert process.returncode == 0
    assert max(cell_len(line) for line in text.decode().splitlines()) <= columns
    assert "\nceval-stem " in text.decode().replace("\r", "")


def test_all_of_it_is_had_as_json(out: Path, tmp_path: Path) -> None:
    done = call("compare", BASE, NEW, "--out", out, "--json", "-", environment=ENVIRONMENT)
    written = call("compare", BASE, NEW, "--out", out, "--json", tmp_path / "c.json", environment=ENVIRONMENT)

    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert written.stdout.startswith("base base")
    (comparison,) = told["comparisons"]
    assert comparison["verdicts"][0]["standing"] == "better"
    assert len(comparison["rows"]) == 6 + 52
    assert sum(flip["lost"] for flip in comparison["flips"]) == comparison["rows"][0]["lost"]
    assert {"task", "split", "subject", "id", "gold", "base_reply", "new_reply"} < comparison["flips"][0].keys()


def test_each_of_several_runs_is_compared_with_the_base(out: Path, tmp_path: Path) -> None:
    again = write_run(tmp_path / "again", random_outcomes(find_task("ceval_gen"), 0.5, seed=1), model="again")

    done = call("compare", out / BASE, out / NEW, again, environment=ENVIRONMENT)

    assert done.stdout.count("base base") == 2
    assert "No difference: every question is correct in both runs or wrong in both." in done.stdout


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(out: Path) -> None:
    done = call("compare", BASE, OTHER, "--out", out, environment=ENVIRONMENT)

    assert done.returncode == 2
    assert "they used different tasks" in done.stderr
    assert "different tasks: ceval_gen and cmmlu_gen" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((BASE, BASE), "is named twice"),
        ((BASE, "20250109"), "no run 20250109"),
        ((BASE, "2025"), "2025 is ambiguous: several runs"),
    ],
)
def test_runs_that_are_not_there_or_the_same_are_refused(out: Path, arguments: tuple[str, str], said: str) -> None:
    done = call("compare", *arguments, "--out", out, environment=ENVIRONMENT)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_cannot_be_written_is_an_error(out: Path) -> None:
    done = call("compare", BASE, NEW, "--out", out, "--html", "/proc/nowhere/c.html", environment=ENVIRONMENT)

    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_runs_are_listed_for_people_and_for_scripts(out: Path) -> None:
    people = call("runs", "--out", out, environment=ENVIRONMENT)
    scripts = call("runs", "--out", out, "--json", environment=ENVIRONMENT)

    assert [line.split()[0] for line in people.stdout.splitlines()[2:5]] == [
        "20250103-000000",
        "20250102-000000",
        "20250101-000000",
    ]
    assert [one["run"] for one in json.loads(scripts.stdout)] == [OTHER, NEW, BASE]


def test_no_runs_is_said_on_standard_error_and_is_an_empty_list_for_scripts(tmp_path: Path) -> None:
    people = call("runs", "--out", tmp_path, environment=ENVIRONMENT)
    scripts = call("runs", "--out", tmp_path, "--json", environment=ENVIRONMENT)

    assert (people.returncode, people.stdout) == (0, "")
    assert "no runs in" in people.stderr
    assert json.loads(scripts.stdout) == []


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # on Linux the end of a terminal is an error
        return b""
