"""What a run would be given: a checkpoint, and a source of questions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bundle.checkpoints import (
    has_chat_template,
    inspect_checkpoint,
    is_internlm2,
    prove_tokenizer,
    require_trust,
    require_values,
)
from bundle.config.model_files import model_file_for
from bundle.errors import BundleError, DataError, ServerError, TokenizerError, UsageError
from bundle.serving.engine import Job
from bundle.serving.engines import choose_engine
from bundle.serving.machine import Machine
from bundle.system.findings import Finding, failing, ok, warning
from bundle.system.text import size
from bundle.tasks.benchmarks import BENCHMARKS, Benchmark
from bundle.tasks.sources import load_tables, shown_sizes
from bundle.tasks.sources.hub import cached_commit, look_at_hub
from bundle.tasks.sources.modelscope import look_at_modelscope

_DEFAULT_BENCHMARK: Final = "ceval"


def check_checkpoint(directory: Path, machine: Machine, limit_s: float) -> Iterator[Finding]:
    """Everything a run looks at before its first question, except for the server itself.

    Raises BundleError if it cannot be served.
    """
    checkpoint = inspect_checkpoint(directory)
    note = require_values(checkpoint.weights)
    _, model = model_file_for(checkpoint.architecture)
    trusted = model.trust_remote_code or checkpoint.is_known_code(model.trusted_code)
    if not is_internlm2(checkpoint.config):  # every engine serves those without their code
        require_trust(checkpoint, trusted=trusted)
    unchecked = checkpoint.weights_unchecked
    compared = "as config.json implies" if unchecked is None else f"not compared with config.json ({unchecked})"
    weights = f"{size(checkpoint.weights.size)} of weights, {compared}"
    yield ok(f"{checkpoint.path}: {checkpoint.architecture}, {weights}")
    if note is not None:
        yield warning(note, "If that was not meant, save or download the model again.")
    if not has_chat_template(checkpoint):
        yield ok("it has no chat template: a base model, prompted with plain text")
    job = Job(checkpoint, machine, trust_remote_code=trusted)
    try:
        engine = choose_engine("auto", model, job)
    except (ServerError, UsageError):  # not installed, or a GPU that cannot be used, as other checks say
        engine = choose_engine("transformers", model, job)
    findings, interpreter = engine.forecast()
    yield from findings
    if interpreter is None:
        return
    try:
        proof = asyncio.run(
            prove_tokenizer(
                checkpoint.path, python=interpreter, trust_remote_code=job.trust_remote_code, timeout=limit_s
            )
        )
    except TokenizerError as error:
        kind = warning if "transformers does not work in" in error.message else failing
        yield kind(error.message, error.remedy, error.details)
    else:
        yield ok(f"its tokenizer reproduces its input (transformers {proof.transformers})")
        if proof.unlisted_end is not None:
            yield warning(proof.unlisted_end, "Add the id to eos_token_id in the checkpoint's generation_config.json.")


def check_data(source: str | None, limit_s: float) -> Iterator[Finding]:
    """Whether questions can be read from a source.

    ``source``: as in ``--data``: ``SOURCE`` or ``BENCHMARK=SOURCE``; None for the Hub, or else what there is.
    """
    if source is None:
        yield from _without_choice(BENCHMARKS[_DEFAULT_BENCHMARK], limit_s)
        return
    name, equals, rest = source.partition("=")
    named = BENCHMARKS.get(name) if equals else None
    given = rest if named else source
    benchmark = named or BENCHMARKS[_DEFAULT_BENCHMARK]
    match given:
        case "hub":
            yield ok(look_at_hub(benchmark, limit_s))
        case "modelscope":
            yield ok(look_at_modelscope(benchmark, limit_s))
        case _:
            yield _read(given, [named] if named else list(BENCHMARKS.values()))


def _without_choice(benchmark: Benchmark, limit_s: float) -> Iterator[Finding]:
    """The Hub; if it cannot be reached, an earlier download from it, or else ModelScope."""
    try:
        yield ok(look_at_hub(benchmark, limit_s))
    except DataError as no_hub:
        commit = cached_commit(benchmark, _wanted(benchmark))
        if commit is not None:
            yield ok(f"using the earlier download of {benchmark.hub} @ {commit[:8]}: {no_hub.message}")
            return
        try:
            other = look_at_modelscope(benchmark, limit_s)
        except BundleError as no_modelscope:
            yield failing(no_hub.message, no_hub.remedy, [no_modelscope.message])
        else:
            yield warning(no_hub.message, no_hub.remedy)
            yield ok(f"with --data modelscope: {other}")


def _read(source: str, benchmarks: list[Benchmark]) -> Finding:
    """Open a directory or .zip, or the sample, as each benchmark in turn; all its questions are read."""
    first: DataError | None = None
    for benchmark in benchmarks:
        try:
            tables = load_tables(source, benchmark, _wanted(benchmark))
        except DataError as error:
            first = first or error
        else:
            rows = sum(len(rows) for (_, split), rows in tables.rows.items() if split == benchmark.main_split)
            text = f"{tables.origin}: {rows} questions of {benchmark.name}, {benchmark.main_split} split"
            if tables.unlike:
                return warning(f"{text}; not as published: {shown_sizes(tables.unlike)}", "Download it again.")
            return ok(text)
    assert first is not None
    return failing(first.message, first.remedy, first.details)


def _wanted(benchmark: Benchmark) -> list[tuple[str, str]]:
    """What the plain task of a benchmark reads: its main split, and the split its examples are from."""
    return [(subject.name, split) for subject in benchmark.subjects for split in (benchmark.main_split, "dev")]
