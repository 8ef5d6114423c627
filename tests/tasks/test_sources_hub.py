"""Questions from the hub, against a hub on loopback; every load is a fresh process with its own cache."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.tasks.benchmarks import Benchmark
from bundle.tasks.sources import load_tables
from tests.patience import PATIENCE_S
from tests.tasks.fake_hub import FakeHub
from tests.tasks.fresh_process import Outcome, load_in_fresh_process
from tests.tasks.source_files import (
    CEVAL,
    CMMLU,
    SUBJECTS,
    WANTED,
    ceval_files,
    ceval_rows,
    parquet_files,
    question,
    write_files,
    zip_bytes,
)

ROWS = ceval_rows()
REPO = CEVAL.hub
UNREACHABLE = "http://127.0.0.1:9"  # the discard port; nothing listens there


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: {"README.md": b"# C-Eval", "ceval-exam.py": b"raise SystemExit"} | parquet_files(ROWS)}) as hub:
        yield hub


def load(home: Path, endpoint: str, benchmark: Benchmark = CEVAL, /, **environ: str) -> Outcome:
    wanted = WANTED if benchmark is CEVAL else [("agronomy", "test")]
    return load_in_fresh_process("hub", benchmark, wanted, HF_HOME=str(home), HF_ENDPOINT=endpoint, **environ)


def of_data_set(hub: FakeHub) -> list[str]:
    return [request for request in hub.requests if "/datasets/" in request]


def has_options(outcome: Outcome) -> bool:
    return all(way in outcome.remedy for way in ("--data modelscope", "--data PATH", "HF_ENDPOINT", "--data sample"))


@pytest.mark.slow
def test_the_hubs_parquet_files_give_the_text_of_the_csv_files(hub: FakeHub, tmp_path: Path) -> None:
    outcome = load(tmp_path / "hf", hub.url)
    directory = load_tables(str(write_files(tmp_path / "ceval", ceval_files(ROWS))), CEVAL, WANTED)
    assert outcome.rows == ROWS
    assert outcome.fingerprint == directory.fingerprint
    assert outcome.origin == f"hub {REPO} @ {hub.commit(REPO)} at {hub.url.removeprefix('http://')}"
    assert outcome.said[:-1] == [f"Downloading 6 files of {REPO} from the Hub at {hub.url.removeprefix('http://')}."]
    assert outcome.printed == ""
    assert "torch" not in outcome.modules  # it takes seconds to import, and is installed where the server is


def test_every_file_is_fetched_once_and_no_other_file_at_all(hub: FakeHub, tmp_path: Path) -> None:
    load(tmp_path, hub.url)
    gets = sorted(request for request in of_data_set(hub) if request.startswith("GET /datasets/"))
    commit = hub.commit(REPO)
    expected = [f"{subject}/{split}-00000-of-00001.parquet" for subject in SUBJECTS for split in ("dev", "val")]
    assert gets == sorted(f"GET /datasets/{REPO}/resolve/{commit}/{name}" for name in expected)
    assert len(of_data_set(hub)) <= 2 + 2 * len(WANTED)  # what is there, for us and for snapshot_download, and each


def test_what_is_cached_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    first = load(tmp_path, hub.url)
    hub.requests.clear()
    second = load(tmp_path, hub.url)
    assert second.rows == first.rows
    assert of_data_set(hub) == [f"GET /api/datasets/{REPO}"]
    assert not any("ownload" in line for line in second.said)


@pytest.mark.slow
def test_a_new_commit_is_noticed_and_only_what_changed_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    first = load(tmp_path, hub.url)
    changed = ROWS | {("law", "val"): [question(0, A="changed")]}
    hub.repos[REPO] |= parquet_files(changed)
    hub.requests.clear()
    second = load(tmp_path, hub.url)
    assert second.rows == changed
    assert second.fingerprint != first.fingerprint
    assert hub.commit(REPO) in second.origin
    assert len([request for request in of_data_set(hub) if request.startswith("GET /datasets/")]) == 1


@pytest.mark.slow
def test_of_several_commits_in_the_cache_the_one_fetched_last_is_used(hub: FakeHub, tmp_path: Path) -> None:
    commits = []
    for answer in "AB":
        hub.repos[REPO] |= parquet_files({("law", "val"): [question(0, answer=answer)]})
        load(tmp_path, hub.url)
        commits.append(hub.commit(REPO))
    [snapshots] = (tmp_path / "hub").glob("datasets--*/snapshots")
    for latest in commits:
        for commit in commits:
            os.utime(snapshots / commit, (0, 1 if commit == latest else 0))
        assert f"@ {latest} (cached copy)" in load(tmp_path, UNREACHABLE, HF_HUB_OFFLINE="1").origin


def test_offline_mode_uses_the_cache_and_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    online = load(tmp_path, hub.url)
    hub.requests.clear()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        offline = load(tmp_path, hub.url, **{name: "1"})
        assert offline.rows == online.rows
        assert offline.origin == f"hub {REPO} @ {hub.commit(REPO)} (cached copy)"
        assert offline.fingerprint == online.fingerprint
    assert of_data_set(hub) == []


def test_offline_mode_with_an_empty_cache_is_an_error_with_the_ways_out(tmp_path: Path) -> None:
    outcome = load(tmp_path, UNREACHABLE, HF_HUB_OFFLINE="1")
    assert (
        f"{REPO} could not be downloaded from the Hub: offline mode is on, and the cache {tmp_path}/hub"
        in outcome.error
    )
    assert "HF_HUB_OFFLINE" in outcome.remedy
    assert has_options(outcome)


@pytest.mark.slow
def test_offline_mode_with_only_some_of_the_files_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    load_in_fresh_process("hub", CEVAL, WANTED[:2], HF_HOME=str(tmp_path), HF_ENDPOINT=hub.url)
    assert "does not have all the files needed" in load(tmp_path, hub.url, HF_HUB_OFFLINE="1").error


def test_a_hub_that_cannot_be_reached_is_an_error_with_the_ways_out(tmp_path: Path) -> None:
    outcome = load(tmp_path, UNREACHABLE)
    assert f"{REPO} could not be downloaded from the Hub: 127.0.0.1:9 cannot be reached: " in outcome.error
    assert "cannot be reached: Connection refused" in outcome.error
    assert has_options(outcome)
    assert outcome.seconds < PATIENCE_S
    assert outcome.printed == ""


def test_a_hub_whose_name_is_unknown_is_an_error_with_the_ways_out(tmp_path: Path) -> None:
    outcome = load(tmp_path, "http://hub.invalid")
    assert "hub.invalid cannot be reached: " in outcome.error
    assert has_options(outcome)


@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.silent = True
    outcome = load(tmp_path, hub.url, HF_HUB_ETAG_TIMEOUT="1")
    assert "could not be downloaded" in outcome.error
    assert has_options(outcome)
    assert outcome.seconds < PATIENCE_S


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_any_more_leaves_the_cached_copy_and_this_is_said(
    hub: FakeHub, tmp_path: Path
) -> None:
    online = load(tmp_path, hub.url)
    cut_off = load(tmp_path, UNREACHABLE)
    assert cut_off.rows == online.rows
    assert cut_off.origin.endswith(f"@ {hub.commit(REPO)} (cached copy)")
    assert cut_off.said[0].startswith(f"Using the cached copy of {REPO}: 127.0.0.1:9 cannot be reached: ")


@pytest.mark.parametrize(
    ("status", "code", "login"),
    [(401, "GatedRepo", True), (403, "", True), (401, "", True), (404, "RepoNotFound", False), (500, "", False)],
)
def test_a_refusal_is_an_error_with_its_status(
    status: int, code: str, login: bool, hub: FakeHub, tmp_path: Path
) -> None:
    hub.refusal = (status, code)
    outcome = load(tmp_path, hub.url)
    assert str(status) in outcome.error
    assert ("HF_TOKEN" in outcome.remedy) == login
    assert has_options(outcome)


def test_a_login_page_in_place_of_the_hub_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    hub.portal = True
    outcome = load(tmp_path, hub.url)
    assert "could not be downloaded" in outcome.error
    assert has_options(outcome)


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (403, "")])
def test_files_that_want_a_login_are_an_error_that_says_how(
    status: int, code: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.gate = (status, code)
    outcome = load(tmp_path, hub.url)
    assert str(status) in outcome.error
    assert "`hf auth login` or set HF_TOKEN" in outcome.remedy
    assert outcome.seconds < PATIENCE_S


@pytest.mark.parametrize("endpoint", ["hf-mirror.com", "ftp://hf-mirror.com", "me:hunter2@hf-mirror.com"])
def test_an_endpoint_without_a_scheme_is_an_error_that_gives_the_right_one(endpoint: str, tmp_path: Path) -> None:
    outcome = load(tmp_path, endpoint)
    assert "HF_ENDPOINT is" in outcome.error
    assert "Set HF_ENDPOINT=https://hf-mirror.com" in outcome.remedy
    assert "hunter2" not in outcome.error + outcome.remedy + outcome.printed


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[::1",
        "http://host:99999",
        "http://host:s3cret",
        "http://host:0",
        "http://host /",
        "https://",
        "http://h\ni",
    ],
)
def test_an_endpoint_that_is_no_address_is_an_error(endpoint: str, tmp_path: Path) -> None:
    outcome = load(tmp_path, endpoint)
    assert outcome.error == "HF_ENDPOINT is not a valid address."
    assert "unset it" in outcome.remedy


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    outcome = load(tmp_path, "https://127.0.0.1:9", SSL_CERT_FILE="/nowhere/ca.pem")
    assert (
        "The certificates in SSL_CERT_FILE=/nowhere/ca.pem cannot be read: No such file or directory" in outcome.error
    )
    assert "unset it" in outcome.remedy


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HOME"])
@pytest.mark.parametrize("place", ["/proc/cache", "file/cache"])
def test_a_cache_that_cannot_be_written_is_named_and_not_the_hub(
    variable: str, place: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").touch()
    cache = tmp_path / place
    environ = {variable: str(cache), "HF_ENDPOINT": hub.url}
    outcome = load_in_fresh_process("hub", CEVAL, WANTED[:2], **environ)
    cache /= {"HF_HOME": "hub", "HF_HUB_CACHE": "", "HOME": ".cache/huggingface/hub"}[variable]
    assert f"from the Hub: {cache} cannot be written: " in outcome.error
    assert outcome.remedy == "Set HF_HOME to a directory that can be written."


def test_a_login_that_cannot_be_read_is_not_the_caches_fault(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    outcome = load(tmp_path, hub.url)
    assert "cannot be written" not in outcome.error
    assert f"Is a directory: '{tmp_path}/token'" in outcome.error


def test_a_cache_with_a_name_that_no_directory_can_have_has_nothing(tmp_path: Path) -> None:
    outcome = load(Path("/" + "a" * 300), UNREACHABLE)
    assert "does not have all the files needed" in outcome.error
    assert "Set HF_HOME to a directory that can be written." in outcome.remedy


def test_an_empty_endpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    outcome = load(tmp_path, "")
    assert "HF_ENDPOINT is ''" in outcome.error
    assert "unset it" in outcome.remedy


def test_an_endpoint_with_https_at_a_hub_without_tls_is_an_error_that_gives_the_right_one(
    hub: FakeHub, tmp_path: Path
) -> None:
    outcome = load(tmp_path, hub.url.replace("http:", "https:"))
    assert "cannot be used: the server does not use TLS" in outcome.error
    assert f"Use HF_ENDPOINT={hub.url}." in outcome.remedy


@pytest.mark.slow
def test_progress_is_reported_while_many_files_are_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    rows = {(f"subject{number}", "val"): [question(0)] for number in range(60)}
    hub.repos[REPO] = parquet_files(rows)
    outcome = load_in_fresh_process("hub", CEVAL, list(rows), HF_HOME=str(tmp_path), HF_ENDPOINT=hub.url)
    assert outcome.said[1:] == ["Downloaded 25 of 60 files.", "Downloaded 50 of 60 files."]


def test_a_password_in_the_endpoint_is_shown_nowhere(hub: FakeHub, tmp_path: Path) -> None:
    hub.refusal = (404, "RepoNotFound")
    outcome = load(tmp_path, hub.url.replace("://", "://me:hunter2@"))
    assert hub.url.removeprefix("http://") in outcome.error
    assert "hunter2" not in outcome.error + outcome.remedy + outcome.printed + "".join(outcome.said)


def test_a_mirror_that_holds_the_archive_is_read_from_the_archive(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos[REPO] = {
        "README.md": b"",
        "ceval-exam.py": b"raise SystemExit",
        CEVAL.archive: zip_bytes(ceval_files(ROWS)),
    }
    outcome = load(tmp_path, hub.url)
    assert outcome.rows == ROWS
    assert outcome.origin.startswith(f"hub {REPO} @ {hub.commit(REPO)}, ceval-exam.zip")
    offline = load(tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert offline.origin == f"hub {REPO} @ {hub.commit(REPO)}, ceval-exam.zip (cached copy)"
    assert offline.fingerprint == outcome.fingerprint


def test_parquet_and_archive_are_never_mixed(hub: FakeHub, tmp_path: Path) -> None:
    files = parquet_files({pair: [question(0)] for pair in WANTED[:-1]})
    hub.repos[REPO] = files | {CEVAL.archive: zip_bytes(ceval_files(ROWS))}
    assert load(tmp_path, hub.url).rows == ROWS


def test_a_data_set_that_lacks_a_subject_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    del hub.repos[REPO]["logic/val-00000-of-00001.parquet"]
    outcome = load(tmp_path, hub.url)
    assert "has neither all of logic/val-*.parquet nor ceval-exam.zip; it contains README.md" in outcome.error
    assert has_options(outcome)


def test_a_renamed_data_set_is_followed(tmp_path: Path) -> None:
    text = ",Question,A,B,C,D,Answer\n0,问题,甲,乙,丙,丁,C\n".encode()
    with FakeHub({"lmlmcat/cmmlu": {CMMLU.archive: zip_bytes({"test/agronomy.csv": text})}}) as hub:
        hub.renamed = {CMMLU.hub: "lmlmcat/cmmlu"}
        outcome = load(tmp_path, hub.url, CMMLU)
    assert outcome.error == ""
    assert outcome.rows["agronomy", "test"][0]["answer"] == "C"


def test_a_table_that_does_not_hold_the_benchmark_is_an_error_with_its_file_and_row(
    hub: FakeHub, tmp_path: Path
) -> None:
    rows = [question(0), question(1, answer="E")]
    hub.repos[REPO] |= parquet_files({("law", "val"): rows})
    assert load(tmp_path, hub.url).error == (
        f"hub {REPO} @ {hub.commit(REPO)}: law/val-00000-of-00001.parquet, row 2: "
        "the answer is 'E', not one of A, B, C, D."
    )


@pytest.mark.parametrize("password", ["s3c#ret", "s3c/ret"])
def test_a_proxy_that_cannot_be_used_is_named_and_nothing_of_its_password_is_shown(
    tmp_path: Path, password: str
) -> None:
    proxy = f"http://user:{password}@127.0.0.1:3128"
    outcome = load_in_fresh_process(
        "hub",
        CEVAL,
        WANTED[:2],
        HF_HOME=str(tmp_path),
        HF_ENDPOINT="https://hub.example",
        https_proxy=proxy,
        NO_PROXY="",
    )

    assert "The proxy in https_proxy is not a valid address" in outcome.error
    assert "NO_PROXY=hub.example" in outcome.remedy
    assert "s3c" not in outcome.error + outcome.remedy
