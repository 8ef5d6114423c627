"""``bundle doctor``: find out before a run what would stop it."""

import json
from pathlib import Path
from typing import Annotated, NoReturn

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

    if cluster is not None:
        _examine_cluster(cluster, data, model_dir, out, time_limit, clean=clean, as_json=as_json)
    options = Options(data=data, model_dir=model_dir, out=out, clean=clean, limit_s=time_limit)
    topics = []
    for topic, findings in examine(options):
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


def _examine_cluster(
    address: str, data: str | None, model_dir: Path | None, out: Path, limit_s: float, *, clean: bool, as_json: bool
) -> NoReturn:
    # imported late: `bundle --help` needs none of it
    from bundle.doctor.cluster import examine_cluster
    from bundle.doctor.examination import show, show_summary, to_json
    from bundle.system.files import user_path
    from bundle.system.findings import worst

    arguments = ["--out", str(out.absolute()), "--time-limit", str(limit_s), *(["--clean"] if clean else [])]
    if data is not None:
        arguments += ["--data", str(Path(data).absolute()) if Path(data).exists() else data]
    arguments += [] if model_dir is None else ["--model-dir", str(user_path(model_dir).absolute())]
    machines = examine_cluster(address, arguments)
    found = [finding for topics in machines.values() for _, finding in topics]
    if as_json:
        typer.echo(json.dumps({name: to_json(topics) for name, topics in machines.items()}, indent=2))
    else:
        for name, topics in machines.items():
            typer.echo(f"{name}:" if topics else f"{name}: the machines agree")
            for topic, finding in topics:
                show(topic, finding)
        show_summary(found)
    raise typer.Exit(worst(found).exit_code)
