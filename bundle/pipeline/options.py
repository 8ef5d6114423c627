"""The options of an evaluation, each declared once: the command line and its help are made from these classes."""

# ruff: noqa: RUF009 - what is called for a default here is dataclasses.field

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bundle.errors import UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """How a field is given on the command line.

    Attributes:
        group: The heading in ``--help`` that it stands under.
        help: What it does, in the imperative.
        names: Its spellings; none for the field's own name.
        metavar: What stands for its value.
        minimum: The least value.
        maximum: The greatest value.
        shown: The default as shown, where None stands for one that something else decides.
        typed: What is typed, where ``parse`` makes the field's value of it.
        parse: Makes the field's value of what is typed.
    """

    group: str
    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    shown: str | bool = True
    typed: Any = None
    parse: Callable[[Any], Any] | None = None


def _option(group: str, default: Any, help: str, *names: str, **how: Any) -> Any:  # noqa: A002
    metadata = {"option": Option(group, help, names, **how)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_what, _generation, _server, _speed, _gates, _output = (
    partial(_option, group)
    for group in ("What to evaluate", "Generation", "Server", "Speed and retries", "Gates", "Output")
)


def parse_data(values: Sequence[str] | None) -> dict[str, str]:
    """Read ``--data``: ``SOURCE`` for all benchmarks, or ``BENCHMARK=SOURCE`` for one.

    Returns:
        Sources by benchmark; the key "" stands for all others.

    Raises:
        UsageError: Two sources for the same benchmark.
    """
    from bundle.tasks.benchmarks import BENCHMARKS  # imported late: `bundle --help` needs no tasks

    data: dict[str, str] = {}
    for value in values or ():
        name, equals, source = value.partition("=")
        key, source = (name, source) if equals and name in BENCHMARKS else ("", value)
        if key in data:
            whose = f" for {key}" if key else ""
            raise UsageError(
                f"--data is given twice{whose}: {data[key]} and {source}.",
                remedy="Give one source, or one per benchmark, as in --data ceval=PATH --data cmmlu=PATH.",
            )
        data[key] = source
    return data


def parse_subjects(value: str | None) -> list[str] | None:
    """Read ``--subjects``, names separated by commas.

    Raises:
        UsageError: There is no name in it.
    """
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError("--subjects is empty.", remedy="Leave it out to ask all subjects.")
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What to ask and what to make of the replies, wherever the model is served."""

    tasks: list[str] = _what(
        lambda: ["ceval_gen"], "Evaluate this task: a name or a .toml file. Repeatable.", "--task", metavar="TASK"
    )
    data: Mapping[str, str] = _what(
        dict,
        "Read the questions from hub, modelscope, sample, a directory or a .zip in the benchmark's own layout; "
        "BENCHMARK=SOURCE sets it for one benchmark. Repeatable.",
        metavar="SOURCE",
        shown="hub",
        typed=list[str],
        parse=parse_data,
    )
    subjects: list[str] | None = _what(
        None, "Ask only these subjects.", metavar="A,B", shown="all", typed=str, parse=parse_subjects
    )
    limit: int | None = _what(
        None, "Ask only the first N questions of every subject.", metavar="N", minimum=1, shown="all"
    )
    prompt_shape: Literal["turns", "flat"] | None = _what(
        None, "Send few-shot examples as chat turns, or flat in one user message.", shown="the task's"
    )

    temperature: float | None = _generation(
        None, "Sampling temperature; 0 is greedy.", metavar="T", minimum=0, maximum=2, shown="model file, else 0"
    )
    max_out_len: int | None = _generation(
        None, "Maximum tokens per reply.", metavar="N", minimum=1, shown="task or model file, else 2048"
    )
    max_seq_len: int | None = _generation(
        None,
        "Maximum tokens of prompt and reply together; few-shot examples are dropped to fit.",
        metavar="N",
        minimum=1,
        shown="model file, else no limit",
    )
    answer_from_thinking: bool = _generation(
        False, "Extract the answer from the thinking if a reply has nothing else.", "--answer-from-thinking"
    )

    concurrency: int | None = _speed(
        None, "Maximum concurrent requests.", metavar="N", minimum=1, shown="enough to keep the server busy"
    )
    qps: float | None = _speed(
        None, "Maximum requests per second.", metavar="RATE", minimum=0.0001, shown="model file, else no limit"
    )
    request_timeout: float | None = _speed(
        None, "Give up on a request after this long.", metavar="SECONDS", minimum=1, shown="model file, else 600"
    )
    retries: int | None = _speed(
        None, "Retry a failed request up to N times.", metavar="N", minimum=0, shown="model file, else 3"
    )
    full_replies: bool = _speed(
        False, "Generate complete replies; by default they stop once the answer cannot change.", "--full-replies"
    )
    prefix_order: bool = _speed(
        True,
        "Group questions that share examples, for the server's prefix cache, or ask in the order of the files.",
        "--prefix-order/--no-prefix-order",
    )
    rpm_verbose: bool = _speed(False, "Show the achieved requests per minute.", "--rpm-verbose")

    min_score: list[str] | None = _gates(
        None, "Exit 1 if this score is lower than PERCENT. Repeatable.", metavar="NAME=PERCENT", shown=False
    )
    baseline: Path | None = _gates(None, "Compare with this earlier run; see --max-drop.", metavar="RUN", shown=False)
    max_drop: float | None = _gates(
        None, "Exit 1 if a score drops below the baseline's by more than POINTS.", metavar="POINTS", minimum=0
    )
    summary: Path | None = _gates(None, "Write a Markdown summary, as for a pull request.", metavar="FILE", shown=False)
    junit: Path | None = _gates(None, "Write JUnit XML, as for a CI server.", metavar="FILE", shown=False)

    out: Path = _output(Path("outputs"), "Create the run's directory in DIR.", metavar="DIR")
    resume: Path | None = _output(None, "Resume this run: ask only what has no reply yet.", metavar="RUN", shown=False)
    all_subjects: bool = _output(False, "Show every subject's score.", "--all-subjects")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """How a checkpoint is served here."""

    engine: str = _server("auto", "Serve with auto, lmdeploy or transformers.", metavar="ENGINE")
    model_file: str | None = _server(
        None, "Use this model file: a name or a path.", metavar="FILE", shown="by architecture"
    )
    trust_remote_code: bool | None = _server(
        None,
        "Allow or forbid the checkpoint's own Python code.",
        "--trust-remote-code/--no-trust-remote-code",
        shown="model file, else no",
    )
    gpu: str | None = _server(None, "Use the GPUs with these numbers.", metavar="A,B", shown="most free memory")
    host: str = _server("127.0.0.1", "Listen on this address.", metavar="ADDRESS")
    start_timeout: float = _server(
        600.0, "Give up if the server is not ready after this long.", metavar="SECONDS", minimum=1
    )
    max_restarts: int = _server(2, "Restart a server that dies or hangs up to N times.", metavar="N", minimum=0)
    hang_timeout: float | None = _server(
        None,
        "Treat the server as hung after this long without output.",
        metavar="SECONDS",
        minimum=1,
        shown="depends on the engine",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """Where a model is served by somebody else."""

    base_url: str | None = _server(
        None, "Send requests here, as in http://127.0.0.1:23333/v1.", metavar="URL", shown="model file"
    )
    api_key_env: str | None = _server(
        None,
        "Read the API key, or several separated by commas, from this environment variable.",
        metavar="NAME",
        shown="model file, else no key",
    )
