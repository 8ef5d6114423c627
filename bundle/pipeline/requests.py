"""What the evaluation commands are asked to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.errors import UsageError


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What is asked of a model, wherever it is served.

    Attributes:
        tasks: Names or paths of the tasks.
        data: Where a benchmark's questions come from, by the benchmark's name; the key "" stands for all others.
        subjects: Names of the subjects asked; None for all.
        limit: How many questions of every subject are asked; None for all.
        prompt_shape: "turns" or "flat"; None for what the model's file or else the task says.
        concurrency: Most requests in flight; None for what the model's file says or fits the server.
        temperature: None for what the model's file says.
        max_out_len: Most tokens a reply may have; None for what the task, the model's file or else a default says.
        max_seq_len: Most tokens a prompt and its reply may have together; None for what the model's file says.
        request_timeout_s: Most seconds a request may take; None for what the model's file says.
        retries: How often a question is asked again after a fault; None for what the model's file says.
        qps: Most requests a second; None for what the model's file says.
        rpm_verbose: Whether the achieved rate is shown.
        answer_from_thinking: Whether a reply that is nothing but thinking is searched for the answer.
        full_replies: Whether replies are read to their end, also where their answer is certain before.
        prefix_order: Whether questions are ordered so that the server's prefix cache is of use.
        all_subjects: Whether the table shows every subject.
        out: The directory that run directories are made in.
        resume: The directory of a run to go on with, or its name in ``out``; None for a new one.
    """

    tasks: Sequence[str] = ("ceval_gen",)
    data: Mapping[str, str] = field(default_factory=dict)
    subjects: Sequence[str] | None = None
    limit: int | None = None
    prompt_shape: str | None = None
    concurrency: int | None = None
    temperature: float | None = None
    max_out_len: int | None = None
    max_seq_len: int | None = None
    request_timeout_s: float | None = None
    retries: int | None = None
    qps: float | None = None
    rpm_verbose: bool = False
    answer_from_thinking: bool = False
    full_replies: bool = False
    prefix_order: bool = True
    all_subjects: bool = False
    out: Path = Path("outputs")
    resume: Path | None = None

    def source_of(self, benchmark: str) -> str | None:
        """Where this benchmark's questions come from; None where that was not said."""
        return self.data.get(benchmark, self.data.get(""))


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A checkpoint to be served here.

    Attributes:
        model_dir: The checkpoint.
        engine: "auto", "lmdeploy" or "transformers".
        engine_arguments: Passed on to the server's own command line.
        model_file: Name or path of a model file; None for the one meant for the checkpoint's architecture.
        trust_remote_code: Leave to run the checkpoint's Python code; None for what the model file says.
        gpu: Numbers of the GPUs; None for those with the most free memory.
        host: Where the server listens.
        start_timeout_s: Most seconds until the server is ready.
        max_restarts: How often a server that died or hangs is started again.
        hang_timeout_s: Seconds without any part of a reply after which it hangs; None for what fits the engine.
    """

    model_dir: Path
    engine: str = "auto"
    engine_arguments: Sequence[str] = ()
    model_file: str | None = None
    trust_remote_code: bool | None = None
    gpu: str | None = None
    host: str = "127.0.0.1"
    start_timeout_s: float = 600.0
    max_restarts: int = 2
    hang_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """A model served by somebody else.

    Attributes:
        model: A served name, or name or path of a model file; None for the only model the server lists.
        base_url: Where; None for what the model's file says.
        api_key_env: The variable that holds the key or keys; None for what the model's file says.
    """

    model: str | None
    base_url: str | None = None
    api_key_env: str | None = None


def parse_data(values: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """What ``--data`` says: ``SOURCE`` for all benchmarks, or ``BENCHMARK=SOURCE`` for one.

    Raises:
        UsageError: The same is said twice.
    """
    data: dict[str, str] = {}
    for value in values:
        name, equals, source = value.partition("=")
        key, source = (name, source) if equals and name in benchmarks else ("", value)
        if key in data:
            whose = f"for {key} " if key else ""
            raise UsageError(
                f"--data is given twice {whose}({data[key]} and {source}).",
                remedy="Name one source, or one for each benchmark as in --data ceval=PATH --data cmmlu=PATH.",
            )
        data[key] = source
    return data
