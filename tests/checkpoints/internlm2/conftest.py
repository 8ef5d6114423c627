from pathlib import Path

import pytest

from bundle.checkpoints.internlm2 import make_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made checkpoint; tests read it and change nothing in it."""
    directory = tmp_path_factory.mktemp("internlm2") / "tiny"
    make_checkpoint(directory)
    return directory
