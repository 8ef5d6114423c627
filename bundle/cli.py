"""The command line: it parses, calls, and turns an error into an exit code."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bundle import __version__
from bundle.commands.compare import compare
from bundle.commands.doctor import doctor
from bundle.commands.report import report
from bundle.commands.runs import runs
from bundle.errors import BundleError, UsageError
from bundle.printable import printable

app = typer.Typer(
    name="bundle",
    help="Serve a checkpoint, run C-Eval against it, get a number you can trust, leave nothing behind.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help is there in half the time, and reads well in a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. What follows ``--`` is the engine's and is never taken for an argument of ours."""
    arguments = sys.argv[1:]
    passed_on: list[str] | None = None
    if "--" in arguments:
        split = arguments.index("--")
        arguments, passed_on = arguments[:split], arguments[split + 1 :]
    if isinstance(sys.stdout, TextIOWrapper):
        # What a terminal of another encoding has no character for is shown as its number; standard error does so.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, obj=passed_on, prog_name="bundle")
    except BundleError as error:
        from bundle.reports.console import Screen

        Screen().error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"bundle {__version__}")
        raise typer.Exit
    if context.obj is not None and context.invoked_subcommand != "eval-local":
        raise UsageError("Only eval-local takes arguments after --.", remedy="Leave them out.")


Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="TASK", help="Name or path of a task; can be repeated.", show_default="ceval_gen"),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="hub, modelscope, sample, a directory or a .zip in the benchmark's layout; or BENCHMARK=SOURCE.",
        show_default="hub",
    ),
]
Subjects = Annotated[str | None, typer.Option(metavar="A,B", help="Only these subjects, separated by commas.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N questions of every subject.")]
Shape = Annotated[
    Literal["turns", "flat"] | None, typer.Option(help="Examples as chat turns, or all in one user message.")
]
Concurrency = Annotated[int | None, typer.Option(metavar="N", min=1, help="Most requests in flight.")]
Temperature = Annotated[float | None, typer.Option(metavar="T", min=0, max=2, help="0 is greedy.")]
MaxOutLen = Annotated[int | None, typer.Option(metavar="N", min=1, help="Most tokens a reply may have.")]
MaxSeqLen = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Most tokens of prompt and reply; examples are dropped to fit.")
]
RequestTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=1, help="Most seconds a request may take.")
]
Retries = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="How often a question is asked again after a fault.")
]
Qps = Annotated[float | None, typer.Option(metavar="RATE", min=0.0001, help="Most requests a second, kept exactly.")]
RpmVerbose = Annotated[bool, typer.Option("--rpm-verbose", help="Show the achieved rate.")]
FromThinking = Annotated[
    bool, typer.Option("--answer-from-thinking", help="Look for the answer in a reply that is nothing but thinking.")
]
FullReplies = Annotated[
    bool, typer.Option("--full-replies", help="Read replies to their end, also where the answer is certain before.")
]
NoPrefixOrder = Annotated[
    bool, typer.Option("--no-prefix-order", help="Ask in the order of the files, whatever the server has cached.")
]
AllSubjects = Annotated[bool, typer.Option("--all-subjects", help="Show every subject's score.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are made.")]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Go on with this run: only what has no reply yet is asked.", show_default=False),
]


@app.command(
    "eval-local",
    epilog="Example: bundle eval-local ./internlm2_5-1_8b-chat --data ./ceval-exam.zip -- --backend pytorch",
)
def eval_local(
    context: typer.Context,
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="The checkpoint's directory.", show_default=False)
    ],
    task: Tasks = None,
    data: Data = None,
    subjects: Subjects = None,
    limit: Limit = None,
    prompt_shape: Shape = None,
    concurrency: Concurrency = None,
    temperature: Temperature = None,
    max_out_len: MaxOutLen = None,
    max_seq_len: MaxSeqLen = None,
    request_timeout: RequestTimeout = None,
    retries: Retries = None,
    qps: Qps = None,
    rpm_verbose: RpmVerbose = False,
    answer_from_thinking: FromThinking = False,
    full_replies: FullReplies = False,
    no_prefix_order: NoPrefixOrder = False,
    all_subjects: AllSubjects = False,
    out: Out = Path("outputs"),
    resume: Resume = None,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="auto, lmdeploy or transformers.")] = "auto",
    model_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Name or path of a model file; by default the one for the architecture."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the checkpoint's Python code run.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(metavar="A,B", help="Numbers of the GPUs to use.")] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the server listens.")] = "127.0.0.1",
    start_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Most seconds until the server is ready.")
    ] = 600,
    max_restarts: Annotated[
        int, typer.Option(metavar="N", min=0, help="How often a server that died or hangs is started again.")
    ] = 2,
    hang_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Silence after which the server hangs.")
    ] = None,
) -> None:
    """Serve a local checkpoint, ask it a task's questions, print the scores.

    What follows -- goes to the server's own command line.
    """
    from bundle.serving.machine import Machine

    machine = Machine()
    if engine != "transformers":
        machine.look()  # nvidia-smi and lmdeploy are asked while we import the rest

    from bundle.execution import run_to_exit_code
    from bundle.pipeline import LocalPipeline
    from bundle.reports.console import Screen
    from bundle.requests import LocalServer

    request = _request(
        task=task,
        data=data,
        subjects=subjects,
        limit=limit,
        prompt_shape=prompt_shape,
        concurrency=concurrency,
        temperature=temperature,
        max_out_len=max_out_len,
        max_seq_len=max_seq_len,
        request_timeout_s=request_timeout,
        retries=retries,
        qps=qps,
        rpm_verbose=rpm_verbose,
        answer_from_thinking=answer_from_thinking,
        full_replies=full_replies,
        prefix_order=not no_prefix_order,
        all_subjects=all_subjects,
        out=out,
        resume=resume,
    )
    server = LocalServer(
        model_dir=model_dir,
        engine=engine,
        engine_arguments=context.obj or (),
        model_file=model_file,
        trust_remote_code=trust_remote_code,
        gpu=gpu,
        host=host,
        start_timeout_s=start_timeout,
        max_restarts=max_restarts,
        hang_timeout_s=hang_timeout,
    )
    raise typer.Exit(run_to_exit_code(LocalPipeline(request, server, machine, Screen())))


@app.command("eval-remote", epilog="Example: INTERNLM_API_KEY=… bundle eval-remote puyu-api --task demo_cmmlu_chat_gen")
def eval_remote(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A served name, or a model file; without it the only model listed.",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where it is served, as in http://127.0.0.1:23333/v1.", show_default=False),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable that holds the key, or keys separated by commas.")
    ] = None,
    task: Tasks = None,
    data: Data = None,
    subjects: Subjects = None,
    limit: Limit = None,
    prompt_shape: Shape = None,
    concurrency: Concurrency = None,
    temperature: Temperature = None,
    max_out_len: MaxOutLen = None,
    max_seq_len: MaxSeqLen = None,
    request_timeout: RequestTimeout = None,
    retries: Retries = None,
    qps: Qps = None,
    rpm_verbose: RpmVerbose = False,
    answer_from_thinking: FromThinking = False,
    full_replies: FullReplies = False,
    no_prefix_order: NoPrefixOrder = False,
    all_subjects: AllSubjects = False,
    out: Out = Path("outputs"),
    resume: Resume = None,
) -> None:
    """Ask a task's questions of a model behind any OpenAI-compatible API, print the scores."""
    from bundle.execution import run_to_exit_code
    from bundle.pipeline import RemotePipeline
    from bundle.reports.console import Screen
    from bundle.requests import RemoteServer

    request = _request(
        task=task,
        data=data,
        subjects=subjects,
        limit=limit,
        prompt_shape=prompt_shape,
        concurrency=concurrency,
        temperature=temperature,
        max_out_len=max_out_len,
        max_seq_len=max_seq_len,
        request_timeout_s=request_timeout,
        retries=retries,
        qps=qps,
        rpm_verbose=rpm_verbose,
        answer_from_thinking=answer_from_thinking,
        full_replies=full_replies,
        prefix_order=not no_prefix_order,
        all_subjects=all_subjects,
        out=out,
        resume=resume,
    )
    server = RemoteServer(model=model, base_url=base_url, api_key_env=api_key_env)
    raise typer.Exit(run_to_exit_code(RemotePipeline(request, server, Screen())))


@app.command("make-checkpoint", epilog="Example: bundle make-checkpoint ./tiny --like tiny --seed 1")
def make_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.", show_default=False)],
    like: Annotated[
        Literal["tiny", "internlm2_5-1_8b"], typer.Option(help="The shape; the real one takes 3.6 GB.")
    ] = "tiny",
    seed: Annotated[int, typer.Option(help="The same seed makes the same weights.")] = 0,
) -> None:
    """Write an InternLM2 checkpoint with random weights, in the format of the real one."""
    from bundle.internlm2 import make_checkpoint
    from bundle.reports.console import Screen

    make_checkpoint(directory, like=like, seed=seed, say=Screen().say)
    typer.echo(directory)


@app.command("tasks", epilog="Example: bundle tasks ceval_gen")
def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Show this task's subjects.", show_default=False)
    ] = None,
) -> None:
    """List the tasks, or one task's subjects."""
    from bundle.config import file_names
    from bundle.tasks.catalog import find_task

    if name is None:
        for known in file_names("configs"):
            typer.echo(f"{known}  {find_task(known).description}")
    else:
        for subject in find_task(name).subjects:
            typer.echo(printable(f"{subject.name}  {subject.english}  {subject.chinese}"))


@app.command("models", epilog="Example: bundle models")
def models() -> None:
    """List the model files."""
    from bundle.config import file_names
    from bundle.model_files import model_file

    for known in file_names("models"):
        typer.echo(f"{known}  {model_file(known).description}")


app.command("doctor", epilog="Example: bundle doctor --model-dir ./internlm2_5-1_8b-chat")(doctor)
app.command("report", epilog="Example: bundle report 20261124-002609-ceval_gen-internlm2_5-1_8b-chat --lang zh")(report)
app.command("compare", epilog="Example: bundle compare 20261123-180410 20261124-002609 --html comparison.html")(compare)
app.command("runs", epilog="Example: bundle runs --json")(runs)


def _request(*, task: list[str] | None, data: list[str] | None, subjects: str | None, **rest: Any) -> Any:
    from bundle.requests import EvaluationRequest, parse_data
    from bundle.tasks.catalog import BENCHMARKS

    return EvaluationRequest(
        tasks=tuple(task or ("ceval_gen",)),
        data=parse_data(data or (), tuple(BENCHMARKS)),
        subjects=_names(subjects),
        **rest,
    )


def _names(value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError("--subjects names no subject.", remedy="Leave it out for all subjects.")
    return names
