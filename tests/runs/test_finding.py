"""What a run may be called on the command line."""

from pathlib import Path

import pytest

from bundle.errors import RunError
from bundle.runs.finding import LATEST, find_run, shortest_name
from bundle.tasks.catalog import find_task
from tests.reports.run_directories import describe, write_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three runs of two models; the newest is damaged."""
    write_run(tmp_path / "20260101-000000-ceval_gen-sft-1000", {"law": "1"}, model="sft-1000")
    write_run(tmp_path / "20260102-000000-ceval_gen-sft-1000", {"law": "1"}, model="sft-1000")
    write_run(tmp_path / "20260103-000000-ceval_gen-sft-2000", {"law": "1"}, model="sft-2000")
    write_run(tmp_path / "20260104-000000-ceval_gen-sft-1000", {"law": "1"}, model="sft-1000")
    (tmp_path / "20260104-000000-ceval_gen-sft-1000" / "run.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("called", "day"),
    [
        ("20260102-000000-ceval_gen-sft-1000", "20260102"),
        ("20260101", "20260101"),
        ("sft-1000", "20260102"),
        ("sft-2000", "20260103"),
    ],
)
def test_a_run_is_found_by_name_beginning_and_model(out: Path, called: str, day: str) -> None:
    assert find_run(Path(called), out).name.startswith(day)


def test_checkpoints_beside_the_runs_are_no_obstacle_to_naming_their_models(
    out: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    for name in ("sft-1000", "checkpoint-2000", "untried"):
        (here / name).mkdir()
    model = {"architecture": "Llama", "weight_bytes": 1, "quantization": None, "fingerprint": "0"}
    for day, series in ((5, here), (6, "/elsewhere")):
        local = describe(find_task("ceval_gen"), "x", ["law"]).to_json()
        local["model"] = model | {"path": f"{series}/checkpoint-2000"}
        write_run(out / f"2026010{day}-000000-ceval_gen-x", {"law": "1"}, record=local)

    assert find_run(Path("sft-1000"), out).name.startswith("20260102")
    assert find_run(Path("./sft-1000"), out).name.startswith("20260102")
    assert find_run(here / "checkpoint-2000", out).name.startswith("20260105")
    with pytest.raises(RunError, match=r"contains no run\.json") as raised:
        find_run(Path("untried"), out)
    assert "evaluated it as a checkpoint" in str(raised.value.remedy)


def test_latest_is_the_newest_run_even_if_it_is_damaged(out: Path) -> None:
    assert find_run(LATEST, out).name.startswith("20260104")


def test_a_directory_called_latest_is_itself(out: Path) -> None:
    write_run(out / "latest", {"law": "1"})
    assert find_run(LATEST, out) == out / "latest"


def test_latest_of_no_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There are no runs in"):
        find_run(LATEST, tmp_path)


def test_an_unknown_name_suggests_the_nearest(out: Path) -> None:
    with pytest.raises(RunError) as raised:
        find_run(Path("20260103-000000-ceval_gen-sft-3000"), out)
    assert "20260103-000000-ceval_gen-sft-2000" in str(raised.value.remedy)
    with pytest.raises(RunError) as of_model:
        find_run(Path("sft-3000"), out)
    assert of_model.value.remedy == "Did you mean sft-2000?"


def test_a_run_is_called_by_its_name_only_where_commands_look_by_themselves(tmp_path: Path) -> None:
    assert shortest_name(Path("outputs/20260101-000000-r"), Path("outputs")) == "20260101-000000-r"
    called = shortest_name(tmp_path / "my runs" / "r", tmp_path / "my runs")
    assert called == f"'{tmp_path / 'my runs' / 'r'}'"
