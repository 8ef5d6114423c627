"""An engine that is not there."""

from pathlib import Path

import pytest

from bundle.errors import EngineMissingError, ExitCode
from bundle.serving.machine import Machine
from tests.stand_ins.box import without_servers_of_our_own


@pytest.mark.parametrize(("engine", "words"), [("vllm", "docs/engines.md"), ("lmdeploy", "pip install '.[gpu]'")])
def test_an_engine_that_is_not_installed_is_for_the_user_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, words: str
) -> None:
    without_servers_of_our_own(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(f"BUNDLE_{engine.upper()}", raising=False)
    with pytest.raises(EngineMissingError, match=f"{engine} is not installed") as caught:
        Machine().installation(engine)
    assert caught.value.exit_code is ExitCode.USAGE
    assert words in str(caught.value.remedy)


def test_so_is_one_that_is_not_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE_VLLM", str(tmp_path / "vllm"))
    with pytest.raises(EngineMissingError, match="BUNDLE_VLLM names"):
        Machine().installation("vllm")
