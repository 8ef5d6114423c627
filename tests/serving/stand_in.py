"""The stand-in server, prepared as by an engine, and ways to see which of its processes are alive."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from bundle.serving.conversion import Servable
from bundle.serving.engine import ServerSpec
from bundle.serving.known_failures import Signs
from bundle.serving.lmdeploy.log import SIGNS
from bundle.serving.supervisor import Supervisor
from bundle.system import guardian
from tests.patience import PATIENCE_S
from tests.serving.stand_in_server import KEY_VARIABLE

SERVER = Path(__file__).with_name("stand_in_server.py")


KEY = "sk-of-our-own"


class Launched(NamedTuple):
    """How a server is started on port 23334, in /tmp/private."""

    command: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, spec: ServerSpec) -> Self:
        private = Path("/tmp/private")
        return cls(spec.command(23334, private), spec.environment_beside({}, KEY, private))


class Stage:
    """One test's server: its log, its files, what was said, and which of its processes are alive."""

    served_name = "models/the one"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.log = directory / "run" / "server.log"  # In a directory that is not there yet.
        self.said: list[str] = []
        self.ports: list[int] = []
        self.key = ""
        self.command = [sys.executable, "-S", str(SERVER)]

    def prepared(self, *options: str) -> ServerSpec:
        """The stand-in server with these options, as an engine prepares it."""

        def command(port: int, directory: Path) -> tuple[str, ...]:
            self.ports.append(port)
            where = ("--host", "127.0.0.1", "--port", str(port), "--model", self.served_name)
            return (*self.command, *where, "--tag", str(self.directory), *options)

        return ServerSpec(
            engine="stand-in",
            version="1",
            served_name=self.served_name,
            interpreter=sys.executable,
            model=Servable(Path(), own_code=False, keep=None),
            command=command,
            signs=Signs(
                activities=(("^doing (.*)", "{}"),),
                failures=SIGNS.failures,
                deadly=("the engine died",),
                vital="--worker child",
            ),
            environment={"STAND_IN": "yes"},
            key_variable=KEY_VARIABLE,
        )

    def supervisor(self, *options: str, start_timeout: float = PATIENCE_S) -> Supervisor:
        supervisor = Supervisor(
            self.prepared(*options), log_path=self.log, start_timeout=start_timeout, say=self.said.append
        )
        self.key = supervisor.api_key
        return supervisor

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
        return {pid for pid in alive() if {"--tag", str(self.directory)} <= set(arguments_of(pid))}

    def kill_what_is_left(self) -> set[int]:
        """For the end of a test: what should have been gone, and now is."""
        left = guardians_of(os.getpid()) | self.processes()
        guardian.send(left, signal.SIGKILL)
        return left


def alive(parent: int | None = None) -> set[int]:
    """Processes of which there is more than an exit status: all, or the children of one, which may be gone itself."""
    table = guardian.process_table()
    return {pid for pid, one in table.items() if not one.zombie and parent in (None, one.parent)}


def arguments_of(pid: int) -> list[str]:
    """A process's command line; empty where it is ending."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def guardians_of(parent: int) -> set[int]:
    """The guardians that a process has started."""
    return {pid for pid in alive(parent) if guardian.__file__ in arguments_of(pid)}
