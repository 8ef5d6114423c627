"""What ``bundle doctor --cluster`` makes of the machines' findings; `tests/cluster` has machines."""

from bundle.doctor.cluster import _differences
from bundle.system.findings import ok


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
