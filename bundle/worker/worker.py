"""Serves one checkpoint on loopback, asks it what the driver hands over, and sends the replies back."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from bundle.checkpoints import fingerprint
from bundle.client import EarlyDecisions
from bundle.errors import ExitCode
from bundle.fleet.wire import (
    BEAT_S,
    LONGEST_LINE,
    PATIENCE_S,
    error_to_json,
    from_line,
    reply_to_json,
    to_line,
)
from bundle.pipeline.local import Local
from bundle.pipeline.local_checkpoint import LocalCheckpoint
from bundle.pipeline.local_model import LocalModel
from bundle.pipeline.options import LocalOptions
from bundle.pipeline.plan import Requests
from bundle.pipeline.targets import Server, Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import versions
from bundle.serving.machine import Machine
from bundle.system.background import in_thread
from bundle.system.guarded import private_directory
from bundle.system.locks import Lock
from bundle.tasks.answers import make_rule
from bundle.tasks.prompts import Message

if TYPE_CHECKING:
    from bundle.client import ChatClient

_LOG_AT_ONCE: Final = 2**16
_GATHER_S: Final = 0.005
"""What is written within this time is written together: each write costs the driver's machine far more than a line."""


class Worker:
    """Does what the driver calls for. Its public methods after `run` are those calls, in the order in which they come.

    ``lines`` is the descriptor to write lines to.
    """

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._readings: dict[str, EarlyDecisions] = {}
        self._cleanup = contextlib.AsyncExitStack()
        self._silent_s = 0.0
        self._log = private_directory("bundle-server-") / "server.log"
        self._lock = Lock(self._log.parent)  # so that no `bundle doctor --clean` takes it for one left behind
        self._lock.take()
        self._log_sent = 0
        self._local: Local | None = None
        self._model: LocalModel | None = None
        self._server: Server | None = None
        self._number = 0
        self._log_there = ""
        self._out: asyncio.WriteTransport | None = None
        self._to_write: list[bytes] = []
        self._flushed = asyncio.Event()

    def kill(self) -> None:
        """Kill the server without asking."""
        if self._local is not None:
            self._local.kill()

    def say(self, text: str) -> None:
        """Have a line shown to the user."""
        self._tell(0, "say", text)

    async def run(self) -> int:
        """Serve until the driver is gone or says nothing for too long; leave nothing behind."""
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._out, _ = await loop.connect_write_pipe(lambda: _Flushed(self._flushed), os.fdopen(self._lines, "wb"))
        self._tell(0, "hello", versions())
        reading = asyncio.ensure_future(self._read(reader))
        beating = asyncio.ensure_future(self._beat())
        try:
            await asyncio.wait({reading, beating}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            return ExitCode.INTERRUPTED
        finally:
            for task in (reading, beating, *self._calls.values()):
                task.cancel()
            await asyncio.gather(reading, beating, *self._calls.values(), return_exceptions=True)
            await self._cleanup.aclose()
            if self._model is not None:
                self._model.close()
            self._tell(0, "log", self._new_log())
            self._flush()
            shutil.rmtree(self._log.parent, ignore_errors=True)
            self._lock.release()
            self._out.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._flushed.wait()
        return ExitCode.DONE

    # What the driver calls.

    async def open(self, model_dir: str, options: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
        """Inspect the checkpoint and choose the engine."""
        machine = Machine()
        machine.look("lmdeploy" if options["engine"] == "auto" else options["engine"])
        served = TypeAdapter(LocalOptions).validate_python(options)
        self._local = local = Local(LocalCheckpoint(Path(model_dir), served, arguments), machine)
        await local.open(_Told(self))
        engine = await in_thread(lambda: local.engine)
        return {
            "fingerprint": await in_thread(lambda: fingerprint(local.given.checkpoint)),
            "engine": engine.name,
            "scores_texts": engine.scores_texts,
            "context": await in_thread(local.context_limits),
        }

    async def prepare(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Do what comes before the server's start."""
        assert self._local is not None
        asked = TypeAdapter(Requests).validate_python(requests)
        self._model = model = await self._local.model(asked, _Told(self), Timing())
        served = await in_thread(model.describe)
        assert served.engine is not None
        return {
            "engine": served.engine.model_dump(),
            "concurrency": model.concurrency,
            "extra_body": dict(model.extra_body),
            "chosen_template": model.spec.chosen_template,
            "scoring": model.spec.scoring,
        }

    async def prove(self, conversations: Sequence[Sequence[Message]]) -> dict[str, Any]:
        """Prove the tokenizer; return what it makes of some prompts, and what requests must hold after that."""
        assert self._model is not None
        rendered = await self._model.prove(conversations)
        return {"rendered": [asdict(one) for one in rendered], "extra_body": dict(self._model.extra_body)}

    async def serve(self, log: str) -> None:
        """Start the server, whose log the user finds in ``log``; return when it is ready."""
        assert self._model is not None
        self._log_there = log
        serving = self._model.serve(self._log, asyncio.Event())
        self._server = await self._cleanup.enter_async_context(serving)

    async def attend(self) -> None:
        """Watch the server, and raise what goes wrong with it."""
        assert self._server is not None
        if (trouble := await self._server.attend(_forever())) is not None:
            raise trouble

    async def send_always(self, fields: Mapping[str, Any]) -> None:
        """As `ChatClient.send_always`."""
        self._client.send_always(fields)

    async def ask(
        self,
        messages: Sequence[Message],
        max_out_len: int,
        fields: Mapping[str, Any],
        path: str | None,
        reading: Mapping[str, Any] | None,
    ) -> tuple[Sequence[Any], Sequence[str]]:
        """As `ChatClient.ask`."""
        number = self._number  # of this call, as long as nothing has been waited for
        reply = await self._client.ask(
            messages,
            max_out_len,
            fields=fields,
            path=path,
            reading=None if reading is None else self._reading(reading),
            begun=lambda: self._tell(number, "begun", None),
        )
        return reply_to_json(reply), self._client.changes

    async def prefix_cache_hit_rate(self) -> float | None:
        """As `ChatClient.prefix_cache_hit_rate`."""
        return await self._client.prefix_cache_hit_rate()

    # How it is done.

    @property
    def _client(self) -> "ChatClient":
        assert self._server is not None
        return self._server.client  # type: ignore[return-value]  # that of a local server

    def _reading(self, told: Mapping[str, Any]) -> EarlyDecisions:
        name = json.dumps(told)
        if name not in self._readings:
            settings = {key: value for key, value in told.items() if key not in ("rule", "of")}
            self._readings[name] = EarlyDecisions(make_rule(told["rule"], settings), tls=False, options=told["of"])
        return self._readings[name]

    def _tell(self, number: int, kind: str, value: object) -> None:
        if self._out is None:
            return
        if not self._to_write:
            asyncio.get_running_loop().call_later(_GATHER_S, self._flush)
        self._to_write.append(to_line(number, kind, value))

    def _flush(self) -> None:
        if self._out is not None and self._to_write:
            self._out.write(b"".join(self._to_write))
            self._to_write.clear()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self._silent_s = 0.0
            if line == b"\n":
                continue
            number, name, arguments = from_line(line)
            if name == "stop":
                return
            if name == "cancel":
                if (task := self._calls.get(number)) is not None:
                    task.cancel()
                continue
            task = asyncio.ensure_future(self._do(number, name, arguments))
            self._calls[number] = task

    async def _do(self, number: int, name: str, arguments: Sequence[Any]) -> None:
        self._number = number
        try:
            value = await getattr(self, name)(*arguments)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the driver gets to know, whatever it is
            told = error_to_json(error)
            for part in told.keys() & {"message", "remedy"}:
                told[part] = told[part] and told[part].replace(str(self._log), self._log_there)
            self._tell(number, "error", told)
        else:
            if number:
                self._tell(number, "result", value)
        finally:
            self._calls.pop(number, None)

    async def _beat(self) -> None:
        """Show that we are alive, with what the server has printed, until the driver has not done so for long."""
        while self._silent_s < PATIENCE_S:
            await asyncio.sleep(BEAT_S)
            self._silent_s += BEAT_S
            self._tell(0, "log", self._new_log())

    def _new_log(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(self._log_sent)
                data = file.read(_LOG_AT_ONCE)
        except OSError:
            return ""
        self._log_sent += len(data)
        return data.decode("utf-8", "replace")


class _Flushed(asyncio.BaseProtocol):
    """Knows when all that was written has been."""

    def __init__(self, flushed: asyncio.Event) -> None:
        self._flushed = flushed

    def connection_lost(self, exc: Exception | None) -> None:
        self._flushed.set()


class _Told(Screen):
    """What a run shows, sent to the driver."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker
        self._loop = asyncio.get_running_loop()

    def say(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._worker.say, text)

    def server(self, activity: str) -> None:
        self._loop.call_soon_threadsafe(self._worker._tell, 0, "activity", activity)


async def _forever() -> None:
    await asyncio.Event().wait()
