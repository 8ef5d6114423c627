"""The proof that a checkpoint's tokenizer works in the server's environment.

A tokenizer that quietly drops newlines, or no longer knows the chat marks, costs tens of points and no error: that is
what InternLM2.5's own tokenizer code does under transformers 5. So it is loaded as the server loads it, in a process
of the server's interpreter, and asked.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from bundle.checkpoints._files import read_json_object, shown
from bundle.checkpoints.inspection import Checkpoint, vocab_size
from bundle.errors import TokenizerError
from bundle.system.child_environment import without_keys
from bundle.system.text import one_line
from bundle.tasks.prompts import Message

MARKS_PER_MESSAGE: Final = 8
"""Tokens of a message beside its content (begin, role, newlines and end) that no common chat template exceeds."""

_PROBE: Final = Path(__file__).with_name("tokenizer_probe.py")
_GUARD: Final = Path(__file__).with_name("tokenizer_probe_guard.py")
_PATIENCE_WITH_GUARD_S: Final = 2.0
_TAIL_BYTES: Final = 8192
_TAIL_LINES: Final = 15
_GENERATION: Final = re.compile(r"\d{1,4}(?=\.)")


@dataclass(frozen=True, slots=True)
class TokenizerProof:
    """A tokenizer that was proved.

    Attributes:
        transformers: The version of transformers it was loaded with.
        vocab_size: The number of ids the model knows, which every id stayed below; None where ``config.json`` does
            not say.
        checked: How many texts, tokens and messages were checked.
        seconds: How long it took.
    """

    transformers: str
    vocab_size: int | None
    checked: int
    seconds: float


async def prove_tokenizer(
    directory: Path,
    *,
    python: str,
    trust_remote_code: bool,
    timeout: float = 120,  # noqa: ASYNC109 - it bounds a process, which must be ended before this returns
) -> TokenizerProof:
    """Prove that a tokenizer gives back what it is given, keeps its added tokens' ids, and fits the model.

    Args:
        directory: The checkpoint.
        python: The server's interpreter. It is run in a process of its own, without network, and ended if this
            coroutine is cancelled.
        trust_remote_code: Leave to run the checkpoint's Python code.
        timeout: The longest it may take, in seconds.

    Raises:
        TokenizerError: It does not, or that could not be found out.
        CheckpointError: ``config.json`` cannot be read.
    """
    started = time.monotonic()
    directory = _absolute(directory)
    config = read_json_object(directory / "config.json")
    vocabulary = vocab_size(config)
    command = [python, str(_GUARD), str(os.getpid()), str(_PROBE), str(directory)]
    if vocabulary is not None:
        command += ["--vocab-size", str(vocabulary)]
    if trust_remote_code:
        command.append("--trust-remote-code")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        status = await _run(command, _environment(), output, errors, timeout, directory)
        result = _result(output)
        tail = _tail(errors)
    if result is None:
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise TokenizerError(
            f"The tokenizer in {shown(directory)} could not be checked: {shown(python)} {ended}.",
            remedy="Check that the server's Python environment works; its last lines are below.",
            details=tail,
        )
    _judge(result, directory, config, python, trust_remote_code, tail)
    return TokenizerProof(
        transformers=shown(result["transformers"]),
        vocab_size=vocabulary,
        checked=int(result["checked"]),
        seconds=time.monotonic() - started,
    )


def _absolute(directory: Path) -> Path:
    return directory.expanduser().resolve()


async def _run(
    command: list[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    errors: IO[bytes],
    limit: float,
    directory: Path,
) -> int:
    """Run the probe to its end and return its status; on timeout and cancellation it is killed and waited for."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise TokenizerError(
            f"{shown(command[0])}, which is to check the tokenizer, cannot be run: {shown(error.strerror)}.",
            remedy="Check that the server's Python environment is installed.",
        ) from error
    try:
        async with asyncio.timeout(limit):
            return await process.wait()
    except TimeoutError:
        raise TokenizerError(
            f"The tokenizer in {shown(directory)} was not loaded and checked within {limit:g} seconds.",
            remedy="Check the disk it is on, and the load of this machine.",
            details=_tail(errors),
        ) from None
    finally:
        if process.returncode is None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the probe and wait for that; a cancellation that arrives meanwhile takes effect afterwards.

    Its guard is asked to, so that it can remove what is to be removed, and killed where it takes no notice.
    """

    def send(signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)

    send(signal.SIGTERM)
    insisting = asyncio.get_running_loop().call_later(_PATIENCE_WITH_GUARD_S, send, signal.SIGKILL)
    gone = asyncio.ensure_future(process.wait())
    cancelled: asyncio.CancelledError | None = None
    while not gone.done():
        try:
            await asyncio.wait({gone})
        except asyncio.CancelledError as error:
            cancelled = error
    insisting.cancel()
    if cancelled is not None:
        raise cancelled


def _environment() -> dict[str, str]:
    """The environment for the probe: the server's, but quiet and without network or GPU.

    transformers copies a checkpoint's code into a cache before it runs it. The server does so at the same moment,
    and neither may find the other's half-written files, so that the guard names another place.
    """
    return {
        **{name: value for name, value in without_keys(os.environ).items() if name != "HF_MODULES_CACHE"},
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "USE_TORCH": "0",  # transformers 4 then loads tokenizers in a third of the time; 5 takes no notice
        "CUDA_VISIBLE_DEVICES": "",
    }


def _result(output: IO[bytes]) -> dict[str, Any] | None:
    """The JSON object on the last line of the output, if there is a whole one."""
    output.seek(0)
    lines = output.read().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    expected = {"transformers", "checked", "failed", "problems", "error", "missing"}
    return result if isinstance(result, dict) and expected <= result.keys() else None


def _tail(errors: IO[bytes]) -> list[str]:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = errors.read().decode("utf-8", "replace").splitlines()
    return [shown(line, 300) for line in lines if line.strip()][-_TAIL_LINES:]


def _judge(
    result: Mapping[str, Any],
    directory: Path,
    config: Mapping[str, Any],
    python: str,
    trust_remote_code: bool,
    tail: list[str],
) -> None:
    """Raise an error unless the probe found nothing wrong."""
    version, error = result["transformers"], result["error"]
    problems = [shown(problem, 900) for problem in result["problems"]]
    where = shown(directory)
    if version is None:
        raise TokenizerError(
            f"The tokenizer in {where} could not be checked, because transformers does not work in "
            f"{shown(python)}: {shown(error, 400)}.",
            remedy="Install it there.",
            details=tail,
        )
    installed = f"transformers {shown(version)}, which is what the server uses"
    if error is not None and not trust_remote_code and "trust_remote_code" in str(error):
        raise TokenizerError(
            f"The tokenizer in {where} is Python code, which needs --trust-remote-code ({installed}).",
            remedy="Read the code; if you trust it, add --trust-remote-code, or set trust_remote_code = true in the "
            "model's file in models/.",
        )
    remedy = _remedy(str(version), config)
    if problems:
        more = int(result["failed"]) - 1
        raise TokenizerError(
            f"The tokenizer in {where} is broken under {installed}: {problems[0]}"
            + (f"; {more} more checks failed." if more else "."),
            remedy=f"No score made with it could be believed. {remedy}",
            details=[*problems[1:], *([shown(error, 600)] if error else [])],
        )
    if error is not None:
        if result["missing"] and any(directory.glob("*.model")):
            packages = " ".join(map(shown, result["missing"]))
            remedy = (
                f"A sentencepiece model cannot be read without {packages}: "
                f"install it with `{shown(python)} -m pip install {packages}`."
            )
        raise TokenizerError(
            f"The tokenizer in {where} does not work under {installed}: {shown(error, 600)}.",
            remedy=remedy,
            details=tail,
        )


def _remedy(installed: str, config: Mapping[str, Any]) -> str:
    """What to do about a tokenizer that fails with the installed version of transformers."""
    files = "its files may be damaged, or belong to another model: download them again."
    made_with = config.get("transformers_version")
    if made_with == installed:
        return f"config.json was written with that version, so {files}"
    made = _GENERATION.match(made_with) if isinstance(made_with, str) else None
    present = _GENERATION.match(installed)
    if made is not None and present is not None and made[0] != present[0]:
        name = shown(made_with, 20)
        return (
            f"config.json was written with transformers {name}: install one of that generation for the server "
            f"(pip install 'transformers>={name},<{int(made[0]) + 1}'). Else {files}"
        )
    if made is None and present is not None and int(present[0]) > 4:
        return (
            "Code written for transformers 4 may need that generation: install it for the server "
            f"(pip install 'transformers<5'). Else {files}"
        )
    wanted = "another transformers" if made is None else f"transformers {shown(made_with, 20)}, as in config.json,"
    return f"Install {wanted} for the server. Else {files}"


def token_counter(checkpoint: Checkpoint) -> Callable[[Sequence[Message]], int] | None:
    """A function that counts the tokens of a conversation, erring upwards; None if they cannot be counted here.

    The vocabulary is read directly (tokenizer.json, or a sentencepiece model), without the checkpoint's Python code.

    Raises:
        TokenizerError: The vocabulary's file is damaged.
    """
    try:
        count = _text_counter({path.name: path for path in checkpoint.tokenizer_files})
    except Exception as error:  # tokenizers raises Exception itself, sentencepiece several kinds
        raise TokenizerError(
            f"Cannot read the vocabulary of {shown(checkpoint.path)}, so prompts cannot be measured against "
            f"--max-seq-len: {one_line(str(error))}",
            remedy="Download the tokenizer's files again, or leave --max-seq-len out.",
        ) from error
    if count is None:
        return None

    def tokens(messages: Sequence[Message]) -> int:
        return sum(count(message["content"]) + MARKS_PER_MESSAGE for message in messages)

    return tokens


def _text_counter(files: Mapping[str, Path]) -> Callable[[str], int] | None:
    if "tokenizer.json" in files and importlib.util.find_spec("tokenizers"):
        from tokenizers import Tokenizer  # imported late: not on the server's start-up road

        tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    if "tokenizer.model" in files and importlib.util.find_spec("sentencepiece"):
        import sentencepiece  # imported late: as above

        sentencepiece.set_min_log_level(2)  # it warns of single pieces on stderr
        processor = sentencepiece.SentencePieceProcessor(model_file=str(files["tokenizer.model"]))
        return lambda text: len(processor.encode(text))
    return None
