"""The proof as a run sees it: a process of the server's interpreter, and an error for whatever goes wrong with it."""

import asyncio
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from bundle.checkpoints.tokenizer import prove_tokenizer
from bundle.errors import CheckpointError, TokenizerError
from tests.checkpoints.checkpoints import write_checkpoint, write_json
from tests.checkpoints.tokenizers import write_bpe, write_lossy
from tests.patience import PATIENCE_S

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="tokenizers are loaded with transformers, which is not installed",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer no test here gets to load."""
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], str]:
    """Makes an executable that is started in place of a Python interpreter."""

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        path.chmod(0o755)
        return str(path)

    return make


def reporting(report: str) -> str:
    """A script that prints a line as the probe prints its report."""
    return f"printf '\\036result %s\\n' {shlex.quote(report)}"


async def refusal(directory: Path, python: str, *, trusted: bool = False, limit: float = PATIENCE_S) -> TokenizerError:
    with pytest.raises(TokenizerError) as caught:
        await prove_tokenizer(directory, python=python, trust_remote_code=trusted, timeout=limit)
    assert caught.value.remedy, "an error without a remedy leaves the user alone"
    return caught.value


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@needs_transformers
async def test_a_tokenizer_that_is_well_is_proved(tmp_path: Path) -> None:
    proof = await prove_tokenizer(write_bpe(tmp_path / "bpe"), python=sys.executable, trust_remote_code=False)
    assert proof.transformers[0].isdigit()


@needs_transformers
async def test_a_tokenizer_whose_code_loses_newlines_is_an_error_that_names_transformers_version(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = write_lossy(tmp_path / "lossy", "\n")
    source = directory / "tokenization_lossy.py"
    source.write_text('print(\'{"not": "the result"}\')\n' + source.read_text())
    error = await refusal(directory, sys.executable, trusted=True)
    assert "is broken under transformers " in error.message
    assert "newlines are lost" in error.message
    assert "more checks failed" in error.message
    assert "transformers" in str(error.remedy)
    assert "4.41.0" in str(error.remedy)
    assert error.details
    assert capfd.readouterr() == ("", ""), "the probe is not to write between the lines of the progress display"


@needs_transformers
async def test_a_word_among_the_special_tokens_is_told_where_to_take_it_out(tmp_path: Path) -> None:
    error = await refusal(write_bpe(tmp_path / "bpe", additional_special_tokens=["题"]), sys.executable)
    assert "a word among the special tokens: additional_special_tokens" in str(error.remedy)
    assert "damaged" not in str(error.remedy)


@needs_transformers
async def test_a_tokenizer_in_python_code_without_leave_is_an_error_that_tells_how_to_give_it(tmp_path: Path) -> None:
    error = await refusal(write_lossy(tmp_path / "lossy", "\n"), sys.executable)
    assert "which needs --trust-remote-code" in error.message
    assert "--trust-remote-code" in str(error.remedy)


async def test_an_interpreter_without_transformers_is_an_error_that_says_so(
    model: Path, interpreter: Callable[[str], str]
) -> None:
    bare = interpreter(f'exec {shlex.quote(sys.executable)} -I -S "$@"\n')
    error = await refusal(model, bare)
    assert "transformers does not work in" in error.message
    assert "No module named 'transformers'" in error.message


async def test_an_interpreter_that_is_not_there_is_an_error(model: Path) -> None:
    error = await refusal(model, "/nonexistent/python")
    assert "/nonexistent/python, which would check the tokenizer, cannot be run" in error.message


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo Segfault coming >&2\nkill -SEGV $$", "killed by signal 11"),
        ("echo broken environment >&2\nexit 3", "exit code 3"),
        (reporting("not JSON"), "exit code 0"),
        (reporting("[1, 2]"), "exit code 0"),
        (reporting("{}"), "exit code 0"),
    ],
)
async def test_a_process_that_ends_without_a_result_is_an_error_with_its_last_lines(
    model: Path, interpreter: Callable[[str], str], script: str, complaint: str
) -> None:
    error = await refusal(model, interpreter(script))
    assert complaint in error.message
    if ">&2" in script:
        assert error.details[-1] in ("Segfault coming", "broken environment")


async def test_what_a_failing_process_writes_is_shown_escaped_and_its_end_only(
    model: Path, interpreter: Callable[[str], str]
) -> None:
    error = await refusal(model, interpreter("seq 100000 >&2\nprintf 'evil\\033[2J\\n' >&2\nexit 1"))
    assert error.details[-2:] == ("100000", r"evil\x1b[2J")
    assert len(error.details) == 15


async def test_a_process_that_never_ends_is_killed_when_its_time_is_up(
    model: Path, interpreter: Callable[[str], str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    python = interpreter(f"sleep 600 &\necho $$ $! > {pids}.part\nmv {pids}.part {pids}\nwait")
    for limit in (1, 10, 60):  # a busy machine may not even have started it by then
        error = await refusal(model, python, limit=limit)
        assert f"was not checked within {limit} seconds" in error.message
        if pids.exists():
            break
    for pid in map(int, pids.read_text().split()):
        eventually(partial(gone, pid), f"{pid} is still alive")


async def test_cancelling_the_proof_ends_its_process_and_all_it_started(
    model: Path, interpreter: Callable[[str], str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    python = interpreter(f"sleep 600 &\necho $$ $! > {pids}.part\nmv {pids}.part {pids}\nwait")
    proof = asyncio.create_task(prove_tokenizer(model, python=python, trust_remote_code=False))
    await asyncio.to_thread(eventually, pids.exists, "the process has not started")
    leader, child = map(int, pids.read_text().split())
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    assert not psutil.pid_exists(leader), "it is waited for, not just told to end"
    eventually(partial(gone, child), "its child is still alive")


def hanging(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A transformers that hangs while it is imported, as code of a checkpoint may: the file it writes its pid to, and
    the environment in which it is found and all temporary files are made in a directory of their own."""
    site, temporary, pid = tmp_path / "site", tmp_path / "temporary", tmp_path / "pid"
    site.mkdir()
    temporary.mkdir()
    (site / "transformers.py").write_text(
        f"import os, time\nwith open({str(pid) + '.part'!r}, 'w') as file:\n    file.write(str(os.getpid()))\n"
        f"open(os.environ['HF_MODULES_CACHE'] + '/copied.py', 'w').close()\n"
        f"os.rename({str(pid) + '.part'!r}, {str(pid)!r})\ntime.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(site), str(root)])
    return pid, {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary), "HOME": str(tmp_path)}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process when its parent dies")
def test_killing_bundle_ends_the_probe_as_well_and_leaves_no_file(tmp_path: Path) -> None:
    """Real all the way: the probe hangs in the code of a checkpoint's tokenizer when its parent is killed."""
    pid, environment = hanging(tmp_path)
    model = write_checkpoint(tmp_path / "model")
    code = (
        "import asyncio, pathlib, sys; from bundle.checkpoints.tokenizer import prove_tokenizer;"
        "asyncio.run(prove_tokenizer(pathlib.Path(sys.argv[1]), python=sys.executable, trust_remote_code=False))"
    )
    with subprocess.Popen([sys.executable, "-c", code, model], env=environment) as parent:
        eventually(pid.exists, "the probe has not started")
        probe = int(pid.read_text())
        assert not gone(probe)
        assert any((tmp_path / "temporary").iterdir()), "the code is copied to a place of its own"
        parent.send_signal(signal.SIGKILL)
    eventually(partial(gone, probe), "the probe outlives its parent")
    eventually(lambda: not any((tmp_path / "temporary").iterdir()), "its files stay")


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_proof_that_is_cancelled_leaves_no_file_however_often_ctrl_c_is_pressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancellations: int
) -> None:
    pid, environment = hanging(tmp_path)
    for name in ("PYTHONPATH", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, environment[name])
    model = write_checkpoint(tmp_path / "model")
    proof = asyncio.create_task(prove_tokenizer(model, python=sys.executable, trust_remote_code=False))
    await asyncio.to_thread(eventually, pid.exists, "the probe has not started")
    for _ in range(cancellations):
        proof.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await proof
    assert not any((tmp_path / "temporary").iterdir())
    eventually(partial(gone, int(pid.read_text())), "the probe is still alive")


async def test_nothing_secret_is_asked_for_and_no_code_is_copied_where_the_server_copies_it(
    model: Path, interpreter: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv("HF_MODULES_CACHE", "the server's own")
    await refusal(model, interpreter(f'echo "$@" > {seen}\nenv >> {seen}'), trusted=True)
    lines = seen.read_text().splitlines()
    directory = next(line for line in lines if line.startswith("HF_MODULES_CACHE=")).partition("=")[2]
    assert lines[0].endswith(f"tokenizer_probe/__main__.py {model} {directory}/given.json")
    environment = dict(line.split("=", 1) for line in lines[1:] if "=" in line)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "bundle-tokenizer-" in environment["HF_MODULES_CACHE"]


async def test_a_checkpoint_that_does_not_tell_its_vocabulary_is_proved_without(
    model: Path, interpreter: Callable[[str], str]
) -> None:
    write_json(model / "config.json", {})
    report = '{"transformers": "4.57.6", "checked": 7, "failed": 0, "problems": [], "error": null, "missing": []}'
    proof = await prove_tokenizer(model, python=interpreter(reporting(report)), trust_remote_code=False)
    assert proof.transformers == "4.57.6"


async def test_packages_that_sentencepiece_takes_are_named_where_they_are_missing(
    model: Path, interpreter: Callable[[str], str]
) -> None:
    """transformers 5 says that tiktoken is missing, which would not help."""
    (model / "tokenizer.model").write_bytes(b"x")
    report = (
        '{"transformers": "5.23.0", "checked": 0, "failed": 0, "problems": [], '
        '"error": "loading it failed: tiktoken is required", "missing": ["protobuf"]}'
    )
    error = await refusal(model, interpreter(reporting(report)))
    assert "-m pip install protobuf" in str(error.remedy)


@pytest.mark.parametrize("sign", ["TokenizersBackend does not exist", "'list' object has no attribute 'keys'"])
async def test_a_tokenizer_that_only_transformers_5_can_load_is_rewritten_by_the_command_shown(
    model: Path, interpreter: Callable[[str], str], sign: str
) -> None:
    saved = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<|im_end|>"]}
    (model / "tokenizer_config.json").write_text(json.dumps(saved, indent=2))
    report = {"transformers": "4.57.6", "checked": 0, "failed": 0, "problems": [], "missing": []}
    report["error"] = f"loading it failed: Tokenizer class {sign}"
    error = await refusal(model, interpreter(reporting(json.dumps(report))))

    await (await asyncio.create_subprocess_shell(str(error.remedy).split("`")[1])).wait()

    assert json.loads((model / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<|im_end|>"],
    }


async def test_a_broken_config_json_is_an_error_here_too(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        await prove_tokenizer(model, python=sys.executable, trust_remote_code=False)


@pytest.mark.parametrize(
    ("installed", "made_with", "remedy"),
    [
        ("5.23.0", "4.41.0", "pip install 'transformers>=4.41.0,<5'"),
        ("5.23.0", None, "pip install 'transformers<5'"),
        ("5.23.0", "\x1b[2J", "pip install 'transformers<5'"),
        ("4.57.6", "4.41.0", "Install transformers 4.41.0, as in config.json"),
        ("4.57.6", None, "Install another transformers"),
        ("4.57.6", "4.57.6", "config.json was written with that version, so its files may be damaged"),
        ("main", "4.57.6", "Install transformers 4.57.6"),
    ],
)
async def test_the_remedy_is_a_version_that_fits_the_one_the_checkpoint_was_made_with(
    model: Path, interpreter: Callable[[str], str], installed: str, made_with: str | None, remedy: str
) -> None:
    write_json(model / "config.json", {"transformers_version": made_with})
    report = {"transformers": installed, "checked": 1, "failed": 1, "problems": ["x"], "error": None, "missing": []}
    error = await refusal(model, interpreter(reporting(json.dumps(report))))
    assert remedy in str(error.remedy)
    assert str(error).isprintable()


async def test_a_library_that_a_tokenizer_takes_is_named_where_it_is_missing(
    model: Path, interpreter: Callable[[str], str]
) -> None:
    error = "ImportError: MistralConverter requires the mistral-common library but it was not found in your environment"
    report = {"transformers": "5.24.0", "checked": 0, "failed": 0, "problems": [], "error": error, "missing": []}
    refused = await refusal(model, interpreter(reporting(json.dumps(report))))
    assert "-m pip install mistral-common`" in str(refused.remedy)


# Ends of turns


@pytest.mark.parametrize(
    ("config", "generation", "own", "stops"),
    [
        ({"eos_token_id": 7}, None, 2, ()),
        ({"eos_token_id": [2, 7]}, None, None, ()),
        ({"eos_token_id": 2}, {"eos_token_id": [2, 7]}, 2, ()),
        ({"text_config": {"eos_token_id": 7}}, None, None, ()),
        ({}, None, 7, ()),
        ({"eos_token_id": 2}, {"eos_token_id": 2}, 2, (7,)),
        ({"eos_token_id": 7}, {"eos_token_id": 2}, 2, (7,)),
        ({"eos_token_id": 7}, {}, None, (7,)),
        ({"eos_token_id": "7"}, {"eos_token_id": None}, None, (7,)),
    ],
)
async def test_the_mark_that_ends_a_turn_must_be_among_the_ids_that_end_a_reply(
    model: Path,
    interpreter: Callable[[str], str],
    config: dict[str, object],
    generation: dict[str, object] | None,
    own: int | None,
    stops: tuple[int, ...],
) -> None:
    write_json(model / "config.json", config)
    if generation is not None:
        write_json(model / "generation_config.json", generation)
    report = {"transformers": "5.23.0", "checked": 7, "failed": 0, "problems": [], "error": None, "missing": []}
    report |= {"end_of_turn": ["<|im_end|>", 7], "eos_token_id": own}

    proof = await prove_tokenizer(model, python=interpreter(reporting(json.dumps(report))), trust_remote_code=False)

    assert (proof.end_of_turn, proof.stop_token_ids) == ("<|im_end|>", stops)
    assert ("<|im_end|> (id 7)" in str(proof.unlisted_end)) == bool(stops)
