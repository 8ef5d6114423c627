"""Measure other evaluation programs on the same questions and servers.

    python -m benchmarks.peers.run [--only NAME] [--runs N] [--update-docs]

Each is installed under ``.venv-peers/`` on first use. What cannot be installed, or does not ask every question, is
named with the reason and has no figures. It writes ``benchmarks/results/peers.json``; with ``--only`` the others keep
their earlier figures.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ideal import ideal
from benchmarks.machine import describe_machine, versions
from benchmarks.measurement import FailedRunError
from benchmarks.parameters import read_parameters
from benchmarks.peers.catalog import PEERS, Peer
from benchmarks.peers.prompts import write_prompts
from benchmarks.processes import measure, simulated_server
from benchmarks.questions import write_questions
from benchmarks.scenarios import VALIDATION
from benchmarks.tables import peers_summary, update_document
from bundle import __version__

ENVIRONMENTS = Path(__file__).parents[2] / ".venv-peers"
RESULTS = Path(__file__).parents[1] / "results"
_INSTALL_TIMEOUT_S, _RUN_TIMEOUT_S = 900, 600


def install(peer: Peer) -> Path:
    """The interpreter of a program's environment, which is made on first use.

    Raises:
        FailedRunError: It cannot be installed.
    """
    if not peer.package:
        return Path(sys.executable)
    python = ENVIRONMENTS / peer.name / "bin" / "python"
    done = ENVIRONMENTS / peer.name / ".installed"
    if done.exists():
        return python
    commands = [[sys.executable, "-m", "venv", str(python.parents[1])]]
    commands += [[str(python), "-m", "pip", "install", "--quiet", *one] for one in peer.requirements]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = error.stderr.strip().splitlines()[-1:] if isinstance(error.stderr, str) else []
            raise FailedRunError(f"cannot be installed: {' '.join(said) or error}") from None
    done.touch()
    return python


def run_once(peer: Peer, python: Path, server_name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Run a program against a server, and return what it took.

    Raises:
        FailedRunError: It did not ask every question.
    """
    driver = Path(__file__).with_name(f"drive_{peer.name}.py")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none", "NO_COLOR": "1"}
    with simulated_server(server_name) as server:
        usage = measure(
            [str(python), str(driver), server.base_url, str(data), str(scratch)],
            scratch / "log",
            environment={**os.environ, **offline, "HF_HOME": str(scratch / "hf")},
            timeout_s=_RUN_TIMEOUT_S,
        )
        counters = server.counters()
    finished = counters["finished"]
    if usage.exit_code != 0 or finished != VALIDATION:
        print((scratch / "log").read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
        raise FailedRunError(f"exit code {usage.exit_code} after {finished} of {VALIDATION} questions")
    return {**asdict(usage), "ask_s": counters["request_phase_s"], "server": counters}


def _measured(peer: Peer, python: Path, runs: int, data: Path, scratch: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for server in peer.servers:
        taken = []
        for number in range(runs):
            folder = scratch / f"{peer.name}-{server}-{number}"
            folder.mkdir()
            taken.append(run_once(peer, python, server, data, folder))
            print(f"{peer.name}, {server}: {taken[-1]['wall_s']:.1f} s", file=sys.stderr)
        metrics = ("wall_s", "cpu_s", "peak_mb", "ask_s")
        found[server] = {
            "median": {name: statistics.median(one[name] for one in taken) for name in metrics},
            "ideal": asdict(ideal(read_parameters(server), VALIDATION)),
            "runs": taken,
        }
    return found


def _version(peer: Peer, python: Path) -> str:
    if peer.name == "bundle":
        return __version__
    if not peer.package:
        return versions(["aiohttp"])["aiohttp"]
    code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def run_peers(peers: Sequence[Peer], runs: int) -> dict[str, Any]:
    """Install and run each; what fails is named with the reason."""
    results: dict[str, Any] = {
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {},
        "runs": runs,
        "peers": {},
        "not_run": {},
    }
    with tempfile.TemporaryDirectory(prefix="bundle-bench-") as folder:
        scratch = Path(folder)
        data = scratch / "questions"
        write_questions(data)
        write_prompts(data, data / "prompts.jsonl")
        for peer in peers:
            try:
                python = install(peer)
                results["versions"][peer.name] = _version(peer, python)
                results["peers"][peer.name] = _measured(peer, python, runs, data, scratch)
            except FailedRunError as failure:
                print(f"{peer.name}: {failure}", file=sys.stderr)
                results["not_run"][peer.name] = str(failure)
    return results


def with_earlier(results: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Results of some programs, and earlier ones of the others where they were measured in the same way."""
    if any(earlier[name] != results[name] for name in ("machine", "runs")):
        return results
    measured = results["peers"].keys() | results["not_run"].keys()
    kept = {
        part: {name: value for name, value in earlier[part].items() if name not in measured}
        for part in ("versions", "peers", "not_run")
    }
    return {**results, **{part: {**kept[part], **results[part]} for part in kept}}


def main() -> None:
    """Parse the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description="Measure other evaluation programs against simulated servers.")
    names = [one.name for one in PEERS]
    parser.add_argument("--only", action="append", choices=names, help="a program; can be repeated")
    parser.add_argument("--runs", type=int, default=1, help="how often each is run; medians are shown")
    parser.add_argument("--update-docs", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    results = run_peers([one for one in PEERS if one.name in (arguments.only or names)], arguments.runs)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "peers.json"
    if arguments.only and path.exists():
        results = with_earlier(results, json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    text = peers_summary(results)
    print(text)
    if arguments.update_docs:
        update_document("peers", text)


if __name__ == "__main__":
    main()
