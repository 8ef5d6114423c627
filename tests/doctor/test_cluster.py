"""What ``bundle doctor --cluster`` makes of the machines' findings; `tests/cluster` has machines."""

import asyncio
import json
from typing import Any

import pytest

from bundle.doctor.cluster import _differences, _examine
from bundle.errors import ServerError
from bundle.fleet import Machine
from bundle.system.findings import ok
from tests.evaluation.simulated_clock import run_simulated


def test_machines_that_differ_in_what_serves_are_named() -> None:
    machines = {
        "node-1": [("cpu engine", ok("transformers 5.24.0")), ("disk", ok("41 GB free"))],
        "node-2": [("cpu engine", ok("transformers 5.24.0")), ("disk", ok("3 GB free"))],
    }
    assert _differences(machines) == []

    machines["node-3"] = [("cpu engine", ok("transformers 5.23.0"))]
    ((topic, finding),) = _differences(machines)
    assert topic == "cpu engine"
    assert finding.details == ("node-1, node-2: transformers 5.24.0", "node-3: transformers 5.23.0")


def test_a_machine_with_another_checkpoint_is_named_and_what_it_needs_there_is_not_compared() -> None:
    found = {
        name: [("checkpoint", ok("model: 2 GB of weights")), ("checkpoint", ok(f"it needs 4 GB on {name}"))]
        for name in ("node-1", "node-2")
    }
    assert _differences(found) == []

    ((topic, finding),) = _differences({**found, "node-3": [("checkpoint", ok("model is empty"))]})
    assert topic == "checkpoint"
    assert finding.details == ("node-1, node-2: model: 2 GB of weights", "node-3: model is empty")


class ScriptedProgram:
    """A doctor on a machine, which writes something and ends; one that writes nothing and for no reason hangs."""

    def __init__(self, written: bytes, why: str) -> None:
        self._written = written
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if written or why:
            self.gone.set_result(why)

    async def output(self) -> bytes:
        await self.gone
        return self._written


class ScriptedHost:
    """A cluster of which a machine is lost that Ray still lists, one hangs, one lacks this program, one is well."""

    async def start(self, *arguments: str, node: str) -> ScriptedProgram:
        if node == "lost":
            raise ServerError("A worker could not be started on the cluster: the actor died.")
        if node == "stopped":
            return ScriptedProgram(b"", "")
        if node == "bare":
            return ScriptedProgram(b"", "it ended (exit code 1): No module named bundle")
        found = {"topic": "lmdeploy", "status": "ok", "text": "0.18.0", "remedy": None, "details": list[str]()}
        return ScriptedProgram(json.dumps({"findings": [found]}).encode(), "")


@pytest.mark.parametrize(
    ("node", "text", "why"),
    [
        ("lost", "this machine does not answer", "A worker could not be started on the cluster: the actor died."),
        ("stopped", "this machine does not answer", "It was not examined within 390 s."),
        ("bare", "bundle cannot be run on this machine", "it ended (exit code 1): No module named bundle"),
    ],
)
def test_a_machine_that_cannot_be_examined_is_said_and_differs_from_none(node: str, text: str, why: str) -> None:
    host: Any = ScriptedHost()
    machines = {
        name: run_simulated(_examine(host, Machine(name, name, 1, 1), [], limit_s=390.0)) for name in ("well", node)
    }

    ((_, finding),) = machines[node]
    assert (finding.text, finding.details) == (text, (why,))
    assert machines["well"] == [("lmdeploy", ok("0.18.0"))]
    assert _differences(machines) == []
