import os
from collections.abc import Iterator

import pytest

from tests.checkpoints.tokenizers import Prober


@pytest.fixture(scope="package")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prober]:
    modules = str(tmp_path_factory.mktemp("modules"))
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "USE_TORCH": "0"}
    with Prober({**os.environ, **quiet, "HF_MODULES_CACHE": modules}) as running:
        yield running
