"""The package installed elsewhere, away from a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.stand_ins.box import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds."""
    directory = tmp_path_factory.mktemp("installed")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory)]
    subprocess.run([sys.executable, *build, str(ROOT)], check=True, cwd=directory)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@pytest.mark.parametrize(
    ("command", "listed"),
    [("tasks", "ceval_gen"), ("models", "internlm2_5-1_8b"), ("models", "puyu-api")],
)
@pytest.mark.slow
def test_model_and_task_files_are_found(installed: Path, command: str, listed: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); import bundle.cli.main; bundle.cli.main.main()"
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, command],
        env=environment,
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed in [line.split()[0] for line in result.stdout.splitlines()]


def test_the_sample_questions_are_inside(installed: Path) -> None:
    sample = installed / "bundle" / "tasks" / "sample" / "ceval"
    assert len(list(sample.glob("val/*_val.csv"))) == len(list(sample.glob("dev/*_dev.csv"))) == 52


def test_a_report_can_be_made_by_what_is_inside(installed: Path) -> None:
    there = installed / "bundle" / "reports" / "html"
    here = ROOT / "bundle" / "reports" / "html"
    names = {path.relative_to(here) for path in here.rglob("*") if path.suffix not in ("", ".pyc")}
    assert names == {path.relative_to(there) for path in there.rglob("*") if path.suffix not in ("", ".pyc")}
    assert Path("vendor/d3.LICENSE") in names
