"""``--log``: the scores of a run reach the experiment trackers that people have."""

import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from bundle.errors import ExitCode, UsageError
from bundle.reports import trackers
from bundle.runs.recorded_run import RecordedRun
from tests.openai_api import remote_api
from tests.program import call
from tests.reports.sample_run import sample_run


def run_of(directory: Path, model: str, **how: Any) -> RecordedRun:
    return sample_run(directory / f"20260101-000000-ceval_gen-{model}", model=model, **how)


def logged(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag."""
    read = EventAccumulator(str(directory)).Reload()
    return {
        tag: [(one.step, float(make_ndarray(one.tensor_proto))) for one in read.Tensors(tag)]
        for tag in read.Tags()["tensors"]
    }


def test_checkpoints_of_one_training_are_one_curve_in_tensorboard(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, f"sft-{step}", source="hub") for step in (1000, 2000)]
    said = [trackers.log(run, "tensorboard") for run in runs]

    assert said == [f"logged to tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"] * 2
    curves = logged(tmp_path / "tensorboard" / "sft")
    scores = {name: one.accuracy for name, one in runs[0].scores.items() if one.accuracy is not None}
    assert curves.keys() == scores.keys()
    assert [step for step, _ in curves["ceval"]] == [1000, 2000]
    assert [value for _, value in curves["ceval"]] == pytest.approx([scores["ceval"]] * 2)


def test_a_part_of_the_benchmark_is_another_curve(tmp_path: Path) -> None:
    trackers.log(run_of(tmp_path, "sft-1000"), "tensorboard")  # of the sample questions
    tags = logged(tmp_path / "tensorboard" / "sft").keys()
    assert tags
    assert all(tag.startswith("partial/") for tag in tags)


def test_a_run_with_unanswered_questions_is_not_logged(tmp_path: Path) -> None:
    run = run_of(tmp_path, "m", outcome=lambda one: None if one.subject == "law" else one)
    assert trackers.log(run, "tensorboard") == "not logged to tensorboard: 2 of 104 questions have no reply"
    assert not (tmp_path / "tensorboard").exists()


def test_a_tracker_that_asks_for_a_login_or_never_returns_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb.py").write_text("def init(**how):\n    input('API key: ')\n", encoding="utf-8")
    (tmp_path / "mlflow.py").write_text("import time\ntime.sleep(3600)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = run_of(tmp_path, "m")
    assert trackers.log(run, "wandb").startswith("not logged to wandb: EOFError")
    assert trackers.log(run, "mlflow", limit_s=0.01) == "not logged to mlflow: no end after 0 s"


def test_a_tracker_that_fails_costs_no_run(tmp_path: Path) -> None:
    run = run_of(tmp_path, "m")
    (tmp_path / "tensorboard").write_text("a file where its directory should be")
    assert trackers.log(run, "tensorboard").startswith("not logged to tensorboard: ")


def test_what_cannot_be_logged_to_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        trackers.require(["tensorbord"])
    assert (caught.value.message, caught.value.remedy) == (
        "There is no tracker 'tensorbord'.",
        "Did you mean tensorboard?",
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        trackers.require(["tensorboard"])
    assert caught.value.message == "tensorboard is not installed."


def test_the_command_logs_at_the_end(tmp_path: Path) -> None:
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--subjects", "law", "--out", str(tmp_path)]
        ran = call("eval-remote", "the-model", *options, "--log", "tensorboard", environment={**os.environ})
    assert ran.returncode == ExitCode.DONE
    assert "logged to tensorboard: " in ran.stdout
    assert logged(tmp_path / "tensorboard" / "the-model")


@pytest.mark.slow
def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is no dependency of the tests")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert trackers.log(run_of(tmp_path, "sft-1000"), "wandb").startswith("logged to wandb: wandb sync ")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_mlflow_keeps_every_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is no dependency of the tests")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = run_of(tmp_path, "sft-1000")
    assert "logged to mlflow" in trackers.log(run, "mlflow")
    (found,) = mlflow.search_runs(experiment_names=["bundle"], output_format="list")
    assert found.data.metrics["ceval"] == pytest.approx(run.scores["ceval"].accuracy)
