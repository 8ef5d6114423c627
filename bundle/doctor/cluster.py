"""``bundle doctor --cluster``: the same checks on every machine of a cluster, and what the machines differ in."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bundle.doctor.examination import Options
from bundle.errors import ServerError
from bundle.fleet import UNTIL_MISSED_S, Host, Machine
from bundle.system.files import user_path
from bundle.system.findings import Finding, Status, failing, warning

Topics = list[tuple[str, Finding]]

_SAME_EVERYWHERE = ("packages", "lmdeploy", "vllm", "cpu engine", "checkpoint")
"""Topics in which machines that share a run should agree; what follows of a checkpoint is of each one's GPUs."""

_MOST_LIMITS: Final = 30
"""After so many times the limit of one check the examination of a machine hangs: it takes a few times that."""
_NOT_EXAMINED = "machine"
"""The topic of what is found of a machine that could not be examined."""


def examine_cluster(address: str, options: Options) -> dict[str, Topics]:
    """Examine the machines of a cluster, all at the same time. Raises BundleError if the cluster cannot be joined.

    Returns what was found, by machine; under "cluster" what concerns several.
    """
    arguments = ["--out", str(options.out.absolute()), "--time-limit", str(options.limit_s)]
    arguments += ["--clean"] if options.clean else []
    if (data := options.data) is not None:
        arguments += ["--data", str(Path(data).absolute()) if Path(data).exists() else data]
    if options.model_dir is not None:
        arguments += ["--model-dir", str(user_path(options.model_dir).absolute())]
    return asyncio.run(_examine_all(address, arguments, UNTIL_MISSED_S + _MOST_LIMITS * options.limit_s))


async def _examine_all(address: str, arguments: Sequence[str], limit_s: float) -> dict[str, Topics]:
    host = await Host.join(address)
    try:
        found = await asyncio.gather(*(_examine(host, machine, arguments, limit_s) for machine in host.machines))
    finally:
        await host.close()
    names = [machine.name for machine in host.machines]
    # Several raylets of one machine share its name.
    shown = [
        f"{name} ({machine.node[:8]})" if names.count(name) > 1 else name
        for name, machine in zip(names, host.machines, strict=True)
    ]
    machines = dict(zip(shown, found, strict=True))
    return {**machines, "cluster": _differences(machines)}


async def _examine(host: Host, machine: Machine, arguments: Sequence[str], limit_s: float) -> Topics:
    try:
        async with asyncio.timeout(limit_s):
            program = await host.start("-m", "bundle", "doctor", "--json", *arguments, node=machine.node)
            output = await program.output()
    except (ServerError, TimeoutError) as error:
        how = error.message if isinstance(error, ServerError) else f"It was not examined within {limit_s:.0f} s."
        remedy = "See `ray status`. For a while Ray lists a machine that is lost; a run does without it."
        return [(_NOT_EXAMINED, warning("this machine does not answer", remedy, [how]))]
    try:
        return [
            (one["topic"], Finding(Status(one["status"]), one["text"], one["remedy"], tuple(one["details"])))
            for one in json.loads(output)["findings"]
        ]
    except (ValueError, KeyError, TypeError):
        remedy = "Install this program in the environment with which `ray start` was run there."
        why = program.gone.result()
        return [(_NOT_EXAMINED, failing("bundle cannot be run on this machine", remedy, [why] if why else []))]


def _differences(machines: dict[str, Topics]) -> Topics:
    found: Topics = []
    examined = {
        machine: topics for machine, topics in machines.items() if all(topic != _NOT_EXAMINED for topic, _ in topics)
    }
    for topic in _SAME_EVERYWHERE:
        said: dict[tuple[str, ...], list[str]] = {}
        for machine, topics in examined.items():
            texts = tuple(finding.text for own, finding in topics if own == topic)[
                : 1 if topic == "checkpoint" else None
            ]
            said.setdefault(texts, []).append(machine)
        if len(said) > 1:
            details = [f"{', '.join(names)}: {'; '.join(texts) or 'nothing'}" for texts, names in said.items()]
            found.append(
                (topic, warning("machines differ", "A run uses only those that agree with the first.", details))
            )
    return found
