"""Runs programs on the machines of a Ray cluster, and relays what is written to them and what they write.

    python -m bundle.fleet.ray_host ADDRESS

The only file that imports Ray, and a process in a session of its own, so that Ray's signal handlers and stalls stay out
of the program that started it. It is spoken to by standard input and output in frames: a line ``WORD NUMBER LENGTH``,
and so many bytes. When standard input ends, so does everything that it has started.

    start N {"command", "gpus", "cpus", "node",      placed N ["MACHINE", "NODE"]
             "avoid"}
    send N BYTES                                     data N BYTES
    end N                                            gone N WHY
                                                     cluster 0 [{"name", "node", "gpus", "cpus"}]

A program is a child of an actor, and never the actor itself: Ray kills an actor's own children with SIGKILL, and the
guardian that must outlive the program is the program's child.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bundle.fleet.host import UNTIL_MISSED_S
from bundle.fleet.wire import BEAT_S

_READ = 2**20
_LAST_WORDS = 2000
_UNTIL_DEAD_S = 10.0
_AGAIN_S = 2.0
_LEFT_ALONE_S = 30.0


class Carrier:
    """The actor: one program on one machine. Pickled by value, so it need not be installed there in this version."""

    async def start(self, arguments: list[str], gpus: int) -> tuple[str, str]:
        """Start a Python program; return the machine's name, and Ray's for it."""
        environment = dict(os.environ)
        # Ray allows an actor one thread, and one that asks for no GPU none of them.
        for name in ("OMP_NUM_THREADS", *(() if gpus else ("CUDA_VISIBLE_DEVICES",))):
            environment.pop(name, None)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.said = b""
        self.listening = asyncio.ensure_future(self._listen())
        self.leaving = asyncio.ensure_future(self._leave())
        return socket.gethostname(), ray.get_runtime_context().get_node_id()

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(_READ):
            self.said = (self.said + data)[-_LAST_WORDS:]

    async def _leave(self) -> None:
        """End some time after the program, if Ray does not see to it: to Ray, an unreaped raylet is alive."""
        await self.process.wait()
        await asyncio.sleep(_LEFT_ALONE_S)
        os._exit(0)

    async def send(self, data: bytes) -> None:
        """Write to the program."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(data)
            await self.process.stdin.drain()

    async def receive(self) -> bytes:
        """What the program writes next; empty at its end."""
        assert self.process.stdout is not None
        return await self.process.stdout.read(_READ)

    async def ended(self) -> str:
        """Wait for the program's end; return the last it said of it, empty if all was well."""
        code = await self.process.wait()
        await self.listening
        lines = self.said.decode(errors="replace").strip().splitlines()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "" if code == 0 else f"it ended ({how}){': ' + lines[-1] if lines else ''}"

    async def alive(self) -> None:
        """Answer, as only an actor can that is not dead."""


class Host:
    """Keeps the actors.

    ``write`` takes bytes for whoever started this program, who may be stopped (Ctrl-Z), and must not be waited for.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._actors: dict[int, Any] = {}
        self._to_send: dict[int, bytearray] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, frames: asyncio.StreamReader) -> None:
        """Do what is asked for until there is nothing more to read; leave no actor."""
        self._tell("cluster", 0, json.dumps(machines()).encode())
        beating = asyncio.ensure_future(self._beat())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while header := await frames.readline():
                word, number, length = header.split()
                self._do(word, int(number), await frames.readexactly(int(length)))
        beating.cancel()
        await asyncio.gather(*(self._kill(number) for number in list(self._actors)))

    def _tell(self, word: str, number: int, data: bytes) -> None:
        self._write(frame(word, number, data))

    def _do(self, word: bytes, number: int, data: bytes) -> None:
        match word:
            case b"start":
                self._begin(self._start(number, **json.loads(data)))
            case b"send":
                self._send(number, data)
            case b"end":
                self._begin(self._end(number, ""))

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(
        self, number: int, command: list[str], gpus: int, cpus: int, node: str | None, avoid: list[str]
    ) -> None:
        strategy: Any = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_gpus": gpus, "num_cpus": cpus, "max_restarts": 0, "scheduling_strategy": strategy}
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(avoid)})"}
        carrier = ray.remote(Carrier).options(**options)
        try:
            actor, place = await self._place(number, carrier, command, gpus)
            self._tell("placed", number, json.dumps(place).encode())
            self._to_send[number] = bytearray()
            while data := await actor.receive.remote():
                self._tell("data", number, data)
            why = await actor.ended.remote()
        except Exception as error:  # Ray's errors have no common class
            why = _last_line(error)
        await self._end(number, why)

    async def _place(self, number: int, carrier: Any, command: list[str], gpus: int) -> tuple[Any, tuple[str, str]]:
        """Start the program in an actor that lives; return that and the machine's names.

        For a while Ray does not know that a machine is lost, and places actors there, which die.
        """
        began = time.monotonic()
        actor = self._actors[number] = carrier.remote()
        while True:
            try:
                return actor, await actor.start.remote(command, gpus)
            except RayActorError:
                if number not in self._actors or time.monotonic() - began > UNTIL_MISSED_S:
                    raise
            await asyncio.sleep(_AGAIN_S)
            if number in self._actors:
                actor = self._actors[number] = carrier.remote()

    def _send(self, number: int, data: bytes) -> None:
        """Send soon, with all that is written until what was sent before has arrived."""
        if number in self._to_send:
            self._to_send[number] += data
            if number not in self._sending:
                self._sending[number] = asyncio.ensure_future(self._send_all(number))

    async def _send_all(self, number: int) -> None:
        with contextlib.suppress(Exception):  # that it is gone is reported elsewhere
            while waiting := self._to_send.get(number):
                data = bytes(waiting)
                waiting.clear()
                await self._actors[number].send.remote(data)
        self._sending.pop(number, None)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for number in self._to_send:
                self._send(number, b"\n")

    async def _end(self, number: int, why: str) -> None:
        if number in self._actors:
            self._to_send.pop(number, None)
            await self._kill(number)
            self._tell("gone", number, why.encode())

    async def _kill(self, number: int) -> None:
        """Kill an actor, and return once it no longer holds its GPUs."""
        actor = self._actors.pop(number)
        with contextlib.suppress(Exception):  # as is to be expected of a dead one
            ray.kill(actor)
            async with asyncio.timeout(_UNTIL_DEAD_S):
                while True:
                    await actor.alive.remote()


def frame(word: str, number: int, data: bytes) -> bytes:
    return b"%s %d %d\n%s" % (word.encode(), number, len(data), data)


def machines() -> list[dict[str, Any]]:
    """The machines that are alive, and what they have."""
    return [
        {
            "name": node["NodeManagerHostname"],
            "node": node["NodeID"],
            "gpus": int(node["Resources"].get("GPU", 0)),
            "cpus": int(node["Resources"].get("CPU", 0)),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


async def _main(out: BinaryIO) -> None:
    frames, loop = asyncio.StreamReader(limit=_READ), asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(frames), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, out)
    await Host(transport.write).run(frames)


def main() -> None:
    """Join the cluster and serve."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints is not a frame
    try:
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except Exception as error:  # Ray's errors have no common class
        out.write(frame("failed", 0, " ".join(str(error).split()).encode()))
        out.flush()
        return
    asyncio.run(_main(out))
    ray.shutdown()


if __name__ == "__main__":
    main()
