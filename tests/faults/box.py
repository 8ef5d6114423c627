"""A machine with a GPU on which something goes wrong, and what can be seen of it afterwards."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.runs.prompts import read_prompts
from tests.patience import PATIENCE_S, wait_until
from tests.program import call, carrying, start
from tests.stand_ins.box import gpu_box
from tests.stand_ins.journal import Story, read_journal

ALL = 104
"""The sample questions."""
IN_FLIGHT = 8
MIDWAY = 20
"""After so many questions the stand-in's behaviours begin."""


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    Attributes:
        code: Its exit code.
        said: What it printed on standard error.
        shown: What it printed on standard output.
    """

    code: int
    said: str
    shown: str

    @property
    def cleanly(self) -> bool:
        """Whether it ended as a program does that knows what it is doing."""
        return "Traceback" not in self.said.partition("hint")[0].replace(SERVERS_OWN, "")


SERVERS_OWN = "Traceback (most recent call last):\n  torch.OutOfMemoryError"


class Box:
    """The machine. Everything is below ``directory``.

    Args:
        directory: An empty directory.
        model_dir: A checkpoint.
        behaviour: How its servers behave; see `tests.stand_ins.lmdeploy`.
        more: Further variables of the environment.
    """

    def __init__(self, directory: Path, model_dir: Path, behaviour: str = "good", **more: str) -> None:
        self.directory = directory
        self.out = directory / "out"
        self.log = directory / "log"
        self._journal = directory / "journal"
        self.environment = gpu_box(directory, behaviour=behaviour)
        self.environment["LMDEPLOY_STAND_IN_JOURNAL"] = str(self._journal)
        self.environment |= more
        self.inside: Sequence[str] = ()
        self._started: list[subprocess.Popen[bytes]] = []
        self._command = ["eval-local", model_dir, "--data", "sample", "--out", self.out, "--concurrency", IN_FLIGHT]

    def run(self, *options: object) -> Ended:
        """Evaluate the checkpoint on this machine, to the end."""
        result = call(*self._command, *options, environment=self.environment)
        return Ended(result.returncode, result.stderr, result.stdout)

    def start(self, *options: object) -> "subprocess.Popen[bytes]":
        """Begin to; see `until` and `end_of`."""
        process = start(*self._command, *options, environment=self.environment, log=self.log, inside=self.inside)
        self._started.append(process)
        return process

    def end(self) -> None:
        """For the end of a test: end what it has not."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()

    def command(self, *options: object) -> list[str]:
        """What is run, for tests that run it in another way."""
        return [sys.executable, "-m", "bundle", *self.arguments(*options)]

    def arguments(self, *options: object) -> list[str]:
        """The same without the program."""
        return [str(one) for one in (*self._command, *options)]

    def end_of(self, process: "subprocess.Popen[bytes]") -> Ended:
        """Wait for what was started."""
        code = process.wait(PATIENCE_S)
        text = self.log.read_text(encoding="utf-8")
        return Ended(code, text, text)

    def until_stuck(self) -> None:
        """Wait until a server that falls silent midway has done so, and everything it said before is on disk."""
        wait_until(self.is_stuck)

    def is_stuck(self) -> bool:
        """Whether that is so now."""
        return len(self.story.asked()) > MIDWAY and len(self.rows()) >= MIDWAY

    @property
    def story(self) -> Story:
        """What the servers tell."""
        return read_journal(self._journal)

    @property
    def run_directory(self) -> Path:
        """The only one."""
        (directory,) = self.out.iterdir()
        return directory

    def rows(self) -> list[dict[str, Any]]:
        """The whole rows of ``predictions.jsonl``."""
        return whole_rows(self.out)

    def answered(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The rows with a reply, by subject and number; no question has two."""
        rows = [row for row in self.rows() if "error" not in row]
        by_key = {(row["subject"], row["id"]): row for row in rows}
        assert len(by_key) == len(rows)
        return by_key

    def texts(self) -> dict[tuple[str, int], str]:
        """What each question is asked with, by subject and number."""
        prompts = read_prompts(self.run_directory)
        return {
            (subject, number): prompt.conversation[-1]["content"] for (_, _, subject, number), prompt in prompts.items()
        }

    @property
    def results(self) -> dict[str, Any]:
        """``results.json``."""
        content: dict[str, Any] = json.loads((self.run_directory / "results.json").read_text(encoding="utf-8"))
        return content

    @property
    def restarts(self) -> int:
        """How often the server was started again, as the results tell."""
        return int(self.results["server"].get("restarts", 0))

    def check(self, answered: int, failed: int = 0) -> None:
        """What must be so after any run: files that are whole and agree, and nothing left behind."""
        assert self.results["coverage"] == {"total": ALL, "answered": answered, "failed": failed}
        path = self.run_directory / "predictions.jsonl"
        assert path.read_bytes().endswith(b"\n")
        assert len(self.answered()) == answered
        assert all(row["correct"] == (row["answer"] == row["gold"]) for row in self.answered().values())
        assert not list(self.out.rglob("*.part"))
        self.check_nothing_is_left()

    def check_nothing_is_left(self) -> None:
        """No process of ours, wherever it went."""
        wait_until(lambda: not carrying(str(self.directory)))

    def check_only_what_was_open_was_asked_again(self) -> None:
        """A question was asked twice only if it was in flight when a server died."""
        times = Counter(self.story.asked())
        assert len(times) == ALL
        again = sum(count - 1 for count in times.values())
        assert again <= IN_FLIGHT * (len(self.story.lives) - 1)


def whole_rows(out: Path) -> list[dict[str, Any]]:
    """The whole rows of the only run under ``out``, which may be written to; none where there is no run yet."""
    paths = list(out.glob("*/predictions.jsonl"))
    lines = paths[0].read_bytes().split(b"\n")[:-1] if paths else []
    return [json.loads(line) for line in lines]
