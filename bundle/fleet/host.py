"""The process that speaks to a cluster, and what it runs there."""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Self

from bundle.errors import ServerError, UsageError
from bundle.fleet.link import Link
from bundle.system.guarded import undisturbed

_REACH_S: Final = 10.0
_JOIN_S: Final = 60.0
_END_S: Final = 30.0
_LAST_WORDS: Final = 4000
UNTIL_MISSED_S: Final = 90.0
"""By then the cluster has missed a machine that is lost; a cut cable took Ray 63 s."""
_OF_RAYS_LOG: Final = re.compile(r"^\[.*?\] \S+: ")
"""What a line of its log begins with: time, process and place."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a cluster, which calls it ``node``, and the GPUs and cores that the cluster may use there."""

    name: str
    node: str
    gpus: int
    cpus: int


class Host:
    """Places programs on the machines of a cluster. Made by `join`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.machines: list[Machine] = []
        self._numbers = itertools.count(1)
        self._programs: dict[int, Program] = {}
        self._to_write: list[bytes] = []
        self._why: str | None = None
        self._said = b""
        self._listening = asyncio.ensure_future(self._listen())
        self._reading = asyncio.ensure_future(self._read())
        self._joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def join(cls, address: str) -> Self:
        """Join the cluster at an address; ``auto`` for the one that this machine belongs to.

        Raises UsageError if Ray is missing, or the address is not a cluster's; ServerError if the cluster cannot be
        joined.
        """
        name, _, port = address.rpartition(":")
        if address != "auto" and ("/" in name or not name or not port.isdecimal()):
            raise UsageError(
                f"--cluster {address}: an address is HOST:PORT, without a protocol.",
                remedy="Give the address that `ray start` printed, or auto, on a machine of the cluster.",
            )
        if importlib.util.find_spec("ray") is None:
            raise UsageError(
                "--cluster needs Ray, which is not installed here.",
                remedy="Install this program with it in the cluster's own environment, on every machine: "
                "pip install '.[cluster]' in a checkout of this project, with the version of Ray that it runs.",
            )
        if address != "auto":
            await _require_reachable(name.strip("[]"), int(port))
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "bundle.fleet.ray_host", address),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for us alone
        )
        host = cls(process)
        try:
            await host._join(address)
        except BaseException:
            await host.close()
            raise
        return host

    async def _join(self, address: str) -> None:
        await asyncio.wait({self._joined, self._reading}, timeout=_JOIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._joined.done():
            why = self._why or f"no answer within {_JOIN_S:.0f} s"
            raise ServerError(
                f"The cluster {address} cannot be joined: {why.rstrip('.')}.",
                remedy="This machine must belong to it (`ray status`), with the same versions of Ray and Python.",
            )

    async def start(
        self,
        *arguments: str,
        gpus: int = 0,
        cpus: int = 0,
        node: str | None = None,
        avoid: Iterable[str] = (),
        wait_s: float | None = None,
    ) -> "Program":
        """Run Python with these arguments on the machine ``node``, or any, that has so many GPUs and cores free.

        It is none of the machines ``avoid``: nodes, as well.

        Raises TimeoutError if there is none within ``wait_s`` seconds (None waits for any time), ServerError if it
        cannot be started, or the cluster is lost.
        """
        self._require_connection()
        number = next(self._numbers)
        program = self._programs[number] = Program(lambda word, data: self._write(word, number, data))
        told = {"command": ["-P", *arguments], "gpus": gpus, "cpus": cpus, "node": node, "avoid": list(avoid)}
        self._write("start", number, json.dumps(told).encode())
        try:
            await program.until_placed(wait_s)
        except BaseException as error:
            await program.end()
            if isinstance(error, TimeoutError):  # of a cluster that was being lost meanwhile nothing becomes free
                self._require_connection()
            raise
        return program

    def _require_connection(self) -> None:
        if self._reading.done():
            raise ServerError(f"The connection to the cluster was lost ({self._why}).", remedy="See `ray status`.")

    async def close(self) -> None:
        """Leave the cluster; whatever still runs is ended."""
        self._flush()
        if self._process.stdin is not None:
            self._process.stdin.close()
        ended = asyncio.ensure_future(self._process.wait())
        if self._joined.done() or self._reading.done():
            await undisturbed(asyncio.ensure_future(asyncio.wait({ended}, timeout=_END_S)))
        if not ended.done():  # asyncio warns of a process that is killed while it ends
            self.kill()
        await undisturbed(ended, self._listening)

    def kill(self) -> None:
        """Leave it at once. The cluster then ends what was started, and workers end when they hear of us no more."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def _write(self, word: str, number: int, data: bytes) -> None:
        if not self._to_write:  # what is written in one turn of the loop goes out at once
            asyncio.get_running_loop().call_soon(self._flush)
        self._to_write.append(b"%s %d %d\n%s" % (word.encode(), number, len(data), data))

    def _flush(self) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.is_closing():
            pipe.write(b"".join(self._to_write))
        self._to_write.clear()

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(_LAST_WORDS):
            self._said = (self._said + data)[-_LAST_WORDS:]

    async def _read(self) -> None:
        frames = self._process.stdout
        assert frames is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while header := await frames.readline():
                word, number, length = header.split()
                self._heard(word, int(number), await frames.readexactly(int(length)))
        await self._listening
        said = self._said.decode(errors="replace").strip().splitlines()
        last = _OF_RAYS_LOG.sub("", said[-1]).partition(". ")[0] if said else "its helper process ended"
        self._why = (self._why or last).rstrip(".")
        for program in self._programs.values():
            program.heard(b"gone", f"the connection to the cluster was lost ({self._why})".encode())

    def _heard(self, word: bytes, number: int, data: bytes) -> None:
        match word:
            case b"cluster":
                self.machines = [Machine(**one) for one in json.loads(data)]
                self._joined.set_result(None)
            case b"failed":
                self._why = data.decode()
            case _:
                self._programs[number].heard(word, data)


async def _require_reachable(host: str, port: int) -> None:
    """Refuse at once an address where nothing listens: Ray takes a minute to say so.

    Raises ServerError if it cannot be reached.
    """
    try:
        async with asyncio.timeout(_REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, OverflowError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise ServerError(
            f"The cluster {host}:{port} cannot be reached: {why}.", remedy="`ray status` shows a cluster's address."
        ) from None
    writer.close()


class Program:
    """A program on a machine of the cluster.

    Attributes:
        placed: Has a result, the machine's name and the cluster's for it, once it runs.
        gone: Has a result once it does not, or never will: why, or nothing where it ended by itself and all was well.
    """

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.placed: asyncio.Future[tuple[str, str]] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self._send = send
        self._written: list[bytes] = []
        self._take: Callable[[bytes], None] = self._written.append

    @property
    def machine(self) -> str:
        return self.placed.result()[0]

    @property
    def node(self) -> str:
        return self.placed.result()[1]

    async def until_placed(self, limit_s: float | None) -> None:
        """Wait until it runs. Raises TimeoutError if it still does not, ServerError if it never will."""
        either: set[asyncio.Future[Any]] = {self.placed, self.gone}
        await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if self.placed.done():
            return
        if self.gone.done():
            raise ServerError(f"A worker could not be started on the cluster: {self.gone.result().rstrip('.')}.")
        raise TimeoutError

    @cached_property
    def link(self) -> Link:
        """Speaks to it, if it is a worker."""
        link = Link(partial(self._send, "send"), self.machine)
        self._take = link.received
        for data in self._written:
            link.received(data)
        self._written.clear()
        self.gone.add_done_callback(
            lambda gone: link.lose(f"{self.machine}: the worker is gone: {gone.result().rstrip('.') or 'it ended'}.")
        )
        return link

    async def output(self) -> bytes:
        """All that it writes until its end."""
        await asyncio.wait({self.gone})
        return b"".join(self._written)

    def heard(self, word: bytes, data: bytes) -> None:
        """Take what the host reports of it."""
        if word == b"data":
            self._take(data)
        elif word == b"placed":
            if not self.placed.done():
                self.placed.set_result(tuple(json.loads(data)))
        elif not self.gone.done():
            self.gone.set_result(data.decode())

    async def end(self) -> None:
        """End it without asking, and wait until its GPUs are free for others."""
        if not self.gone.done():
            self._send("end", b"")
            await undisturbed(asyncio.ensure_future(asyncio.wait({self.gone}, timeout=_END_S)))
