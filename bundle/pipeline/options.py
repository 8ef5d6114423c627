"""The options of an evaluation, each declared once: the command line and its help are made from these classes."""

# ruff: noqa: RUF009 - what is called for a default here is dataclasses.field

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bundle.errors import UsageError
from bundle.runs.finding import OUTPUTS
from bundle.system.text import quoted

GROUPS = ("What to evaluate", "Generation", "Server", "Speed and retries", "Gates", "Output")
"""The headings of ``--help``, in their order."""


@dataclass(frozen=True, slots=True)
class Option:
    """How a field is given on the command line.

    Attributes:
        group: One of ``GROUPS``; "" for a command that has none.
        names: Its spellings; none for the field's own name.
        default: The default in words, if the field's own is None.
        typed: The type of what is typed, if ``parse`` makes the field's value of it.
        parse: Makes the field's value of what is typed; where nothing is, the field keeps its default.
    """

    group: str
    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    default: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    typed: Any = None
    parse: Callable[[Any], Any] | None = None


def option(group: str, initial: Any, help_text: str, *names: str, **how: Any) -> Any:
    """A field of a class of options: its default or what makes it, and the rest of its `Option`."""
    metadata = {"option": Option(group, help_text, names, **how)}
    if callable(initial):
        return field(default_factory=initial, metadata=metadata)
    return field(default=initial, metadata=metadata)


_what, _generation, _server, _speed, _gates, _output = (partial(option, group) for group in GROUPS)


def parse_data(values: Sequence[str]) -> dict[str, str]:
    """Read ``--data``: ``SOURCE`` for all benchmarks, or ``BENCHMARK=SOURCE`` for one.

    Returns sources by benchmark; the key "" stands for all others. Raises UsageError if one has two.
    """
    from bundle.tasks.benchmarks import BENCHMARKS  # imported late: `bundle --help` needs no tasks

    data: dict[str, str] = {}
    for value in values:
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


def parse_subjects(value: str) -> list[str]:
    """Read ``--subjects``, names separated by commas. Raises UsageError if there is no name in it."""
    names = [name.strip() for name in value.replace("，", ",").split(",") if name.strip()]
    if not names:
        raise UsageError("--subjects is empty.", remedy="Leave it out to ask all subjects.")
    return names


_PART_OF_A_TIME = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(value: str) -> float:
    """Seconds in "90s", "30m", "1h30m" or "90". Raises UsageError if it is not such a time."""
    text = value.strip().lower()
    parts = _PART_OF_A_TIME.findall(text if text[-1:] in _SECONDS else f"{text}s")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not parts or "".join(map("".join, parts)).removesuffix("s") != text.removesuffix("s") or math.isinf(seconds):
        raise UsageError(f"{quoted(value)} is not a valid time.", remedy="Write it as in 90s, 30m or 1h30m.")
    return seconds


ALL = 0
"""``--replicas all``."""


def parse_replicas(value: str) -> int:
    """Read ``--replicas``. Raises UsageError if it is neither a number of servers nor "all"."""
    text = value.strip().lower()
    if text == "all":
        return ALL
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--replicas {quoted(text)} is not a number of servers.", remedy="Give a number, or all.")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What to ask and what to make of the replies, wherever the model is served."""

    tasks: list[str] = _what(
        lambda: ["ceval_gen"], "Task to evaluate: a name or a .toml file. Repeatable.", "--task", metavar="TASK"
    )
    data: Mapping[str, str] = _what(
        dict,
        "Where the questions come from: hub, modelscope, sample, a directory or a .zip in the benchmark's own layout; "
        "BENCHMARK=SOURCE for one benchmark only. Repeatable.",
        metavar="SOURCE",
        default="hub",
        typed=list[str],
        parse=parse_data,
    )
    subjects: list[str] | None = _what(
        None, "Ask only these subjects.", metavar="A,B", default="all", typed=str, parse=parse_subjects
    )
    limit: int | None = _what(
        None, "Ask only the first N questions of every subject.", metavar="N", default="all", minimum=1
    )
    quick: bool = _what(False, "Ask about 260 questions, drawn evenly from the subjects.", "--quick")
    prompt_shape: Literal["turns", "flat", "plain"] | None = _what(
        None,
        "Send few-shot examples as chat turns, flat in one user message, or plain: all as text for a base model to "
        "continue.",
        default="the task's; plain without a chat template",
    )
    dry_run: bool = _what(
        False, "Show the number of questions, their tokens and the time at --qps; start nothing.", "--dry-run"
    )

    temperature: float | None = _generation(
        None, "Sampling temperature; 0 is greedy.", metavar="T", default="model file or 0", minimum=0, maximum=2
    )
    max_out_len: int | None = _generation(
        None, "Maximum tokens per reply.", metavar="N", default="task, model file or 2048", minimum=1
    )
    max_seq_len: int | None = _generation(
        None,
        "Maximum tokens of prompt and reply together; few-shot examples are dropped to fit.",
        metavar="N",
        default="model file, local server or no limit",
        minimum=1,
    )
    repeat: int = _generation(
        1,
        "Ask up to 100 of the questions N times in all, and show how many answers change; scores are not affected.",
        metavar="N",
        minimum=1,
    )
    answer_from_thinking: bool = _generation(
        False, "If a reply is only thinking, extract the answer from it.", "--answer-from-thinking"
    )

    concurrency: int | None = _speed(
        None,
        "Maximum concurrent requests.",
        metavar="N",
        default="enough to keep a local server busy; auto-tuned for a remote one",
        minimum=1,
    )
    qps: float | None = _speed(
        None, "Maximum requests per second.", metavar="RATE", default="model file or no limit", minimum=0.0001
    )
    request_timeout: float | None = _speed(
        None, "Time limit of a request.", metavar="SECONDS", default="model file or 600", minimum=1
    )
    retries: int | None = _speed(
        None, "Retry a failed request up to N times.", metavar="N", default="model file or 3", minimum=0
    )
    stream: Literal["auto", "always", "never"] = _speed(
        "auto", "Stream replies; auto streams where that saves time and the server accepts it."
    )
    full_replies: bool = _speed(
        False, "Generate complete replies; by default they stop once the answer cannot change.", "--full-replies"
    )
    prefix_order: bool = _speed(
        True, "Keep the order of the files; by default questions are ordered for prefix caching.", " /--no-prefix-order"
    )
    rpm_verbose: bool = _speed(False, "At the end, show how many requests the last minute had.", "--rpm-verbose")

    min_score: list[str] | None = _gates(
        None, "Exit 1 if the score is lower than PERCENT. Repeatable.", metavar="NAME=PERCENT"
    )
    baseline: Path | None = _gates(None, "Compare with an earlier run; see --max-drop.", metavar="RUN")
    max_drop: float | None = _gates(
        None, "Exit 1 if a score drops by more than POINTS from the baseline.", metavar="POINTS", minimum=0
    )
    max_unparsed: float | None = _gates(
        None,
        "Exit 1 if more than PERCENT of the replies contain no option.",
        metavar="PERCENT",
        minimum=0,
        maximum=100,
    )
    allow_unanswered: int = _gates(
        0,
        "Let gates and the exit code pass if at most N questions have no reply, as after a content filter.",
        metavar="N",
        minimum=0,
    )
    allow_partial: bool = _gates(False, "Let gates judge a part of the benchmark.", "--allow-partial")
    summary: Path | None = _gates(None, "Write a Markdown summary, as for a pull request.", metavar="FILE")
    junit: Path | None = _gates(None, "Write JUnit XML, as for a CI server.", metavar="FILE")

    out: Path = _output(OUTPUTS, "Create the run's directory in DIR.", metavar="DIR")
    resume: Path | None = _output(None, "Resume a run: ask only what has no reply yet.", metavar="RUN")
    log: list[str] = _output(
        list,
        "Log the scores of a run without unanswered questions to tensorboard, wandb, mlflow or swanlab. Repeatable.",
        metavar="TRACKER",
        default="none",
    )
    lang: Literal["en", "zh"] | None = _output(
        None, "Language of the results on the screen.", default="zh under a Chinese locale, otherwise en"
    )
    all_subjects: bool = _output(False, "Show every subject's score.", "--all-subjects")


def parse_adapters(values: Sequence[str]) -> list[Path | None]:
    """Read ``--adapter``: a directory, or "none" for the model as it is. Raises UsageError if one is named twice."""
    adapters = [None if value == "none" else Path(value) for value in values]
    for number, adapter in enumerate(adapters):
        if adapter in adapters[:number]:
            raise UsageError(f"--adapter {adapter or 'none'} is given twice.", remedy="Name each adapter once.")
    return adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """How a checkpoint is served here."""

    adapter: Sequence[Path | None] = _server(
        list,
        "Evaluate the model with the LoRA adapter in DIR merged into it; none for the model alone. Repeatable: a run "
        "each, and one table.",
        metavar="DIR",
        default="none",
        typed=list[str],
        parse=parse_adapters,
    )
    engine: str = _server("auto", "Inference engine: auto, lmdeploy, vllm or transformers.", metavar="ENGINE")
    model_file: str | None = _server(
        None, "Model file, by name or path.", metavar="FILE", default="the one for the architecture"
    )
    trust_remote_code: bool | None = _server(
        None,
        "Allow, or forbid, the checkpoint's own Python code.",
        "--trust-remote-code/--no-trust-remote-code",
        default="model file or no",
    )
    gpu: str | None = _server(
        None, "Indices or names of the GPUs to use.", metavar="A,B", default="those with the most free memory"
    )
    replicas: int | None = _server(
        None,
        "Serve the checkpoint N times, each on GPUs of its own, or on all that are free.",
        metavar="N|all",
        default="1; all with --cluster",
        typed=str,
        parse=parse_replicas,
    )
    cluster: str | None = _server(
        None,
        "Serve on the machines of a Ray cluster: its address, or auto for the one that this machine belongs to.",
        metavar="HOST:PORT|auto",
        default="this machine alone",
    )
    wait: float | None = _server(
        None,
        "Wait this long for a GPU that is not free, as in 90s, 30m or 1h.",
        metavar="TIME",
        default="do not wait",
        typed=str,
        parse=parse_duration,
    )
    host: str = _server("127.0.0.1", "Address the server listens on.", metavar="ADDRESS")
    start_timeout: float = _server(600.0, "Time limit of the server's start.", metavar="SECONDS", minimum=1)
    max_restarts: int = _server(2, "Restart a server that dies or hangs up to N times.", metavar="N", minimum=0)
    hang_timeout: float | None = _server(
        None,
        "Treat the server as hung after this many seconds without output.",
        metavar="SECONDS",
        default="depends on the engine",
        minimum=1,
    )

    @property
    def servers(self) -> int:
        """How many servers to start, or `ALL`."""
        if self.replicas is None:
            return 1 if self.cluster is None else ALL
        return self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """Where a model is served by someone else."""

    base_url: str | None = _server(
        None,
        "Address of the API, as in http://127.0.0.1:23333/v1.",
        metavar="URL",
        default="model file or OPENAI_BASE_URL",
    )
    api_key_env: str | None = _server(
        None,
        "Environment variable that holds the API key, or several separated by commas.",
        metavar="NAME",
        default="model file, or OPENAI_API_KEY if it is set",
    )
    patience: float | None = _speed(
        None,
        "Wait this long for a rate limit or an outage to end, as in 90s, 30m or 1h.",
        metavar="TIME",
        default="1h",
        typed=str,
        parse=parse_duration,
    )
    tokenizer: Path | None = _generation(
        None, "Count tokens for --max-seq-len with the tokenizer in DIR.", metavar="DIR", default="estimate"
    )
