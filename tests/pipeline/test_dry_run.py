"""``--dry-run``: what a run would ask, without a server and without a request."""

import re
import shutil
from pathlib import Path

import pytest

from tests.openai_api import remote_api
from tests.pipeline.test_eval_remote import ENVIRONMENT
from tests.program import call


def test_questions_tokens_and_time_are_said_and_nothing_is_asked(tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    with remote_api() as api:
        options = ["--base-url", api.url, "--data", "sample", "--out", out, "--qps", "0.5", "--max-out-len", "100"]
        result = call("eval-remote", "m", *options, "--limit", "1", "--dry-run", environment=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    questions, prompts, replies, time, _ = result.stdout.splitlines()
    assert questions == "ceval_gen: 52 questions; data sample"
    assert "estimated on the safe side" in prompts
    assert replies.startswith("replies: at most 5,200 tokens")
    assert time == "time: at least 102 s at 0.5 requests/s"
    assert api.bodies == []
    assert not out.exists()


def test_a_task_of_likelihoods_takes_a_request_for_every_option(tmp_path: Path) -> None:
    options = ["--base-url", "http://127.0.0.1:1/v1", "--data", "sample", "--subjects", "law", "--limit", "1"]
    tasks = ["--task", "ceval_ppl", "--task", "ceval_gen"]
    both = call("eval-remote", "m", *options, *tasks, "--dry-run", environment=ENVIRONMENT, directory=tmp_path)
    one = call("eval-remote", "m", *options, "--dry-run", environment=ENVIRONMENT, directory=tmp_path)
    assert "ceval_ppl: 1 question, 4 requests each" in both.stdout
    tokens = [int(re.findall(r"at most ([\d,]+)", text)[0].replace(",", "")) for text in (both.stdout, one.stdout)]
    assert tokens[0] > 4 * tokens[1]


def test_tokens_are_counted_with_the_checkpoints_own_tokenizer(tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    options = ["--engine", "transformers", "--data", "sample"]
    result = call("eval-local", "tiny", *options, "--dry-run", environment=ENVIRONMENT, directory=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "counted with tokenizer.json" in result.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny"]


def test_weights_that_could_not_be_compared_are_told_of(tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.json"
    # An architecture that is not known here.
    config.write_text(config.read_text().replace("InternLM2ForCausalLM", "GraniteForCausalLM"))
    options = ["--engine", "transformers", "--data", "sample"]
    result = call("eval-local", "tiny", *options, "--dry-run", environment=ENVIRONMENT, directory=tmp_path)
    assert "weights not compared with config.json: unknown tensor layout of the architecture Granite" in result.stderr


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--data", "smaple", "hint: Did you mean sample?"),
        ("--data", "nowhere/", "no such path exists"),
        ("--out", "tiny/config.json/x", "tiny/config.json/x cannot be written: "),
    ],
)
def test_a_wrong_source_or_place_is_told_before_anything_else(
    option: str, value: str, said: str, mode: list[str], tmp_path: Path, tiny: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    options = ["tiny", "--engine", "transformers", option, value, *mode]
    result = call("eval-local", *options, environment=ENVIRONMENT, directory=tmp_path)
    assert result.returncode == 2
    error, _ = result.stderr.splitlines()
    assert said in result.stderr
    assert error.startswith("error: ")


def test_what_is_wrong_for_all_checkpoints_is_told_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for wrong in (["--data", "smaple"], ["--subjects", "lawn"], ["--min-score", "60"], ["--out", "/dev/null/x"]):
        result = call("eval-local", "one", "two", *wrong, environment=ENVIRONMENT, directory=tmp_path)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 2, result.stderr
    assert not (tmp_path / "outputs").exists()
