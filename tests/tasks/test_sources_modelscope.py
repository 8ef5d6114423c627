"""Questions from ModelScope, against a ModelScope on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.errors import DataError
from bundle.tasks.sources import Tables, load_tables, modelscope
from tests.tasks.fake_modelscope import FakeModelScope
from tests.tasks.source_files import CEVAL, WANTED, ceval_files, ceval_rows, write_files, zip_bytes

ROWS = ceval_rows()
PATH = "/datasets/opencompass/ceval-exam/resolve/master/ceval-exam.zip"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelScope]:
    monkeypatch.setattr(modelscope, "RETRY_AFTER_S", (0.01, 0.01))
    monkeypatch.setenv("no_proxy", "*")
    with FakeModelScope({PATH: zip_bytes(ceval_files(ROWS))}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        yield server


def load(said: list[str] | None = None) -> Tables:
    return load_tables("modelscope", CEVAL, WANTED, (said if said is not None else []).append)


def failure() -> DataError:
    with pytest.raises(DataError) as caught:
        load()
    assert caught.value.remedy is not None
    assert all(way in caught.value.remedy for way in ("--data hub", "--data PATH", "MODELSCOPE_ENDPOINT"))
    return caught.value


def kept(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


def test_the_archive_gives_the_same_as_a_directory(server: FakeModelScope, tmp_path: Path) -> None:
    said: list[str] = []
    tables = load(said)
    assert tables.rows == ROWS
    assert tables.origin == "modelscope opencompass/ceval-exam, ceval-exam.zip"
    assert said[0] == f"Downloading {server.url}{PATH}."
    directory = load_tables(str(write_files(tmp_path / "ceval", ceval_files(ROWS))), CEVAL, WANTED)
    assert tables.fingerprint == directory.fingerprint


def test_https_at_a_server_without_tls_is_an_error_that_gives_the_right_address(
    server: FakeModelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url.replace("http:", "https:"))
    error = failure()
    assert "cannot be used: the server does not use TLS" in error.message
    assert f"Use MODELSCOPE_ENDPOINT={server.url}." in str(error.remedy)


def test_a_cache_with_a_name_that_no_directory_can_have_is_named(
    server: FakeModelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", "/" + "a" * 300)
    with pytest.raises(DataError, match="cannot be written: File name too long") as caught:
        load()
    assert "Set MODELSCOPE_CACHE" in str(caught.value.remedy)


def test_the_second_time_nothing_is_asked(server: FakeModelScope) -> None:
    first = load()
    said: list[str] = []
    second = load(said)
    assert server.requests == [f"GET {PATH}"]
    assert second.rows == first.rows
    assert second.origin == "modelscope opencompass/ceval-exam, ceval-exam.zip (cached)"
    assert not any("ownload" in line for line in said)


def test_only_the_whole_file_is_left_in_the_cache(server: FakeModelScope, tmp_path: Path) -> None:
    load()
    assert kept(tmp_path / "cache") == ["bundle/opencompass/ceval-exam/ceval-exam.zip"]


def test_without_a_named_cache_the_users_own_is_used(
    server: FakeModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELSCOPE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    load()
    assert kept(tmp_path) == [".cache/bundle/modelscope/opencompass/ceval-exam/ceval-exam.zip"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MODELSCOPE_DOMAIN", "modelscope.example", "https://modelscope.example"),
        ("MODELSCOPE_ENDPOINT", "http://modelscope.example/", "http://modelscope.example"),
        ("MODELSCOPE_ENDPOINT", "", "https://www.modelscope.cn"),
    ],
)
def test_the_server_can_be_named(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT", raising=False)
    monkeypatch.delenv("MODELSCOPE_DOMAIN", raising=False)
    monkeypatch.setenv(name, value)
    assert modelscope.endpoint() == expected


def test_a_passing_failure_is_tried_again(server: FakeModelScope) -> None:
    server.failures = [503, 429]
    assert load().rows == ROWS
    assert len(server.requests) == 3


def test_a_lasting_failure_is_an_error_with_its_status(server: FakeModelScope, tmp_path: Path) -> None:
    server.failures = [502] * 9
    assert failure().message.endswith("ceval-exam.zip could not be downloaded: the server answered 502 Bad Gateway.")
    assert len(server.requests) == 3
    assert kept(tmp_path / "cache") == []


def test_a_refusal_is_not_tried_again(server: FakeModelScope) -> None:
    server.files.clear()
    assert "the server answered 404" in failure().message
    assert len(server.requests) == 1


@pytest.mark.parametrize("place", ["/proc/cache", "file/cache"])
def test_a_cache_that_cannot_be_written_is_an_error_that_names_its_variable(
    server: FakeModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / place))
    with pytest.raises(DataError, match=r"bundle/opencompass/ceval-exam cannot be written: N") as caught:
        load()
    assert caught.value.remedy == "Set MODELSCOPE_CACHE to a directory that can be written."


def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(server: FakeModelScope, tmp_path: Path) -> None:
    server.cut = 100
    assert "the connection ended after" in failure().message
    assert kept(tmp_path / "cache") == []


@pytest.mark.parametrize("data", [b"<html>Please log in</html>", zip_bytes(ceval_files(ROWS))[:-200], b""])
def test_what_is_no_sound_zip_is_an_error_and_is_not_kept(data: bytes, server: FakeModelScope, tmp_path: Path) -> None:
    server.files[PATH] = data
    assert "did not send a valid .zip" in failure().message
    assert kept(tmp_path / "cache") == []


def test_a_zip_with_a_damaged_member_is_an_error(server: FakeModelScope, tmp_path: Path) -> None:
    data = bytearray(server.files[PATH])
    data[100] ^= 0xFF
    server.files[PATH] = bytes(data)
    assert "did not send a valid .zip" in failure().message
    assert kept(tmp_path / "cache") == []


def test_a_download_of_absurd_size_is_given_up(server: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelscope, "MAX_DOWNLOAD_BYTES", 1000)
    assert "is larger than 1,000 bytes" in failure().message


def test_a_cached_file_that_was_damaged_says_how_to_get_it_again(server: FakeModelScope, tmp_path: Path) -> None:
    load()
    path = tmp_path / "cache/bundle/opencompass/ceval-exam/ceval-exam.zip"
    path.write_bytes(b"PK")
    assert f"Remove {path}" in str(failure())


def test_an_archive_that_lacks_a_subject_is_an_error(server: FakeModelScope) -> None:
    server.files[PATH] = zip_bytes(ceval_files({pair: ROWS[pair] for pair in WANTED[:-1]}))
    assert "val/physician_val.csv is missing" in failure().message


def test_a_server_that_cannot_be_reached_is_an_error(server: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert "refused" in failure().message


def test_a_server_whose_name_is_unknown_is_an_error(server: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://modelscope.invalid")
    assert "modelscope.invalid" in failure().message


@pytest.mark.parametrize("address", ["file:///etc", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_no_http_server_is_an_error(
    address: str, server: FakeModelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
    assert "could not be downloaded" in failure().message


def test_a_server_that_never_answers_is_given_up_on(server: FakeModelScope, monkeypatch: pytest.MonkeyPatch) -> None:
    server.silent = True
    monkeypatch.setattr(modelscope, "READ_TIMEOUT_S", 0.1)
    assert "timed out" in failure().message


def test_a_download_that_takes_too_long_in_all_is_given_up(
    server: FakeModelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.silent = True
    monkeypatch.setattr(modelscope, "DOWNLOAD_LIMIT_S", 0.1)
    assert "no progress for 0.1 seconds" in failure().message
