"""Facts about lmdeploy on this machine's GPU that the program rests on: are replies repeatable, is a loss noticed.

    python -m benchmarks.gpu.facts MODEL [--work DIRECTORY] [--questions N] [--tokens N] [--only replies|loss]

MODEL is best one that goes on talking. ``replies``: lmdeploy alone, asked the same questions several times, with and
without ``"top_k": 1``. ``loss``: a run of ``bundle eval-local`` whose engine process is killed while it asks; told is
when its health check changes and when ``bundle`` says what. Everything is written to ``facts.json`` as it comes.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import aiohttp
import psutil

from benchmarks.gpu.lmdeploy_here import has_metrics
from benchmarks.processes_below import wait_for_server
from benchmarks.questions import write_questions
from bundle.runs.files import PREDICTIONS
from bundle.serving.machine import Machine

_READY_WITHIN_S, _END_WITHIN_S = 150.0, 10.0
_ASKING_WITHIN_S, _WATCHED_S = 150.0, 100.0
_EXAMPLES, _QUESTIONS_A_SUBJECT = 5, 5
_SMI_QUERIES = (
    "--query-gpu=index,uuid,name,memory.total,memory.free,driver_version",
    "--query-compute-apps=gpu_uuid,pid,process_name,used_memory",
)

_PASSES: tuple[tuple[str, int, dict[str, object]], ...] = (
    ("plain", 256, {}),
    ("plain again", 256, {}),
    ("top_k 1", 256, {"top_k": 1}),
    ("top_k 1 again", 256, {"top_k": 1}),
    ("top_k 1, 32 at a time", 32, {"top_k": 1}),
)


def main() -> None:
    """Parse the command line, look, write."""
    parser = argparse.ArgumentParser(description="Facts about lmdeploy on this machine's GPU.")
    parser.add_argument("model", type=lambda path: Path(path).absolute())
    parser.add_argument("--work", type=lambda path: Path(path).absolute(), required=True, help="where facts.json goes")
    parser.add_argument("--questions", type=int, default=260)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100, help="questions answered before the loss")
    parser.add_argument("--only", choices=("replies", "loss"))
    arguments = parser.parse_args()
    facts = Facts(arguments.work)
    for name, look in (("replies", _replies), ("loss", _loss)):
        if arguments.only in (None, name):
            try:
                look(facts, arguments)
            except Exception as error:
                facts.tell(f"{name}, failed", repr(error))


class Facts:
    """What was found out, printed and written at once."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self._path = work / "facts.json"
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def tell(self, what: str, found: object) -> None:
        """Note one."""
        self._found[what] = found
        print(f"{what}: {json.dumps(found, ensure_ascii=False)[:1000]}", flush=True)
        self._path.write_text(json.dumps(self._found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _replies(facts: Facts, arguments: argparse.Namespace) -> None:
    """Start lmdeploy alone, ask, compare."""
    with tempfile.TemporaryDirectory() as folder:
        write_questions(Path(folder))
        prompts = list(_prompts(Path(folder)))[: arguments.questions]
    began = time.monotonic()
    with _lmdeploy(arguments.model, facts.work / "facts-server.log") as (root, process):
        seen = asyncio.run(_until_healthy(root, process))
        facts.tell("seconds to a health check that answers", round(time.monotonic() - began, 1))
        facts.tell("health before and when ready", seen)
        given: dict[str, list[str]] = {}
        for name, at_once, settings in _PASSES:
            began = time.monotonic()
            given[name] = asyncio.run(_ask_all(root, prompts, at_once, {"max_tokens": arguments.tokens, **settings}))
            facts.tell(f"asking, {name}, seconds", round(time.monotonic() - began, 2))
            facts.tell(
                f"equal to the first pass, {name}", _equal(given["plain"], given[name]) + f" of {len(prompts)} replies"
            )
        facts.tell("equal, top_k 1 twice", _equal(given["top_k 1"], given["top_k 1 again"]))
        facts.tell("equal, top_k 1 at 256 and 32 at once", _equal(given["top_k 1"], given["top_k 1, 32 at a time"]))
        facts.tell("some replies", given["plain"][:3])
        facts.tell("different replies", len(set(given["plain"])))
        facts.tell("processes", _below(process.pid))
        for query in _SMI_QUERIES:
            facts.tell(f"nvidia-smi {query}", _smi(query, "--format=csv,noheader"))
        (facts.work / "nvidia-smi.txt").write_text(_smi())
        (facts.work / "metrics.txt").write_text(asyncio.run(_get(root, "/metrics"))[1])
    facts.tell("nvidia-smi after the end", _smi(_SMI_QUERIES[0], "--format=csv,noheader"))


def _loss(facts: Facts, arguments: argparse.Namespace) -> None:
    """Kill the engine's process of a run that asks; see when who notices."""
    out = facts.work / "loss"
    with tempfile.TemporaryDirectory() as folder:
        write_questions(Path(folder))
        command = [sys.executable, "-m", "bundle", "eval-local", str(arguments.model), f"--data={folder}"]
        command += ["--engine=lmdeploy", f"--out={out}", "--full-replies", "--max-out-len=256", "--", "--backend"]
        command += ["pytorch", *([] if has_metrics(Machine().installation("lmdeploy")) else ["--disable-metrics"])]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        said: list[tuple[float, str]] = []
        reader = threading.Thread(target=_read, args=(process.stdout, said), daemon=True)
        reader.start()
        try:
            server = wait_for_server(process.pid, _READY_WITHIN_S)
            if server is None or not _until(lambda: _rows(out) >= arguments.rows, _ASKING_WITHIN_S):
                facts.tell("loss, not reached", [line for _, line in said])
                return
            engine = _engine(server)
            port = _port(server)
            facts.tell("loss, processes before", _below(server))
            os.kill(engine, signal.SIGKILL)
            killed = time.monotonic()
            health: list[tuple[float, str]] = []
            while process.poll() is None and time.monotonic() < killed + _WATCHED_S:
                status = asyncio.run(_get(f"http://127.0.0.1:{port}", "/health"))[0] if port else "?"
                if not health or health[-1][1] != status:
                    health.append((round(time.monotonic() - killed, 1), status))
                    facts.tell("loss, health after seconds", health)
                time.sleep(0.25)
            facts.tell("loss, exit code", process.poll())
        finally:
            process.terminate()
            process.wait()
            reader.join(_END_WITHIN_S)
        facts.tell("loss, seconds", round(time.monotonic() - killed, 1))
        facts.tell("loss, said", [(round(at - killed, 1), line) for at, line in said if at > killed - 2])
        facts.tell("loss, nvidia-smi after the end", _smi(_SMI_QUERIES[0], "--format=csv,noheader"))


def _read(stream: IO[str], said: list[tuple[float, str]]) -> None:
    said.extend((time.monotonic(), line.rstrip()) for line in stream)


def _rows(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob(f"*/{PREDICTIONS}"))


def _until(true: Callable[[], bool], limit_s: float) -> bool:
    ends = time.monotonic() + limit_s
    while not (done := true()) and time.monotonic() < ends:
        time.sleep(0.1)
    return done


def _engine(server: int) -> int:
    """Below lmdeploy's main process it is the one that takes most memory."""
    return max(psutil.Process(server).children(recursive=True), key=lambda one: one.memory_info().rss).pid


def _port(server: int) -> int | None:
    listening = (one for one in psutil.Process(server).net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return next((one.laddr.port for one in listening if one.laddr.ip == "127.0.0.1"), None)


def _below(pid: int) -> list[str]:
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(f"{one.pid} {one.memory_info().rss >> 20} MiB: {' '.join(one.cmdline())[-120:]}")
    return found


def _smi(*options: str) -> str:
    return subprocess.run(["nvidia-smi", *options], capture_output=True, text=True, check=False).stdout.strip()


@contextlib.contextmanager
def _lmdeploy(model: Path, log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """lmdeploy's server with the options that ``bundle`` gives it, and without a key."""
    installed = Machine().installation("lmdeploy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [installed.interpreter, *(["-m", "lmdeploy"] if installed.script == "-m" else [installed.script])]
    options = ["--server-name=127.0.0.1", f"--server-port={port}", "--model-name=m", "--backend=pytorch"]
    options += ["--enable-prefix-caching", "--log-level=WARNING", "--generation-config=lmdeploy"]
    options += ["--max-batch-size=256", "--cudagraph-capture-batch-sizes", "32", "256"]
    options += [] if has_metrics(installed) else ["--disable-metrics"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*start, "serve", "api_server", str(model), *options],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "UVICORN_LOG_LEVEL": "warning"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _get(root: str, path: str) -> tuple[str, str]:
    """The status, or what is wrong, and the text of a reply."""
    timeout = aiohttp.ClientTimeout(total=3)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(root + path) as reply:
            return str(reply.status), await reply.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return type(error).__name__, ""


async def _until_healthy(root: str, process: "subprocess.Popen[bytes]") -> list[str]:
    """What the health check said, one after the other, until it was fine."""
    seen: list[str] = []
    ends = time.monotonic() + _READY_WITHIN_S
    while not seen or seen[-1] != "200":
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"lmdeploy is not ready; its health check said {seen}")
        status, _ = await _get(root, "/health")
        if not seen or status != seen[-1]:
            seen.append(status)
        await asyncio.sleep(0.1)
    return seen


async def _ask_all(root: str, prompts: list[str], at_once: int, settings: dict[str, object]) -> list[str]:
    slots = asyncio.Semaphore(at_once)
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as http:

        async def ask(prompt: str) -> str:
            question = {"model": "m", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **settings}
            async with slots, http.post(f"{root}/v1/chat/completions", json=question) as reply:
                reply.raise_for_status()
                return str((await reply.json())["choices"][0]["message"]["content"])

        return await asyncio.gather(*map(ask, prompts))


def _equal(some: list[str], others: list[str]) -> str:
    return str(sum(one == other for one, other in zip(some, others, strict=True)))


def _prompts(questions: Path) -> Iterator[str]:
    """A few questions of each subject, with five examples."""
    for path in sorted((questions / "val").iterdir()):
        examples = _written(questions / "dev" / path.name.replace("_val", "_dev"), _EXAMPLES)
        for question in _written(path, _QUESTIONS_A_SUBJECT):
            yield "\n".join([*examples, question])


def _written(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:count]
    is_example = "explanation" in rows[0]
    return [
        "\n".join([row["question"], *(f"{letter}. {row[letter]}" for letter in "ABCD"), "答案: "])
        + (row["answer"] if is_example else "")
        for row in rows
    ]


if __name__ == "__main__":
    main()
