"""The command line: it parses, calls, and turns an error into an exit code."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bundle import __version__
from bundle.errors import BundleError, UsageError

app = typer.Typer(
    name="bundle",
    help="Serve a checkpoint, run C-Eval against it, get a number you can trust, leave nothing behind.",
    no_args_is_help=True,
    rich_markup_mode="rich",
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
    try:
        app(args=arguments, obj=passed_on)
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


@app.command(
    "eval-local",
    epilog="Example: bundle eval-local ./internlm2_5-1_8b-chat --data ./ceval-exam.zip -- --backend pytorch",
)
def eval_local(
    context: typer.Context,
    model_dir: Annotated[Path, typer.Argument(help="The checkpoint's directory.", show_default=False)],
    task: Annotated[str, typer.Option(help="Name or path of a task; see `bundle tasks`.")] = "ceval_gen",
    data: Annotated[
        str, typer.Option(help="hub, modelscope, sample, or a directory or .zip in the benchmark's layout.")
    ] = "hub",
    engine: Annotated[str, typer.Option(help="auto, lmdeploy or transformers.")] = "auto",
    model_file: Annotated[
        str | None, typer.Option(help="Name or path of a model file; by default the one for the architecture.")
    ] = None,
    subjects: Annotated[str | None, typer.Option(help="Only these subjects, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N questions of every subject.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests in flight.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy, the default.")] = None,
    max_out_len: Annotated[int | None, typer.Option(min=1, help="Most tokens a reply may have.")] = None,
    out: Annotated[Path, typer.Option(help="Where run directories are made.")] = Path("outputs"),
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the checkpoint's Python code run.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="Numbers of the GPUs to use.")] = None,
    host: Annotated[str, typer.Option(help="Where the server listens.")] = "127.0.0.1",
    start_timeout: Annotated[float, typer.Option(min=1, help="Most seconds until the server is ready.")] = 600,
    request_timeout: Annotated[float, typer.Option(min=1, help="Most seconds a request may take.")] = 600,
    retries: Annotated[int, typer.Option(min=0, help="How often a question is asked again after a fault.")] = 3,
) -> None:
    """Serve a local checkpoint, ask it a task's questions, print the scores.

    What follows -- goes to the server's own command line.
    """
    from bundle.execution import run_to_exit_code
    from bundle.pipeline import LocalPipeline, LocalRequest
    from bundle.reports.console import Screen

    request = LocalRequest(
        model_dir=model_dir,
        task=task,
        data=data,
        engine=engine,
        engine_arguments=context.obj or (),
        model_file=model_file,
        subjects=_names(subjects),
        limit=limit,
        concurrency=concurrency,
        temperature=temperature,
        max_out_len=max_out_len,
        out=out,
        trust_remote_code=trust_remote_code,
        gpu=gpu,
        host=host,
        start_timeout_s=start_timeout,
        request_timeout_s=request_timeout,
        retries=retries,
    )
    raise typer.Exit(run_to_exit_code(LocalPipeline(request, Screen())))


@app.command("make-checkpoint", epilog="Example: bundle make-checkpoint ./tiny --like tiny --seed 1")
def make_checkpoint(
    directory: Annotated[Path, typer.Argument(help="The directory to make.", show_default=False)],
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
    name: Annotated[str | None, typer.Argument(help="Show this task's subjects.", show_default=False)] = None,
) -> None:
    """List the tasks, or one task's subjects."""
    from bundle.config import file_names
    from bundle.tasks.catalog import find_task

    if name is None:
        for known in file_names("configs"):
            typer.echo(f"{known}  {find_task(known).description}")
    else:
        for subject in find_task(name).subjects:
            typer.echo(f"{subject.name}  {subject.english}  {subject.chinese}")


@app.command("models", epilog="Example: bundle models")
def models() -> None:
    """List the model files."""
    from bundle.config import file_names
    from bundle.model_files import model_file

    for known in file_names("models"):
        typer.echo(f"{known}  {model_file(known).description}")


def _names(value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError("--subjects names no subject.", remedy="Leave it out for all subjects.")
    return names
