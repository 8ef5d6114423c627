"""What ``--cluster`` does without a cluster; `tests/cluster` has one."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from tests.program import call


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))


@pytest.mark.usefixtures("_without_ray")
@pytest.mark.parametrize(
    "command", [["eval-local", "--data", "sample", "--cluster", "auto"], ["doctor", "--cluster", "auto"]]
)
def test_without_ray_it_says_how_to_install_it(command: list[str], tiny: Path, tmp_path: Path) -> None:
    where = [tiny, "--out", tmp_path / "out"] if command[0] == "eval-local" else []
    ended = call(*command, *where, environment=os.environ)
    assert ended.returncode == 2
    assert "pip install '.[cluster]'" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "0"], "--gpu has no effect with --cluster"),
        (["--cluster", "ray://head:10001"], "an address is HOST:PORT"),
        (["--cluster", "head"], "an address is HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[str], said: str, tiny: Path, tmp_path: Path) -> None:
    command = ["eval-local", tiny, "--data", "sample", "--out", tmp_path / "out", "--cluster", "auto"]
    ended = call(*command, *options, environment=os.environ)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_several_checkpoints_are_not_for_a_cluster(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "other")
    ended = call(
        "eval-local", tiny, tmp_path / "other", "--out", tmp_path / "out", "--cluster", "auto", environment=os.environ
    )
    assert ended.returncode == 2
    assert "--cluster is for a single checkpoint" in ended.stderr
