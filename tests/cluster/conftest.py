"""Ray, as ``make test-cluster`` installs it; without that these tests are skipped."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.box import ClusterBox, Nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "BUNDLE_TEST_CLUSTER" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="`make test-cluster` installs Ray and runs these"))


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A cluster of a head and two machines with a GPU each; it takes many seconds to start. Of the module's kind."""
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray allows no long paths
    found = getattr(request.module, "CLUSTER", Nodes)(directory)
    yield found
    found.shut_down()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def box(tmp_path: Path, tiny: Path, nodes: Nodes) -> Iterator[ClusterBox]:
    """A machine of the cluster, from which evaluations are started."""
    nodes.settle()
    machine = ClusterBox(tmp_path, tiny, nodes)
    yield machine
    machine.end()
    if machine.log.exists():  # pytest shows it where the test has failed
        print(machine.log.read_text(encoding="utf-8"))
