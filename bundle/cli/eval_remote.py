"""``bundle eval-remote``: ask a model behind an OpenAI-compatible API."""

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
    min_score: MinScore = None,
    baseline: Baseline = None,
    max_drop: MaxDrop = None,
    summary: Summary = None,
    junit: JUnit = None,
    out: Out = Path("outputs"),
    resume: Resume = None,
) -> None:
    """Ask a task's questions of a model behind any OpenAI-compatible API, print the scores."""
    options = locals()
    from bundle.pipeline.execution import run_to_exit_code
    from bundle.pipeline.pipeline import RemotePipeline
    from bundle.pipeline.requests import RemoteServer
    from bundle.reports.screen.console import Screen

    request = evaluation_request(options)
    server = RemoteServer(model=model, base_url=base_url, api_key_env=api_key_env)
    raise typer.Exit(run_to_exit_code(RemotePipeline(request, server, Screen(), conclusion(options))))
