"""The stand-in server as an engine, and ways to see which of its processes are alive."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bundle.serving import guardian
from bundle.serving.engines import Launch
from bundle.serving.supervisor import Supervisor
from tests.patience import PATIENCE_S
from tests.serving.stand_in_server import KEY_VARIABLE

SERVER = Path(__file__).with_name("stand_in_server.py")


@dataclass
class StandInEngine:
    """Satisfies ``Engine``. ``options`` are those of the stand-in server."""

    tag: str
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = (sys.executable, "-S", str(SERVER))
    ports: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    name = "stand-in"
    served_name = "models/the one"
    version = "1"
    interpreter = sys.executable
    architectures = None
    tokenizer_directory = Path()
    concurrency = 1
    longest_silence_s = 60.0
    gpus = ()

    def prepare(self, say: Callable[[str], None]) -> None:
        return

    def launch(self, host: str, port: int, api_key: str) -> Launch:
        self.ports.append(port)
        self.keys.append(api_key)
        where = ("--host", host, "--port", str(port), "--model", self.served_name, "--tag", self.tag)
        return Launch((*self.command, *where, *self.options), {"STAND_IN": "yes"}, {KEY_VARIABLE: api_key})

    def activity(self, line: str) -> str | None:
        return line.removeprefix("doing ") if line.startswith("doing ") else None


class Stage:
    """One test's server: its log, its files, what was said, and which of its processes are alive."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.log = directory / "run" / "server.log"  # In a directory that is not there yet.
        self.said: list[str] = []
        self.engine = StandInEngine(tag=str(directory))

    def supervisor(self, *options: str, start_timeout: float = PATIENCE_S, port: int | None = None) -> Supervisor:
        self.engine.options = options
        return Supervisor(self.engine, log_path=self.log, start_timeout=start_timeout, port=port, say=self.said.append)

    def file(self, name: str) -> str:
        return str(self.directory / name)

    def read(self, name: str) -> str:
        """What one of the files holds; nothing if it is not there yet."""
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def write(self, name: str, text: str = "") -> None:
        (self.directory / name).write_text(text)

    def processes(self) -> set[int]:
        """The server and all that came of it, wherever they went: forks keep the argument list with its tag."""
        found = set()
        for process in psutil.process_iter(["cmdline", "status"]):
            arguments = process.info["cmdline"] or []
            if "--tag" in arguments and self.engine.tag in arguments and process.info["status"] != "zombie":
                found.add(process.pid)
        return found

    def kill_what_is_left(self) -> set[int]:
        """For the end of a test: what should have been gone, and now is."""
        left = self.guardians() | self.processes()
        guardian.send(left, signal.SIGKILL)
        return left

    def guardians(self, parent: int | None = None) -> set[int]:
        children = psutil.Process(parent or os.getpid()).children()
        return {child.pid for child in children if is_guardian(child)}


def is_guardian(process: psutil.Process) -> bool:
    try:
        return guardian.__file__ in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
