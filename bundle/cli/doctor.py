"""``bundle doctor``: find out before a run what would stop it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bundle.runs.finding import OUTPUTS


def doctor(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Check that questions can be read from hub, modelscope, sample, a directory or a .zip.",
            show_default="hub",
        ),
    ] = None,
    model_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Check this checkpoint as well.", show_default=False)
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto", help="Check every machine of this Ray cluster instead.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Check the space in DIR, where runs are saved.")] = OUTPUTS,
    clean: Annotated[
        bool, typer.Option("--clean", help="End processes and remove files that earlier runs left behind.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of a check; slow ones get three times that.")
    ] = 10.0,
) -> None:
    """Check whether this machine can serve and evaluate.

    With --cluster, the machines of a Ray cluster are checked instead.
    Exits with 0 if all is well, 1 if there are warnings, 2 if something will stop a run.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.doctor.examination import Options, examine, show, show_summary, to_json
    from bundle.system.findings import worst

    options = Options(data=data, model_dir=model_dir, out=out, clean=clean, limit_s=time_limit)
    topics = []
    content: object
    if cluster is not None:
        from bundle.doctor.cluster import examine_cluster  # imported late: only a cluster needs it

        machines = examine_cluster(cluster, options)
        content = {name: to_json(found) for name, found in machines.items()}
        for name, found in machines.items():
            topics += found
            if not as_json:
                typer.echo(f"{name}:" if found else f"{name}: the machines agree")
                for topic, finding in found:
                    show(topic, finding)
    else:
        for topic, finding in examine(options):
            topics.append((topic, finding))
            if not as_json:
                show(topic, finding)
        content = to_json(topics)
    findings = [finding for _, finding in topics]
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        show_summary(findings)
    raise typer.Exit(worst(findings).exit_code)
