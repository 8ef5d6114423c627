"""The machine besides its GPUs: engines, disks, network; and the report itself."""

import os
import pty
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.doctor.examination import lines, run_checks
from bundle.doctor.resources import check_descriptors, check_output, check_proxies
from bundle.system.findings import Check, Finding, Status, ok, warning
from tests.doctor.examined import Examined, bare_machine, stand_in_packages
from tests.doctor.examined import examine as run_doctor
from tests.patience import PATIENCE_S
from tests.program import run
from tests.tasks.loopback import Loopback


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """A machine with nothing but this program."""
    directory = tmp_path_factory.mktemp("bare")
    environment = bare_machine(directory)
    found = run_doctor(environment=environment)
    # Looking leaves nothing behind.
    assert sorted(path.name for path in directory.iterdir()) == ["bin", "home", "tmp"]
    assert [path for path in directory.rglob("*") if path.is_file()] == []
    return found


def test_the_report_names_every_topic_also_where_nothing_is_installed_yet(bare: Examined) -> None:
    topics = {finding["topic"] for finding in bare.findings}
    assert topics == {
        "system", "packages", "gpu", "engine", "lmdeploy", "vllm", "cpu engine", "data", "disk", "network", "leftovers"
    }  # fmt: skip
    assert bare.one("packages", "openai")["status"] == "ok"
    assert bare.one("network", "127.0.0.1 can be reached")["status"] == "ok"
    assert "CPU" in bare.of("gpu")[0]["text"]
    assert bare.one("engine", "--engine auto chooses transformers: no NVIDIA GPU found")


def test_the_exit_code_is_that_of_the_worst_line(bare: Examined) -> None:
    worst = max(("ok", "warning", "failing").index(finding["status"]) for finding in bare.findings)
    assert bare.code == worst
    assert bare.status == ("ok", "warning", "failing")[worst]


def test_every_warning_and_failure_has_a_remedy_and_lines_are_plain_text(tmp_path: Path) -> None:
    environment = bare_machine(tmp_path, HTTP_PROXY="http://user:sesame@127.0.0.1:9")
    result = run("doctor", "--data", tmp_path / "nowhere", "--out", "/proc/nowhere", environment=environment)
    shown = result.stdout.splitlines()
    assert result.returncode == 2
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    starts = [place for place, line in enumerate(shown) if re.match(r"(ok|warning|failing)  ", line)]
    for begin, end in zip(starts, [*starts[1:], len(shown) - 1], strict=True):
        if not shown[begin].startswith("ok"):
            assert any(line.strip().startswith("-> ") for line in shown[begin:end]), shown[begin]
    assert re.fullmatch(r"\d+ ok, \d+ warning, \d+ failing", shown[-1])
    assert "sesame" not in result.stdout


def test_a_terminal_sees_colours(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    environment = bare_machine(tmp_path) | {"TERM": "xterm"}
    command = [sys.executable, "-m", "bundle", "doctor", "--data", "sample", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=end) as process:
        os.close(end)
        seen = b""
        while chunk := _read(terminal):
            seen += chunk
        process.wait()
    os.close(terminal)
    assert b"\x1b[38;5;28m" in seen
    assert b"ok" in seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_what_others_wrote_cannot_take_over_the_terminal() -> None:
    finding = warning("GPU 0: \x1b[2J\x1b]0;owned\x07", "\u202ereboot", ["process 7, evil\rname"])
    shown = "\n".join(lines("gpu", finding))
    assert not set(shown) & {"\x1b", "\x07", "\r", "\u202e"}


def test_packages_of_the_wrong_version_are_told_and_so_is_how_to_get_the_right_ones(tmp_path: Path) -> None:
    versions = {"transformers": "4.57.6", "torch": "2.13.0", "protobuf": "6.30", "openai": "1.3.0"}
    site = stand_in_packages(tmp_path / "site", versions)
    environment = bare_machine(tmp_path)
    found = run_doctor(environment=environment | {"PYTHONPATH": f"{site}:{environment['PYTHONPATH']}"})
    finding = found.one("cpu engine", "transformers 4.57.6 is installed, but transformers>=5.23,<6 is required")
    assert finding["status"] == "failing"
    assert "pip install '.[cpu]'" in finding["remedy"]
    assert found.one("packages", "openai 1.3.0 is installed, but openai>=2.45,<4 is required")["status"] == "warning"


# Disks.


def test_a_place_for_runs_that_is_not_there_yet_is_judged_by_the_directory_above(tmp_path: Path) -> None:
    (finding,) = check_output(tmp_path / "a" / "b")
    assert "free for" in finding.text
    assert not (tmp_path / "a").exists()


def test_a_place_for_runs_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = check_output(tmp_path / "file" / "outputs")
    assert (finding.status, "is a file" in finding.text) == (Status.FAILING, True)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no file system here that takes no files")
def test_a_place_for_runs_that_takes_no_file_fails_and_says_why() -> None:
    (finding,) = check_output(Path("/proc/outputs"))
    assert finding.status is Status.FAILING
    assert "cannot be written" in finding.text
    assert "--out" in str(finding.remedy)


# Network.


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_that_is_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(lambda path: (200, {}, b"")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://user:sesame@"))
        (finding,) = check_proxies()
    assert finding.status is Status.OK
    assert f"https_proxy is {proxy.url}" in finding.text
    assert "sesame" not in finding.text


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("http://127.0.0.1:9", "that is not running"),
        ("127.0.0.1:7890", "has no scheme"),
        ("http://proxy.example:port", "not a valid proxy address"),
        ("http://", "not a valid proxy address"),
        ("socks5h://proxy.example:1080", "SOCKS"),
    ],
)
def test_a_proxy_that_will_not_do_is_a_warning(monkeypatch: pytest.MonkeyPatch, value: str, complaint: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    (finding,) = check_proxies()
    assert finding.status is Status.WARNING
    assert complaint in finding.text
    assert "unset https_proxy HTTPS_PROXY" in str(finding.remedy)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_descriptors")
def test_few_descriptors_are_a_warning_that_says_how_to_have_more() -> None:
    (finding,) = check_descriptors()
    assert finding.status is Status.WARNING
    assert "ulimit -n 4096" in str(finding.remedy) or "hard limit" in str(finding.remedy)


# How checks are run.


def test_checks_run_at_once_and_one_that_hangs_is_given_up_and_named() -> None:
    def slow() -> list[Finding]:
        time.sleep(600)
        return []

    def broken() -> list[Finding]:
        raise RuntimeError("no")

    def missing() -> list[Finding]:
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    checks = [
        Check("a", slow, "the disk"),
        Check("b", slow, "the driver", 2.0),
        Check("c", broken, "nobody"),
        Check("d", missing, "nobody"),
        Check("e", lambda: [ok("well")], "nobody"),
    ]
    began = time.monotonic()
    found = dict(run_checks(checks, 0.3))
    assert time.monotonic() - began < PATIENCE_S
    assert "the disk did not answer within 0.3 s" in found["a"][0].text
    assert "the driver did not answer within 0.6 s" in found["b"][0].text
    assert "--time-limit" in str(found["a"][0].remedy)
    assert "RuntimeError: no" in found["c"][0].text
    assert found["d"][0].status is Status.FAILING
    assert "psutil is not installed" in found["d"][0].text
    assert found["e"] == (ok("well"),)
