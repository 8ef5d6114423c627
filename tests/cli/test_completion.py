"""What the shell offers when Tab is pressed."""

import os
from pathlib import Path

import pytest

from tests.program import call
from tests.reports.run_directories import write_run
from tests.stand_ins.box import ROOT


def offered(line: str, directory: Path) -> list[str]:
    """What bash is offered for the last word of a command line."""
    asking = {"_BUNDLE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **asking}
    return call(environment=environment, directory=directory).stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bundle eval-l", ["eval-local"]),
        ("bundle eval-local ./model --task cmmlu_0", ["cmmlu_0shot_cot_gen"]),
        ("bundle eval-local ./model --engine ", ["auto", "lmdeploy", "vllm", "transformers"]),
        ("bundle eval-local ./model --subjects law,logi", ["law,logic"]),
        ("bundle eval-local ./model --subjects law,la", []),
        ("bundle eval-local ./model --task cmmlu_gen --subjects china-", ["china-specific"]),
        ("bundle eval-remote puyu", ["puyu-api"]),
        ("bundle report --format mo", ["model-card"]),
        ("bundle tasks ceval_z", ["ceval_zero_shot_gen"]),
    ],
)
def test_names_are_offered_where_they_may_stand(line: str, expected: list[str], tmp_path: Path) -> None:
    assert offered(line, tmp_path) == expected


def test_runs_are_offered_newest_first_with_their_models_and_as_paths(tmp_path: Path) -> None:
    names = ["20260102-030405-a", "20260103-030405-b"]
    for name in names:
        write_run(tmp_path / "outputs" / name, {"law": "1"}, model=f"sft-{name[-1]}")
    (tmp_path / "outputs" / "2026-no-run").mkdir()
    assert offered("bundle report ", tmp_path) == ["latest", *reversed(names), "sft-b", "sft-a"]
    assert offered("bundle compare latest 20260102", tmp_path) == names[:1]
    assert offered("bundle compare outputs/20260103", tmp_path) == [f"outputs/{names[1]}/"]
    assert offered("bundle resume --out outputs 20260103", tmp_path) == names[1:]
    assert offered("bundle runs --rm ", tmp_path) == list(reversed(names))
    assert offered("bundle runs --model ", tmp_path) == ["sft-b", "sft-a"]
