"""Files of a checkpoint that are programs run elsewhere, within bounds: here they are made to break each."""

import asyncio
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from bundle.checkpoints import prove_tokenizer, token_counter
from bundle.checkpoints.confined import FILE_BYTES, LIMITS, MEMORY_BYTES, call_confined, run_confined
from bundle.errors import CheckpointError, TokenizerError
from bundle.tasks.prompts import Message

DOUBLING = {"type": "Replace", "pattern": {"Regex": "(.)"}, "content": "aa"}
HERE = __name__


def limits() -> list[int]:
    return [
        resource.getrlimit(which)[0] for which in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK)
    ]


def variables() -> dict[str, str]:
    return dict(os.environ)


def refuse(what: str) -> None:
    raise CheckpointError(f"{what} is wrong.", remedy="Fix it.", details=["a line"])


def take(size: int) -> int:
    return len(bytearray(size))


def write(path: str, size: int) -> None:
    Path(path).write_bytes(bytes(size))


def sleep_for_ever() -> None:
    print("sleeping", flush=True)
    while True:
        pass


@pytest.fixture
def model(tmp_path: Path, tiny: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "tiny")


def doubled(model: Path, times: int) -> Path:
    """The checkpoint, with a tokenizer.json that makes 2^times characters of each."""
    file = model / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"] = {"type": "Sequence", "normalizers": [DOUBLING] * times}
    file.write_text(json.dumps(content))
    return model


def test_a_function_is_called_with_bounds_and_its_value_comes_back() -> None:
    assert call_confined(HERE, "limits") == list(LIMITS.values())


def test_it_has_no_keys_and_nothing_that_leads_to_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "ALL_PROXY", "HF_ENDPOINT", "HF_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen = call_confined(HERE, "variables")
    assert not {name for name in seen if "proxy" in name.lower() or name in ("HF_ENDPOINT", "HF_TOKEN")}
    assert "OPENAI_API_KEY" not in seen
    assert seen["HF_HUB_OFFLINE"] == "1"


def test_an_error_for_the_user_comes_back_as_it_was() -> None:
    with pytest.raises(CheckpointError, match=r"^config.json is wrong\. Fix it\.$") as caught:
        call_confined(HERE, "refuse", "config.json")
    assert caught.value.details == ("a line",)


def test_more_memory_than_allowed_ends_it() -> None:
    with pytest.raises(TokenizerError, match="could not be read") as caught:
        call_confined(HERE, "take", MEMORY_BYTES)
    assert "MemoryError" in caught.value.details[-1]


def test_a_file_larger_than_allowed_ends_it(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="could not be read"):
        call_confined(HERE, "write", str(tmp_path / "file"), FILE_BYTES + 1)
    assert (tmp_path / "file").stat().st_size <= FILE_BYTES


def test_what_does_not_end_is_ended_when_its_time_is_up() -> None:
    with pytest.raises(TokenizerError, match="took longer than 1 seconds"):
        call_confined(HERE, "sleep_for_ever", limit_s=1)


async def test_a_run_that_is_interrupted_takes_it_along(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    running = asyncio.ensure_future(run_confined([sys.executable, "-c", program], [], limit_s=600))
    while not (started.is_file() and started.read_text()):  # noqa: ASYNC110 - another process announces nothing
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{started.read_text()}").exists()


# 22 such normalizers keep a processor busy for an hour, so the limits are what ends these tests.


def test_counting_with_a_tokenizer_that_never_ends_is_an_error_within_the_limit(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_confined, "__kwdefaults__", {**(call_confined.__kwdefaults__ or {}), "limit_s": 3.0})
    count = token_counter(doubled(model, 40))
    assert count is not None
    with pytest.raises(TokenizerError, match="prompts cannot be measured"):
        count.of_texts(["a text"])


async def test_a_template_that_asks_for_all_the_memory_is_refused(model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ 'a' * 5000000000 }}"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json cannot be used: MemoryError: more than"):
        await prove_tokenizer(model, python=sys.executable, trust_remote_code=True)


async def test_so_is_one_that_does_it_for_a_prompt_of_the_run(model: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] += "{% if messages|length > 5 %}{{ 'a' * 5000000000 }}{% endif %}"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    prompt: list[Message] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}] * 4
    with pytest.raises(TokenizerError, match="MemoryError"):
        await prove_tokenizer(model, python=sys.executable, trust_remote_code=True, conversations=[prompt])
