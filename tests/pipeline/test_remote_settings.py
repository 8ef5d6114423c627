"""``bundle eval-remote``: where it asks, with which key, headers and fields, and what it says when that is wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from aiohttp import web

from tests.openai_api import Call, Handler, completion, error, letter, remote_api
from tests.pipeline.test_eval_remote import ENVIRONMENT, SECRET
from tests.program import call, results_of, rows_of

LAW = ("--data", "sample", "--subjects", "law")


def evaluated(out: Path, *arguments: object, **environment: str) -> "CompletedProcess[str]":
    return call("eval-remote", *arguments, *LAW, "--out", out, environment=ENVIRONMENT | environment)


def model_file(directory: Path, text: str) -> Path:
    path = directory / "mine.toml"
    path.write_text(f'description = "mine"\n{text}', encoding="utf-8")
    return path


def record_of(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*/run.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def require_unwritten(secret: str, out: Path, result: "CompletedProcess[str]") -> None:
    assert secret not in result.stdout + result.stderr
    for path in out.rglob("*"):
        assert secret not in path.name
        assert path.is_dir() or secret not in path.read_text(encoding="utf-8")


def test_the_usual_variables_are_honoured_and_said(tmp_path: Path) -> None:
    with remote_api() as api:
        result = evaluated(tmp_path, "m", OPENAI_BASE_URL=api.url, OPENAI_API_KEY=SECRET)

    assert result.returncode == 0, result.stderr
    assert set(api.keys) == {f"Bearer {SECRET}"}
    assert f"using OPENAI_BASE_URL={api.url}" in result.stderr
    assert "sending the API key in OPENAI_API_KEY" in result.stderr
    require_unwritten(SECRET, tmp_path, result)


def test_the_usual_key_goes_to_an_address_that_is_typed_and_no_other_key_does(tmp_path: Path) -> None:
    with remote_api() as api:
        evaluated(tmp_path, "m", "--base-url", api.url, OPENAI_API_KEY=SECRET)
        evaluated(tmp_path, "m", "--base-url", api.url, MOONSHOT_API_KEY=SECRET)

    assert api.keys == [f"Bearer {SECRET}"] * 2 + [None] * 2


def test_the_usual_key_does_not_go_where_a_model_file_points(tmp_path: Path) -> None:
    with remote_api() as api:
        file = model_file(tmp_path, f'[remote]\nmodel = "m"\nbase_url = "{api.url}"')
        result = evaluated(tmp_path / "out", file, OPENAI_API_KEY=SECRET)

    assert result.returncode == 0, result.stderr
    assert set(api.keys) == {None}


def test_the_usual_address_gives_way_to_one_that_is_typed(tmp_path: Path) -> None:
    with remote_api() as api:
        result = evaluated(tmp_path, "m", "--base-url", api.url, OPENAI_BASE_URL="http://127.0.0.1:9/v1")

    assert result.returncode == 0, result.stderr
    assert "OPENAI_BASE_URL" not in result.stderr


def test_a_password_in_the_usual_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    result = evaluated(tmp_path, "m", OPENAI_BASE_URL=f"http://me:{SECRET}%40host/v1")

    assert result.returncode == 2
    require_unwritten(SECRET, tmp_path, result)


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: error(404, "The model `sft-200` does not exist.", code="model_not_found"),
        lambda: error(400, "unknown model sft-200"),
        lambda: error(404, "Not Found"),
        lambda: error(503, "当前分组 default 下对于模型 sft-200 无可用渠道", code="model_not_found"),
    ],
)
def test_a_model_that_the_server_does_not_have_is_answered_with_those_it_has(
    tmp_path: Path, refusal: Callable[[], web.Response]
) -> None:
    async def refusing(call: Call) -> web.StreamResponse:
        return refusal()

    with remote_api(refusing, models=["sft-1000", "sft-2000"]) as api:
        result = evaluated(tmp_path, "sft-200", "--base-url", api.url)

    assert result.returncode == 3
    said = "The server has no model sft-200; it has sft-1000, sft-2000. Did you mean sft-2000?"
    assert f"hint: {said}" in result.stderr


def test_a_long_list_of_models_is_shortened(tmp_path: Path) -> None:
    async def refusing(call: Call) -> web.Response:
        return error(404, "The model does not exist.")

    with remote_api(refusing, models=[f"m-{number}" for number in range(500)]) as api:
        result = evaluated(tmp_path, "zzz", "--base-url", api.url)

    assert "m-19 and 480 more." in result.stderr
    assert "Did you mean" not in result.stderr


@pytest.mark.parametrize("models", [(), ("m",)])
def test_where_the_list_does_not_help_the_address_is_to_be_checked(tmp_path: Path, models: tuple[str, ...]) -> None:
    async def refusing(call: Call) -> web.Response:
        return error(404, "Not Found")

    with remote_api(refusing, models=models) as api:
        result = evaluated(tmp_path, "m", "--base-url", api.url)

    assert result.returncode == 3
    assert "hint: Check the model name and the base URL" in result.stderr


def test_without_a_key_a_list_that_needs_one_says_that_none_was_sent(tmp_path: Path) -> None:
    async def refusing(call: Call) -> web.Response:
        raise AssertionError

    with remote_api(refusing) as api:
        result = evaluated(tmp_path, "m", "--base-url", f"{api.url}/nowhere/v1")
    assert result.returncode == 3


def test_a_key_that_the_server_repeats_is_masked_wherever_it_is_written(tmp_path: Path) -> None:
    async def repeating(call: Call) -> web.Response:
        return completion(f"B, by {SECRET}", message={"reasoning_content": f"they sent {SECRET}"})

    with remote_api(repeating, models=[SECRET]) as api:
        options = ("--base-url", api.url, "--api-key-env", "MY_API_KEY", "--full-replies")
        result = evaluated(tmp_path, *options, MY_API_KEY=SECRET)

    assert result.returncode == 0, result.stderr
    assert {body["model"] for body in api.bodies} == {SECRET}
    require_unwritten(SECRET, tmp_path, result)
    assert {(row["reply"], row["thinking"]) for row in rows_of(tmp_path)} == {("B, by ***", "they sent ***")}
    assert record_of(tmp_path)["model"]["name"] == "***"


def test_a_key_among_the_names_of_several_models_is_masked(tmp_path: Path) -> None:
    with remote_api(models=[SECRET, "other"]) as api:
        options = ("--base-url", api.url, "--api-key-env", "MY_API_KEY")
        result = evaluated(tmp_path, *options, MY_API_KEY=SECRET)

    assert "serves 2 models: ***, other" in result.stderr
    require_unwritten(SECRET, tmp_path, result)


AZURE = """
[remote]
model = "gpt"
base_url = "{url}?api-version=2024-10-21"
headers = {{ api-key = {{ env = "AZURE_KEY" }}, X-Title = "bundle" }}
[sampling]
top_p = 0.9
reasoning_effort = "low"
chat_template_kwargs = {{ enable_thinking = false }}
extra_body = {{ top_k = 20 }}
"""


def test_headers_fields_and_a_version_are_sent_and_recorded_without_the_secret(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with remote_api() as api:
        file = model_file(tmp_path, AZURE.format(url=api.url))
        result = evaluated(out, file, AZURE_KEY=SECRET, OPENAI_API_KEY="sk-another-key")
        directory = result.stdout.splitlines()[-1]
        file.write_text(file.read_text(encoding="utf-8").replace("0.9", "0.8"), encoding="utf-8")
        other_field = evaluated(out, file, "--resume", directory, AZURE_KEY=SECRET)
        file.write_text(file.read_text(encoding="utf-8").replace("0.8", "0.9").replace("bundle", "you"))
        other_header = evaluated(out, file, "--resume", directory, AZURE_KEY=SECRET)
        unset = evaluated(out, file)

    assert result.returncode == 0, result.stderr
    assert set(api.queries) == {"api-version=2024-10-21"}
    assert set(api.keys) == {None}
    assert {(one["api-key"], one["x-title"]) for one in api.headers} == {(SECRET, "bundle")}
    fields = {
        "top_p": 0.9,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
        "top_k": 20,
    }
    assert all(body.items() >= fields.items() for body in api.bodies)
    record = record_of(out)
    assert record["sampling"]["extra_body"] == fields
    assert record["model"]["base_url"].endswith("?api-version=2024-10-21")
    assert record["model"]["headers"] == {"api-key": "$AZURE_KEY", "X-Title": "bundle"}
    require_unwritten(SECRET, out, result)
    assert other_field.returncode == 2
    assert "request field top_p: 0.9 then, 0.8 now" in other_field.stderr
    assert other_header.returncode == 2
    assert "header X-Title: bundle then, you now" in other_header.stderr
    assert unset.returncode == 2
    assert "The environment variable AZURE_KEY, for the header api-key, is not set" in unset.stderr


def failing_at_first(questions: int, refusals: int) -> Handler:
    """Fails the first questions so many times with what may pass."""
    met: dict[str, int] = {}

    async def handler(call: Call) -> web.StreamResponse:
        text = call.body["messages"][-1]["content"]
        if text in met or len(met) < questions:
            met[text] = met.get(text, 0) + 1
            if met[text] <= refusals:
                return error(500, "try later", {"Retry-After": "0"})
        return await letter(call)

    return handler


@pytest.mark.parametrize(("refusals", "code"), [(2, 0), (4, 4)])
def test_what_failed_in_passing_is_asked_once_more_at_the_end(tmp_path: Path, refusals: int, code: int) -> None:
    with remote_api(failing_at_first(1, refusals)) as api:
        result = evaluated(
            tmp_path, "m", "--base-url", api.url, "--retries", 1, "--concurrency", 1, "--stream", "never"
        )

    assert result.returncode == code, result.stderr
    assert "asking 1 question again that failed for a reason that may have passed" in result.stderr
    assert results_of(tmp_path)["coverage"] == {"total": 2, "answered": 2 - (code > 0), "failed": int(code > 0)}
    assert "2 of 2 questions" in result.stderr
    assert ("without a reply" in result.stderr.splitlines()[-1]) is (code > 0)


def test_what_was_refused_for_good_is_not_asked_again(tmp_path: Path) -> None:
    async def handler(call: Call) -> web.StreamResponse:
        return error(422, "not taken") if call.number <= 2 else await letter(call)

    with remote_api(handler) as api:
        result = evaluated(tmp_path, "m", "--base-url", api.url, "--concurrency", 1)

    assert result.returncode == 4
    assert len(api.bodies) == 3  # that it was the stream which was refused had to be tried
    assert "once more" not in result.stderr


def test_patience_ends_a_run_that_gets_no_reply(tmp_path: Path) -> None:
    async def limiting(call: Call) -> web.Response:
        return error(429, "slow down")

    with remote_api(limiting) as api:
        result = evaluated(tmp_path, "m", "--base-url", api.url, "--patience", "1s")
        mistyped = evaluated(tmp_path, "m", "--base-url", api.url, "--patience", "soon")

    assert result.returncode == 3
    assert re.search(r"has not replied for 1 s: HTTP 429: slow down", result.stderr)
    assert "--patience TIME waits longer" in result.stderr
    assert mistyped.returncode == 2
    assert "'soon' is not a valid time" in mistyped.stderr


@pytest.mark.parametrize("stream", ["always", "never"])
def test_streaming_is_an_option(tmp_path: Path, stream: str) -> None:
    with remote_api() as api:
        result = evaluated(tmp_path, "m", "--base-url", api.url, "--stream", stream)

    assert result.returncode == 0, result.stderr
    assert {body["stream"] for body in api.bodies} == {stream == "always"}
