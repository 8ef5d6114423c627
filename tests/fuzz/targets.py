"""What reads bytes that somebody else wrote, each as a function of those bytes.

Each returns in silence or raises the error that a user sees; anything else is a find. Hypothesis feeds them in
`test_readers`, atheris in `with_atheris`, and `found` keeps what was once a find.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundle.checkpoints import fingerprint, inspect_checkpoint
from bundle.checkpoints._safetensors import read_safetensors_header
from bundle.checkpoints.internlm2.sentencepiece import read_model
from bundle.checkpoints.internlm2.tokenizer_config import read_tokenizer_config
from bundle.client import insecure, normalise_base_url
from bundle.client._events import EventDecoder
from bundle.client._faults import AttemptError
from bundle.client._replies import reply_of
from bundle.client._streamed import StreamedReply
from bundle.config.files import read_file
from bundle.config.model_files import ModelFile
from bundle.config.task_files import RowsFile
from bundle.errors import BundleError
from bundle.reports import html
from bundle.reports.screen.output import console
from bundle.reports.screen.run_table import show_runs
from bundle.runs.listing import list_runs
from bundle.runs.recorded_run import read_recorded_run
from bundle.serving.diagnosis import diagnose, fatal
from bundle.serving.server_log import ServerLog
from bundle.tasks.answers import FirstCapital, FirstOption
from bundle.tasks.catalog import find_task
from bundle.tasks.own_rows import OwnRows
from bundle.tasks.sources import load_tables
from bundle.tasks.sources.csv_files import read_csv
from tests.checkpoints.checkpoints import write_checkpoint
from tests.reports.run_directories import write_run
from tests.tasks.source_files import CEVAL, CMMLU, WANTED

Target = Callable[[bytes, Path], None]


def model_file(data: bytes, directory: Path) -> None:
    """``models/*.toml``."""
    read_file(_written(data, directory / "model.toml"), ModelFile)


def task_file(data: bytes, directory: Path) -> None:
    """``configs/*.toml``, with the rows it names."""
    (directory / "rows.csv").write_text("question,answer\nq,A\n")
    find_task(str(_written(data, directory / "task.toml")))


def ceval_csv(data: bytes, directory: Path) -> None:
    """A table of C-Eval."""
    read_csv(data, "val/law_val.csv", CEVAL, "val")


def cmmlu_csv(data: bytes, directory: Path) -> None:
    """A table of CMMLU, whose first column has no name."""
    read_csv(data, "test/law.csv", CMMLU, "test")


def own_csv(data: bytes, directory: Path) -> None:
    """Questions of the user's own, as CSV."""
    _own(_written(data, directory / "rows.csv"))


def own_jsonl(data: bytes, directory: Path) -> None:
    """Questions of the user's own, as JSONL."""
    _own(_written(data, directory / "rows.jsonl"))


def archive(data: bytes, directory: Path) -> None:
    """A benchmark's .zip."""
    load_tables(str(_written(data, directory / "exam.zip")), CEVAL, WANTED)


def safetensors(data: bytes, directory: Path) -> None:
    """A file of weights."""
    read_safetensors_header(_written(data, directory / "model.safetensors"))


def sentencepiece(data: bytes, directory: Path) -> None:
    """A sentencepiece vocabulary."""
    read_model(_written(data, directory / "tokenizer.model"))


def base_url(data: bytes, directory: Path) -> None:
    """What is given as ``--base-url``."""
    insecure(normalise_base_url(data.decode("utf-8", "replace")))


def reply(data: bytes, directory: Path) -> None:
    """The body of an answer to a question."""
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError):
        body = data.decode("utf-8", "replace")
    try:
        reply_of(body, latency_s=1.0, attempts=1, answer_from_thinking=True)
    except AttemptError as fault:
        fault.reason.encode()


def stream(data: bytes, directory: Path) -> None:
    """A streamed answer to a question."""
    decoder, streamed = EventDecoder(), StreamedReply(FirstCapital())
    try:
        for event in (*decoder.feed(data), *decoder.end()):
            streamed.take(event)
        reply_of(streamed.body(), latency_s=1.0, attempts=1, answer_from_thinking=True)
    except AttemptError as fault:
        fault.reason.encode()
    except (ValueError, RecursionError):
        return  # which `Transport` turns into such a fault


def server_log(data: bytes, directory: Path) -> None:
    """What a server prints."""
    log = ServerLog(directory / "server.log")
    log.path.write_bytes(data)
    lines = log.last_lines()
    any(map(fatal, lines))
    for returncode in (None, 1, -9):
        diagnose(lines, returncode).cause.encode()


def _checkpoint_file(name: str) -> Target:
    def target(data: bytes, directory: Path) -> None:
        checkpoint = directory / "checkpoint"
        if not checkpoint.is_dir():
            write_checkpoint(checkpoint)
            (checkpoint / "m.py").write_text("from .m import X\n")
        untouched = (checkpoint / "config.json").read_bytes()
        try:
            _written(data, checkpoint / name)
            inspected = inspect_checkpoint(checkpoint)
            fingerprint(inspected)
            # These go into the record of a run.
            json.dumps([inspected.architecture, inspected.quantization], ensure_ascii=False).encode()
            read_tokenizer_config(checkpoint)
        finally:
            if name == "config.json":
                (checkpoint / name).write_bytes(untouched)
            else:
                (checkpoint / name).unlink()

    return target


def _run_file(name: str) -> Target:
    def target(data: bytes, directory: Path) -> None:
        run = directory / "runs" / "run"
        if not run.is_dir():
            write_run(run, {"law": "10", "logic": "1x"})
        untouched = (run / name).read_bytes()
        try:
            _written(data, run / name)
            with (directory / "screen").open("w", encoding="utf-8") as screen:
                show_runs(console(screen, width=200), list_runs(run.parent))
            html.export(read_recorded_run(run))
        finally:
            (run / name).write_bytes(untouched)

    return target


def _own(path: Path) -> None:
    given = RowsFile(file=path.name, subject="subject")
    own = OwnRows("own", path, None, ("question", "answer"), given, FirstOption())
    subjects = own.subjects()
    own.load(str(path), [(subject, "questions") for subject in subjects])


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


TARGETS: Mapping[str, Target] = {
    "model_file": model_file,
    "task_file": task_file,
    "ceval_csv": ceval_csv,
    "cmmlu_csv": cmmlu_csv,
    "own_csv": own_csv,
    "own_jsonl": own_jsonl,
    "archive": archive,
    "safetensors": safetensors,
    "sentencepiece": sentencepiece,
    "base_url": base_url,
    "reply": reply,
    "stream": stream,
    "server_log": server_log,
    "run_json": _run_file("run.json"),
    "prompts_jsonl": _run_file("prompts.jsonl"),
    "predictions_jsonl": _run_file("predictions.jsonl"),
    "results_json": _run_file("results.json"),
    "config_json": _checkpoint_file("config.json"),
    "tokenizer_config_json": _checkpoint_file("tokenizer_config.json"),
    "generation_config_json": _checkpoint_file("generation_config.json"),
    "index_json": _checkpoint_file("model.safetensors.index.json"),
}


def outcome(name: str, data: bytes, directory: Path) -> BundleError | None:
    """What a user is told of these bytes; None where they are accepted. What should not happen is raised."""
    try:
        TARGETS[name](data, directory)
    except BundleError as error:
        return error
    return None
