"""``bundle doctor``: find out before a run what would stop it."""

import json
from dataclasses import dataclass
from pathlib import Path

import typer

from bundle.cli.options import option, with_options
from bundle.runs.finding import OUTPUTS


@dataclass(frozen=True, slots=True)
class _Options:
    data: str | None = option(
        None,
        "Check that questions can be read from hub, modelscope, sample, a directory or a .zip.",
        metavar="SOURCE",
        default="hub",
    )
    model_dir: Path | None = option(None, "Check this checkpoint as well.", metavar="DIR")
    cluster: str | None = option(None, "Check every machine of this Ray cluster instead.", metavar="HOST:PORT|auto")
    out: Path = option(OUTPUTS, "Check the space in DIR, where runs are saved.", metavar="DIR")
    clean: bool = option(False, "End processes and remove files that earlier runs left behind.", "--clean")
    as_json: bool = option(False, "Print JSON.", "--json")
    time_limit: float = option(
        10.0, "Time limit of a check; slow ones get three times that.", metavar="SECONDS", minimum=0.1
    )


@with_options
def doctor(asked: _Options) -> None:
    """Check whether this machine can serve and evaluate.

    With --cluster, the machines of a Ray cluster are checked instead.
    Exits with 0 if all is well, 1 if there are warnings, 2 if something will stop a run.
    """
    # imported late: `bundle --help` needs none of it
    from bundle.doctor.examination import Options, examine, show, show_summary, to_json
    from bundle.system.findings import worst

    options = Options(
        data=asked.data, model_dir=asked.model_dir, out=asked.out, clean=asked.clean, limit_s=asked.time_limit
    )
    topics = []
    content: object
    if asked.cluster is not None:
        from bundle.doctor.cluster import examine_cluster  # imported late: only a cluster needs it

        machines = examine_cluster(asked.cluster, options)
        content = {name: to_json(found) for name, found in machines.items()}
        for name, found in machines.items():
            topics += found
            if not asked.as_json:
                typer.echo(f"{name}:" if found else f"{name}: the machines agree")
                for topic, finding in found:
                    show(topic, finding)
    else:
        for topic, finding in examine(options):
            topics.append((topic, finding))
            if not asked.as_json:
                show(topic, finding)
        content = to_json(topics)
    findings = [finding for _, finding in topics]
    if asked.as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        show_summary(findings)
    raise typer.Exit(worst(findings).exit_code)
