"""Model files: what ships, what a user writes, and the mistakes in it. Keys from the environment."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.client import insecure, normalise_base_url
from bundle.config.files import file_names, find_file
from bundle.config.model_files import ModelFile, headers_from, keys_from_environment, model_file
from bundle.errors import ConfigError

VARIABLE = "BUNDLE_TEST_API_KEY"


def written(directory: Path, content: str) -> ModelFile:
    path = directory / "mine.toml"
    path.write_text(content, encoding="utf-8")
    return model_file(str(path))


def test_the_file_for_the_puyu_api_says_what_the_tutorials_config_does() -> None:
    puyu = model_file("puyu-api")

    assert puyu.remote.model == "internlm2.5-latest"
    assert puyu.remote.base_url == "https://internlm-chat.intern-ai.org.cn/puyu/api/v1/"
    assert puyu.remote.api_key_env == "INTERNLM_API_KEY"
    assert (puyu.remote.qps, puyu.remote.concurrency, puyu.remote.retries) == (0.16, 1, 3)
    sampling = puyu.sampling
    assert (sampling.temperature, sampling.max_out_len, sampling.max_seq_len) == (0.01, 1024, 4096)
    assert puyu.prompt_shape == "flat"


@pytest.mark.parametrize("name", file_names("models"))
def test_every_file_that_ships_can_be_used_and_holds_no_key(name: str) -> None:
    file = model_file(name)

    assert file.description
    if file.remote.base_url is not None:
        assert not insecure(normalise_base_url(file.remote.base_url))
    assert "sk-" not in find_file("models", name).read_text(encoding="utf-8")


def test_a_file_of_ones_own_needs_a_description_and_nothing_else(tmp_path: Path) -> None:
    file = written(tmp_path, 'description = "mine"')

    assert file.remote.model is None
    assert file.sampling.temperature == 0
    assert file.prompt_shape is None
    assert not file.trust_remote_code


def test_whole_numbers_are_taken_where_a_fraction_may_stand(tmp_path: Path) -> None:
    file = written(tmp_path, 'description = "mine"\n[remote]\nqps = 2\ntimeout_s = 30\n[sampling]\ntemperature = 1')

    assert (file.remote.qps, file.remote.timeout_s, file.sampling.temperature) == (2, 30, 1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[remote]\nbase-url = 'x'", r"unknown key 'remote.base-url'. Did you mean base_url\?"),
        ("[remote]\nretry = 1", r"unknown key 'remote.retry'. Did you mean retries\?"),
        ("[remotes]\nqps = 1", r"unknown key 'remotes'. Did you mean remote\?"),
        ("[sampling]\ntemprature = 0", r"Did you mean temperature\?"),
        ("promptshape = 'flat'", r"Did you mean prompt_shape\?"),
        ("prompt_shape = 'chat'", r"key 'prompt_shape': .*'turns' or 'flat'"),
        ("[remote]\nqps = 0", r"key 'remote.qps': .*greater than 0"),
        ("[remote]\nqps = inf", r"key 'remote.qps': .*finite"),
        ("[remote]\nqps = nan", r"key 'remote.qps'"),
        ("[remote]\nqps = '0.16'", r"key 'remote.qps': .*valid number"),
        ("[remote]\nconcurrency = true", r"key 'remote.concurrency': .*valid integer"),
        ("[remote]\nconcurrency = 0", r"key 'remote.concurrency'"),
        ("[remote]\nretries = -1", r"key 'remote.retries'"),
        ("[remote]\ntimeout_s = 0", r"key 'remote.timeout_s'"),
        ("[remote]\nmodel = ''", r"key 'remote.model'"),
        ("[sampling]\ntemperature = nan", r"key 'sampling.temperature'"),
        ("[sampling]\nmax_out_len = 0", r"key 'sampling.max_out_len'"),
        ("[sampling]\nmax_seq_len = 1.5", r"key 'sampling.max_seq_len'"),
        ("[sampling]\ntop_p = 0", r"key 'sampling.top_p'"),
        ("[sampling]\nextra_body = { top_p = 0.5 }", r"top_p is set by \[sampling\] top_p"),
        ("[sampling]\nextra_body = { max_tokens = 5 }", r"max_tokens is set by \[sampling\] max_out_len"),
        ("[sampling]\nextra_body = { stream = true }", r"stream is set by --stream"),
        ("[sampling]\nextra_body = { x = nan }", r"key 'sampling.extra_body': only text, numbers"),
        ("[sampling]\nchat_template_kwargs = { day = 2026-11-26 }", r"'sampling.chat_template_kwargs': only text"),
        ("[remote]\nheaders = { 'api-key' = 's3cret' }", r"api-key holds a secret: name its environment variable"),
        ("[remote]\nheaders = { Authorization = 's3cret' }", r"Authorization holds a secret"),
        ("[remote]\nheaders = { 'X Title' = 'x' }", r"'X Title' cannot be set"),
        ("[remote]\nheaders = { Host = 'x' }", r"'Host' cannot be set"),
        ('[remote]\nheaders = { X = "a\\r\\nY: b" }', r"X contains a character that is not valid in a header"),
        ("[remote]\nheaders = { X = { env = 's3 cret' } }", r"key 'remote.headers.X"),
        ("[remote]\nheaders = { X = { file = 's3cret' } }", r"key 'remote.headers.X"),
        ("trust_remote_code = 'yes'", r"key 'trust_remote_code': .*valid boolean"),
        ("remote = 'puyu'", r"key 'remote': must be a table"),
        ("prompt_shape = 'turn'", r"key 'prompt_shape': must be 'turns' or 'flat' or 'plain'\. Did you mean turns"),
        ("architectures = 'A'", r"key 'architectures': must be a list"),
        ("[thinking]\nopen = '<plan>'", r"the key 'thinking.close' is missing"),
        ("[thinking]\nopen = ''\nclose = 'x'", r"key 'thinking.open': must not be empty"),
        ("[thinking]\nopen = '<A>'\nclose = '<a>'", r"key 'thinking': 'open' and 'close' must differ\."),
        ("[thinking]\nopen = 1\nclose = 'x'", r"key 'thinking.open': must be text in quotes"),
    ],
)
def test_a_mistake_is_told_with_file_key_and_the_nearest_valid_name(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        written(tmp_path, f'description = "mine"\n{line}\n')

    assert "mine.toml" in str(caught.value)
    assert "s3" not in str(caught.value)
    assert not re.search("Value error|Input should|pydantic", str(caught.value))


def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key 'remote.api_key_env'") as caught:
        written(tmp_path, 'description = "mine"\n[remote]\napi_key_env = "sk-4f7a91c2"')

    assert "4f7a" not in str(caught.value)


def test_the_examples_in_the_documentation_are_model_files(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
    whole, *parts = [block.split("```")[0] for block in document.split("```toml\n")[1:]]

    assert written(tmp_path, whole).remote.model == tomllib.loads(whole)["remote"]["model"]
    assert len(parts) == 3
    for part in parts:
        assert written(tmp_path, part).description


def test_the_fields_of_a_request_are_those_that_are_set(tmp_path: Path) -> None:
    settings = "top_p = 0.9\nextra_body = { top_k = 20 }\nchat_template_kwargs = { enable_thinking = false }"
    assert written(tmp_path, f'description = "mine"\n[sampling]\n{settings}').sampling.fields == {
        "top_p": 0.9,
        "top_k": 20,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert written(tmp_path, 'description = "mine"').sampling.fields == {}


def test_a_secret_header_comes_from_the_environment_and_is_shown_by_its_variables_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = '[remote]\nheaders = { X-Title = "t", Authorization = { env = "BUNDLE_TEST_API_KEY" } }'
    settings = written(tmp_path, f'description = "mine"\n{lines}').remote
    with pytest.raises(ConfigError, match=f"{VARIABLE}, for the header Authorization, is not set"):
        headers_from(settings)

    monkeypatch.setenv(VARIABLE, "Basic s3cret")
    assert headers_from(settings) == (
        {"X-Title": "t", "Authorization": "Basic s3cret"},
        {"X-Title": "t", "Authorization": f"${VARIABLE}"},
        ["s3cret"],
    )


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("sk-a", ["sk-a"]),
        ("sk-a,sk-b", ["sk-a", "sk-b"]),
        (" sk-a , sk-b ,\n", ["sk-a", "sk-b"]),
        ("sk-a,sk-a", ["sk-a"]),
        ("ab+c/d==", ["ab+c/d=="]),
    ],
)
def test_keys_come_from_the_environment_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, keys: list[str]
) -> None:
    monkeypatch.setenv(VARIABLE, value)

    assert keys_from_environment(VARIABLE) == keys


@pytest.mark.parametrize(("value", "state"), [(None, "not set"), ("", "empty"), (" , ", "empty")])
def test_a_missing_key_is_told_with_a_way_to_set_it_that_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, value: str | None, state: str
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)

    with pytest.raises(ConfigError, match=f"the environment variable {VARIABLE} is {state}") as caught:
        keys_from_environment(VARIABLE)

    assert f"read -rs {VARIABLE} && export {VARIABLE}" in str(caught.value)


@pytest.mark.parametrize("name", ["sk-4f7a91c2", "4f7a91c2", "a4f7a91c2", "", "A B"])
def test_a_name_that_may_be_a_key_is_not_repeated(name: str) -> None:
    with pytest.raises(ConfigError, match="never the key itself") as caught:
        keys_from_environment(name)

    assert "4f7a" not in str(caught.value)


@pytest.mark.parametrize(
    "bad", ["s3cret key", "s3cret\r\nX-Evil: 1", "s3cret\x7f", "s3cret密", "s3cret\u200b", "s3cr\tet"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv(VARIABLE, f"sk-good,{bad}")

    with pytest.raises(ConfigError, match=f"Key 2 of 2 in the environment variable {VARIABLE}") as caught:
        keys_from_environment(VARIABLE)

    assert "s3cr" not in str(caught.value)
    assert "sk-good" not in str(caught.value)


@pytest.mark.parametrize("bad", ['"s3cret"', "'s3cret'", "“s3cret”"])
def test_a_key_in_quotation_marks_is_refused(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv(VARIABLE, bad)

    with pytest.raises(ConfigError, match="The key in the environment variable"):
        keys_from_environment(VARIABLE)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_whatever_the_variable_holds_is_keys_a_header_can_carry_or_an_error(value: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, value)
        try:
            keys = keys_from_environment(VARIABLE)
        except ConfigError:
            return

    assert keys
    assert all(key.isascii() and key.isprintable() and " " not in key for key in keys)
