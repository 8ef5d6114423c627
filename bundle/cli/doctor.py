"""``bundle doctor``: what is well on this machine and what is not, before a run finds out."""

import json
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="hub, modelscope, sample, a directory or a .zip: see whether questions can be had from there.",
            show_default="hub",
        ),
    ] = None,
    model_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look this checkpoint over as well.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are made.")] = Path("outputs"),
    clean: Annotated[
        bool, typer.Option("--clean", help="End processes and remove files that earlier runs have left.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Most seconds a check may take; slow ones three times.")
    ] = 10.0,
) -> None:
    """See whether this machine can serve and evaluate, and what earlier runs have left on it.

    Ends with 0 where all is well, 1 where there are warnings, 2 where something will stop a run.
    """
    from bundle.doctor.checks import examine
    from bundle.doctor.examination import Wanted, checks
    from bundle.doctor.findings import worst
    from bundle.doctor.report import show, show_summary, to_json

    wanted = Wanted(data=data, model_dir=model_dir, out=out, clean=clean, limit_s=time_limit)
    topics = []
    for topic, findings in examine(checks(wanted), time_limit):
        topics += [(topic, finding) for finding in findings]
        if not as_json:
            for finding in findings:
                show(topic, finding)
    found = [finding for _, finding in topics]
    if as_json:
        typer.echo(json.dumps(to_json(topics), ensure_ascii=True, indent=2))
    else:
        show_summary(found)
    raise typer.Exit(worst(found).exit_code)
