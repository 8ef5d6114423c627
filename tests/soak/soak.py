"""A long run against a server that fails all the time, to see that nothing is lost, asked for nothing or left behind.

    python -m tests.soak.soak [--questions N] [--replicas N | --cluster] [--kill-every N] [--seed N]

``bundle eval-local`` asks a stand-in of lmdeploy that fails one request in twenty, each in a random way, and is
killed after so many requests. Of several replicas one is, at random, or is stopped instead; of a Ray cluster of two
machines on this one a server, a worker or an actor. In both cases the program itself is killed as well, and its run is
resumed, with another number of replicas. It prints what happened and exits with 1 where anything is wrong.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bundle.checkpoints.internlm2 import make_checkpoint
from bundle.errors import ExitCode
from tests.patience import wait_until
from tests.program import carrying
from tests.stand_ins.box import ROOT, gpu_box, with_gpus
from tests.stand_ins.journal import Story, read_journal

if TYPE_CHECKING:
    from tests.cluster.box import Nodes

CONCURRENCY = 64

_LOOK_EVERY_S = 0.25
_STOPPED = 0.25
"""The share of servers that are stopped instead of killed."""
_OF_US = 0.15
"""How often it is the program itself that is killed."""
_ON_A_CLUSTER = ("lmdeploy", "bundle.worker", "ray::Carrier")
_TASK = """description = "Random questions"

[rows]
file = "questions.jsonl"
columns = { question = "question", answer = "answer" }

[prompt]
user = "{question}"

[answer]
rule = "first_capital"
"""


@dataclass
class Watched:
    """What was seen of the program while it ran.

    Attributes:
        kills: How often a server was killed.
        deaths: How often the program was.
        stops: How often one was stopped.
        memory: Its resident memory in bytes, by the number of rows it had written.
        descriptors: How many files and connections it had open, likewise.
    """

    kills: int = 0
    deaths: int = 0
    stops: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)
    descriptors: list[tuple[int, int]] = field(default_factory=list)

    @property
    def harms(self) -> int:
        """How often any of that was done."""
        return self.kills + self.deaths + self.stops


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        figures: What is worth telling, by name.
        harms: How often a server or the program was killed or stopped.
        wrong: What is not as it must be; nothing where all is well.
        grown: Of memory, where it grows more than it may. How much the allocator holds early on depends on how busy
            the machine is, so this says something of long runs only.
    """

    figures: Mapping[str, str]
    harms: int
    wrong: Sequence[str]
    grown: Sequence[str]


def soak(
    directory: Path, questions: int, kill_every: int, seed: int, replicas: int = 1, nodes: "Nodes | None" = None
) -> Outcome:
    """Run it.

    Args:
        directory: An empty one.
        questions: How many are asked.
        kill_every: After how many requests a server is killed, or stopped if there are several.
        seed: Of what is random.
        replicas: How many servers there are at once.
        nodes: A cluster to do it on; None for this machine.
    """
    golds = _write_task(directory, questions, seed)
    make_checkpoint(directory / "tiny", like="tiny")
    journal = directory / "journal" if nodes is None else nodes.journal
    environment = gpu_box(directory, behaviour="fails at random") | with_gpus(replicas)
    environment["LMDEPLOY_STAND_IN_JOURNAL"] = str(journal)
    options = ["--concurrency", str(CONCURRENCY), "--max-restarts", "1000000", "--out", str(directory / "out")]
    if nodes is not None:
        nodes.set("fails at random")
        options += ["--cluster", nodes.address, "--hang-timeout", "20"]
    elif replicas > 1:
        options += ["--replicas", str(replicas), "--hang-timeout", "20"]
    command = [sys.executable, "-m", "bundle", "eval-local", str(directory / "tiny")]
    command += ["--task", str(directory / "random.toml"), *options]
    lot = random.Random(seed) if replicas > 1 or nodes is not None else None
    began, watched, again = time.monotonic(), Watched(), list[str]()
    while True:
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *again],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        harms = watched.harms
        _watch(process, watched, directory, journal, kill_every, lot, nodes)
        # One whose server is killed while it starts ends, too.
        if lot is None or process.returncode not in (-signal.SIGKILL, ExitCode.SERVER) or watched.harms == harms:
            break
        wait_until(lambda: not (carrying(str(directory)) if nodes is None else nodes.processes()))
        again = ["--resume", *(str(path.parent) for path in directory.glob("out/*/run.json"))]
        again += ["--replicas", str(lot.randint(1, replicas))] if nodes is None else []
    took_s = time.monotonic() - began
    outcome = _judge(directory, golds, watched, read_journal(journal), process.returncode, took_s, replicas)
    if nodes is not None:
        wait_until(lambda: not nodes.processes())
    return outcome


def _write_task(directory: Path, questions: int, seed: int) -> dict[int, str]:
    lot = random.Random(seed)
    golds = {number: lot.choice("ABCD") for number in range(questions)}
    rows = ({"question": f"{number}: {lot.randbytes(20).hex()}", "answer": gold} for number, gold in golds.items())
    (directory / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "random.toml").write_text(_TASK)
    return golds


def _watch(
    process: "subprocess.Popen[bytes]",
    watched: Watched,
    directory: Path,
    journal: Path,
    kill_every: int,
    lot: random.Random | None,
    nodes: "Nodes | None",
) -> None:
    """Look at the program until it ends, and kill its servers, of several the one that ``lot`` chooses, or itself."""
    program = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(_LOOK_EVERY_S)
        rows = _count_rows(directory)
        try:
            with program.oneshot():
                memory, descriptors = program.memory_info().rss, program.num_fds()
            if descriptors:  # else it is over, and only its exit status is left
                watched.memory.append((rows, memory))
                watched.descriptors.append((rows, descriptors))
        except psutil.NoSuchProcess:
            break
        story = read_journal(journal)
        life = len(story.lives)
        with contextlib.suppress(ProcessLookupError):  # the run has ended in this moment
            if lot is not None:
                if len(story.asked()) >= kill_every * (watched.harms + 1):
                    if lot.random() < _OF_US:
                        process.kill()
                        watched.deaths += 1
                        break
                    stops = lot.random() < _STOPPED
                    victims = story.lives if nodes is None else nodes.pids(lot.choice(_ON_A_CLUSTER))
                    os.kill(lot.choice(_alive(victims)), signal.SIGSTOP if stops else signal.SIGKILL)
                    watched.stops += stops
                    watched.kills += not stops
            elif life > watched.kills and len(story.asked(life)) >= kill_every:
                os.kill(story.lives[-1], signal.SIGKILL)
                watched.kills += 1
    process.wait()


def _alive(pids: Sequence[int]) -> list[int]:
    """Those that are there and run.

    Raises:
        ProcessLookupError: None is.
    """
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
                found.append(pid)
    if not found:
        raise ProcessLookupError
    return found


def _judge(
    directory: Path,
    golds: Mapping[int, str],
    watched: Watched,
    story: Story,
    exit_code: int,
    took_s: float,
    replicas: int,
) -> Outcome:
    rows = [json.loads(line) for line in _predictions(directory).splitlines()]
    replies = [row for row in rows if "error" not in row]
    answered = {row["id"]: row for row in replies}
    wrong = []
    if exit_code != 0:
        wrong.append(f"exit code {exit_code}: {(directory / 'log').read_text(errors='replace')[-2000:]}")
    if set(answered) != set(golds) or len(replies) != len(answered):
        wrong.append(f"{len(golds)} questions, {len(answered)} answered, {len(replies)} rows with a reply")
    if any(row["gold"] != golds[number] for number, row in answered.items()):
        wrong.append("rows with the gold of another question")
    asking = [(rows, memory) for rows, memory in watched.memory if rows < watched.memory[-1][0]]
    growths = {"while asking": (_growth(asking), 1000), "with the page": (_growth(watched.memory), 4000)}
    grown = [
        f"memory has grown by {memory} bytes with {rows} rows {when}"
        for when, ((rows, memory), a_row) in growths.items()
        if memory > _MEMORY_AT_FIRST + a_row * rows
    ]
    descriptors = [count for _, count in watched.descriptors]
    if descriptors and max(descriptors) > (3 * CONCURRENCY + 64) * replicas:
        wrong.append(f"{max(descriptors)} files and connections open at once")
    left = carrying(str(directory))
    if left:
        wrong.append(f"processes are left: {left}")
    faults = story.all_of("fault")
    figures = {
        "questions": f"{len(golds):,}",
        "rows with a reply, one a question": f"{len(replies):,}",
        "requests that arrived": f"{len(story.asked()):,}",
        "of these failed at random": f"{len(faults):,} ({_kinds(faults)})",
        "server killed": f"{watched.kills} times, stopped {watched.stops} times, started {len(story.lives)} times",
        "program killed and resumed": f"{watched.deaths} times",
        "time": f"{took_s:.0f} s",
        "most memory": f"{max(memory for _, memory in watched.memory) / 1e6:.0f} MB",
        **{
            f"memory's growth {when}": f"{memory / max(1, rows):.0f} bytes a question"
            for when, ((rows, memory), _) in growths.items()
        },
        "files and connections open": f"{descriptors[len(descriptors) // 10]} early, {max(descriptors)} at most, "
        f"{descriptors[-1]} at the end",
        "processes left": str(len(left)),
        "exit code": str(exit_code),
    }
    return Outcome(figures, watched.harms, wrong, grown)


_MEMORY_AT_FIRST = 20_000_000
"""Bytes, beside those for each row. While asking, replies are on the disk alone; the page is made of all of them."""


def _growth(memory: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """How many rows there were more at the end than when a quarter was there, and how many bytes."""
    total = memory[-1][0]
    early, first = next(one for one in memory if one[0] >= total / 4)
    late, last = max((one for one in memory if one[0] >= 0.9 * total), key=lambda one: one[1])
    return late - early, last - first


def _kinds(faults: Sequence[Any]) -> str:
    return ", ".join(f"{name} {faults.count(name)}" for name in sorted(set(faults)))


def _predictions(directory: Path) -> bytes:
    paths = list(directory.glob("out/*/predictions.jsonl"))
    return paths[0].read_bytes() if paths else b""


def _count_rows(directory: Path) -> int:
    return _predictions(directory).count(b"\n")


def _cluster(cleanup: contextlib.ExitStack) -> "Nodes":
    from tests.cluster.box import Nodes  # Ray is not everywhere

    nodes = Nodes(Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp"))))
    cleanup.callback(nodes.shut_down)
    return nodes


def main() -> None:
    """Parse the command line, run and tell."""
    parser = argparse.ArgumentParser(description="A long run against a server that fails all the time.")
    parser.add_argument("--questions", type=int, default=50_000)
    parser.add_argument("--kill-every", type=int, default=1200, metavar="N", help="after so many requests")
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="so many servers at once")
    parser.add_argument("--cluster", action="store_true", help="on a Ray cluster, whose workers are killed as well")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bundle-soak-") as folder, contextlib.ExitStack() as cleanup:
        nodes = _cluster(cleanup) if arguments.cluster else None
        outcome = soak(
            Path(folder), arguments.questions, arguments.kill_every, arguments.seed, arguments.replicas, nodes
        )
    for name, value in outcome.figures.items():
        print(f"{name:34} {value}")
    wrong = [*outcome.wrong, *outcome.grown]
    for line in wrong:
        print(f"WRONG: {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
