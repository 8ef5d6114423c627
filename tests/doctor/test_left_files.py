"""Files that earlier runs have left, told apart from those in use, and removed with --clean."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.checkpoints.cache import cached_directory, entries, hold
from bundle.doctor.leftovers import check_converted, check_files
from bundle.doctor.processes import session_is_alive
from bundle.runs.run import Run
from bundle.system import guardian
from bundle.system.findings import Finding, Status
from tests.doctor.examined import bare_machine, examine
from tests.patience import wait_until

DAY = 86400.0


def age(path: Path, seconds: float) -> None:
    """Make a path, and all below it, look as old as that."""
    then = time.time() - seconds
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then), follow_symlinks=False)


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Finding]]:
    """Removes what is left in a directory for temporary files, one for runs, one for downloads and one for views."""
    for name in ("tmp", "out", "downloads", "hub-view"):
        (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "downloads"))
    return lambda: list(check_files(tmp_path / "out", clean=True))


@pytest.fixture(autouse=True)
def cache_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE_CACHE", str(tmp_path))


def test_the_directory_of_a_tokenizers_proof_that_was_killed_with_its_guard_is_removed(
    tmp_path: Path, clean: Callable[[], list[Finding]]
) -> None:
    environment = bare_machine(tmp_path)
    directory = Path(environment["TMPDIR"]) / "bundle-tokenizer-x"
    directory.mkdir()
    code = f"open({str(directory / 'code.py')!r}, 'w').close(); import time; time.sleep(600)"
    spec = {
        "command": [sys.executable, "-S", "-c", code],
        "environment": environment,
        "mark": "x",
        "parent": os.getpid(),
        "directory": str(directory),
        "at_once": True,
    }
    command = [sys.executable, "-I", "-S", guardian.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as guard:
        assert guard.stdin is not None
        guard.stdin.write(json.dumps(spec).encode() + b"\n")
        guard.stdin.flush()
        wait_until(lambda: (directory / "code.py").exists() and (directory / guardian.SESSION).exists())
        age(directory, 600)
        (finding,) = clean()
        assert finding.text == "no temporary files left behind by earlier runs"
        assert directory.is_dir(), "a check that is under way keeps its directory, however old that looks"
        guard.kill()

    wait_until(lambda: _free(directory) and not session_is_alive(directory))
    (finding,) = check_files(tmp_path / "out", clean=False)
    assert (finding.status, finding.remedy) == (Status.WARNING, "`bundle doctor --clean` removes them.")
    assert finding.details[0].startswith(str(directory))
    assert directory.is_dir()
    assert examine("--clean", environment=environment).one("leftovers", "removed 1 temporary file or directory")
    assert not directory.exists()


def _free(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_link_that_looks_like_ours_is_not_followed(tmp_path: Path, clean: Callable[[], list[Finding]]) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    (tmp_path / "tmp" / "bundle-tokenizer-x").symlink_to(precious)
    age(precious, DAY)
    clean()
    assert (precious / "thesis.tex").exists()


def test_half_written_files_go_but_not_from_a_run_that_is_under_way(
    tmp_path: Path, clean: Callable[[], list[Finding]]
) -> None:
    over, alive = tmp_path / "out" / "over", tmp_path / "out" / "alive"
    for directory in (over, alive):
        directory.mkdir()
        (directory / ".results.json.part").write_text("{")
        (directory / "report.html").touch()
        age(directory, DAY)
    with Run(alive):
        clean()
    assert [path.name for path in over.iterdir()] == ["report.html"]
    assert (alive / ".results.json.part").exists()


def test_a_download_that_stopped_goes_and_one_that_is_under_way_stays(
    tmp_path: Path, clean: Callable[[], list[Finding]]
) -> None:
    folder = tmp_path / "downloads" / "bundle" / "opencompass" / "ceval-exam"
    folder.mkdir(parents=True)
    for name in ("old.part", "new.part", "ceval-exam.zip"):
        (folder / name).touch()
    age(folder / "old.part", DAY)
    clean()
    assert sorted(path.name for path in folder.iterdir()) == ["ceval-exam.zip", "new.part"]


def test_a_view_whose_checkpoint_is_gone_goes_and_one_whose_is_there_stays(
    tmp_path: Path, clean: Callable[[], list[Finding]]
) -> None:
    there = tmp_path / "model.safetensors"
    there.touch()
    for name, target in (("broken", tmp_path / "gone"), ("whole", there), ("tmpabc", there)):
        folder = tmp_path / "hub-view" / name / "models--local--m"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").symlink_to(target)
        age(folder.parent, DAY)
    clean()
    assert [path.name for path in (tmp_path / "hub-view").iterdir()] == ["whole"]
    assert there.exists()


def rewritten(root: Path, key: str, source: Path, *, unused_s: float) -> Path:
    """A rewritten checkpoint in the cache that was last wanted so long ago."""

    def make(target: Path) -> None:
        (target / "w").write_bytes(bytes(1000))

    directory = cached_directory(root, key, make, source=source)
    note = root / f"{key}.json"
    content = json.loads(note.read_text())
    note.write_text(json.dumps(content | {"last_used": time.time() - unused_s}))
    return directory


def test_rewritten_checkpoints_are_removed_that_nobody_needs_and_no_others(tmp_path: Path) -> None:
    root, there, gone = tmp_path / "llama", tmp_path / "model", tmp_path / "unmounted"
    there.mkdir()
    expected = {
        "fresh": (there, 2 * DAY, True),
        "long-unused": (there, 31 * DAY, False),
        "source-gone": (gone, 2 * DAY, False),
        "source-gone-for-now": (gone, 3600, True),
    }
    made = {key: rewritten(root, key, source, unused_s=unused) for key, (source, unused, _) in expected.items()}
    (root / ".crashed.partial").mkdir()

    (told, kept) = check_converted(clean=False)
    assert told.status is Status.WARNING
    assert "3 converted checkpoints" in told.text
    assert any("not used for 31 days" in line for line in told.details)
    assert any(f"{gone} no longer exists" in line for line in told.details)
    assert "2 converted checkpoints kept" in kept.text
    assert all(directory.is_dir() for directory in made.values()), "looking removes nothing"

    assert {finding.status for finding in check_converted(clean=True)} == {Status.OK}
    assert {key: directory.is_dir() for key, directory in made.items()} == {
        key: stays for key, (_, _, stays) in expected.items()
    }
    assert [path for path in root.iterdir() if "long-unused" in path.name or "crashed" in path.name] == []


def test_a_rewritten_checkpoint_that_a_server_reads_stays_and_that_is_said(tmp_path: Path) -> None:
    directory = rewritten(tmp_path / "llama", "old", tmp_path, unused_s=40 * DAY)
    lock = hold(directory)
    (finding,) = check_converted(clean=True)
    assert finding.status is Status.WARNING
    assert "In use" in str(finding.remedy)
    assert (directory / "w").exists()
    lock.release()
    list(check_converted(clean=True))
    assert not directory.exists()


def test_a_rewritten_checkpoint_that_is_wanted_again_is_made_again_and_remembers_for_whom(tmp_path: Path) -> None:
    root, first, second = tmp_path / "llama", tmp_path / "a", tmp_path / "b"
    for source in (first, second):
        rewritten(root, "key", source, unused_s=31 * DAY)
    assert entries(root)[0].sources == (first, second)
    list(check_converted(clean=True))
    assert entries(root) == []
    before = time.time()
    assert (rewritten(root, "key", first, unused_s=0) / "w").exists()
    assert before - 60 <= entries(root)[0].last_used


def test_one_that_is_being_made_is_neither_unfinished_nor_removed(tmp_path: Path) -> None:
    root = tmp_path / "llama"
    seen: list[Finding] = []

    def make(target: Path) -> None:
        (target / "w").touch()
        seen.extend(check_converted(clean=True))

    assert (cached_directory(root, "key", make, source=tmp_path) / "w").exists()
    assert [finding.text for finding in seen] == [f"no converted checkpoints in {root}"]
