"""The options that both evaluation commands have, and what they come to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bundle.errors import UsageError

if TYPE_CHECKING:
    from bundle.pipeline.requests import EvaluationRequest
    from bundle.reports.gates.conclusion import Conclusion

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
MinScore = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PERCENT", help="Exit with 1 where this score is lower; can be repeated."),
]
Baseline = Annotated[Path | None, typer.Option(metavar="RUN", help="An earlier run to compare with; see --max-drop.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(metavar="POINTS", min=0, help="Exit with 1 where a score is so much lower than the baseline's."),
]
Summary = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table in Markdown, as for a pull request.")]
JUnit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, as for a CI server.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are made.")]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Go on with this run: only what has no reply yet is asked.", show_default=False),
]


def evaluation_request(options: Mapping[str, Any]) -> "EvaluationRequest":
    """What is asked of a model.

    Args:
        options: The command's parameters, by name.

    Raises:
        UsageError: They cannot be used as given.
    """
    from bundle.pipeline.requests import EvaluationRequest, parse_data
    from bundle.tasks.benchmarks import BENCHMARKS

    as_they_are = (
        "limit",
        "prompt_shape",
        "concurrency",
        "temperature",
        "max_out_len",
        "max_seq_len",
        "retries",
        "qps",
        "rpm_verbose",
        "answer_from_thinking",
        "full_replies",
        "all_subjects",
        "out",
        "resume",
    )
    return EvaluationRequest(
        tasks=tuple(options["task"] or ("ceval_gen",)),
        data=parse_data(options["data"] or (), tuple(BENCHMARKS)),
        subjects=_names(options["subjects"]),
        request_timeout_s=options["request_timeout"],
        prefix_order=not options["no_prefix_order"],
        **{name: options[name] for name in as_they_are},
    )


def conclusion(options: Mapping[str, Any]) -> "Conclusion | None":
    """What is made of the run when it is over; None for nothing but the table.

    Args:
        options: The command's parameters, by name.

    Raises:
        UsageError: They cannot be used as given.
        RunError: The baseline cannot be read.
    """
    wanted = {name: options[name] for name in ("baseline", "max_drop", "summary", "junit")}
    if not options["min_score"] and all(value is None for value in wanted.values()):
        return None
    from bundle.reports.gates.conclusion import parse_conclusion

    return parse_conclusion(min_scores=options["min_score"] or (), out=options["out"], **wanted)


def _names(value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError("--subjects names no subject.", remedy="Leave it out for all subjects.")
    return names
