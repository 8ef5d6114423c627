"""``bundle eval-local``: serve a checkpoint here and ask it."""

from pathlib import Path
from typing import Annotated

import typer

from bundle.cli.options import (
    AllSubjects,
    Baseline,
    Concurrency,
    Data,
    FromThinking,
    FullReplies,
    JUnit,
    Limit,
    MaxDrop,
    MaxOutLen,
    MaxSeqLen,
    MinScore,
    NoPrefixOrder,
    Out,
    Qps,
    RequestTimeout,
    Resume,
    Retries,
    RpmVerbose,
    Shape,
    Subjects,
    Summary,
    Tasks,
    Temperature,
    conclusion,
    evaluation_request,
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
    min_score: MinScore = None,
    baseline: Baseline = None,
    max_drop: MaxDrop = None,
    summary: Summary = None,
    junit: JUnit = None,
    out: Out = Path("outputs"),
    resume: Resume = None,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="auto, lmdeploy or transformers.")] = "auto",
    model_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Name or path of a model file; by default the one for the architecture."),
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        typer.Option(
            "--trust-remote-code/--no-trust-remote-code",
            help="Let the checkpoint's Python code run, or not, whatever the model file says.",
            show_default=False,
        ),
    ] = None,
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
    options = locals()
    from bundle.serving.machine import Machine

    machine = Machine()
    if engine != "transformers":
        machine.look()  # nvidia-smi and lmdeploy are asked while we import the rest

    from bundle.pipeline.execution import run_to_exit_code
    from bundle.pipeline.pipeline import LocalPipeline
    from bundle.pipeline.requests import LocalServer
    from bundle.reports.screen.console import Screen

    request = evaluation_request(options)
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
    raise typer.Exit(run_to_exit_code(LocalPipeline(request, server, machine, Screen(), conclusion(options))))
