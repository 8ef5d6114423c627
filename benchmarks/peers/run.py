"""Run other evaluation programs on the same questions and servers, all in one sitting.

    python -m benchmarks.peers.run [--only NAME] [--runs N] [--update-docs]

Each is installed under ``.venv-peers/`` on first use. A program that cannot be installed, or does not ask every
question, is named with the reason. Prints its table and writes ``benchmarks/results/peers.json``.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ideal import ideal
from benchmarks.parameters import read_parameters
from benchmarks.processes import FailedRunError, compile_program, measure, simulated_server
from benchmarks.questions import write_questions
from benchmarks.scenarios import VALIDATION
from benchmarks.tables import peers_summary, publish, surroundings, versions
from bundle.version import __version__

ENVIRONMENTS = Path(__file__).parents[2] / ".venv-peers"
SERVERS = ("no_latency", "small_model", "explaining")
_INSTALL_TIMEOUT_S, _RUN_TIMEOUT_S = 900, 600


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to compare with.

    Attributes:
        name: Of its driver, ``drive_NAME.py``, and of its environment.
        package: Its distribution; "" for a driver that runs in this environment.
        requirements: Arguments of ``pip install``, one call after the other.
    """

    name: str
    package: str = ""
    requirements: Sequence[Sequence[str]] = ()


PEERS = (
    Peer("bundle"),
    Peer("bare_aiohttp"),
    Peer("lm_eval", "lm-eval", (("lm-eval[api]==0.4.13",),)),
    Peer("evalscope", "evalscope", (("evalscope==1.14.1",),)),
    Peer("inspect_ai", "inspect-ai", (("inspect-ai==0.3.285", "openai"),)),
    Peer(
        "opencompass",
        "opencompass",
        (
            ("--upgrade", "pip", "setuptools<81", "wheel"),  # it imports pkg_resources, which setuptools has dropped
            ("torch==2.13.0",),  # first, so that pip does not download a CUDA build for a program that calls an API
            ("-r", str(Path(__file__).with_name("requirements_opencompass.txt"))),
            ("--no-deps", "opencompass==0.3.3"),
        ),
    ),
)
_TEMPLATE = (
    "以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n"
    "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n答案: "
)


def write_prompts(data: Path, path: Path) -> None:
    """Write a line of JSON per question of the validation split: ``subject``, 5-shot ``messages`` and ``answer``."""
    with path.open("w", encoding="utf-8") as file:
        for one in _prompts(data):
            file.write(json.dumps(one, ensure_ascii=False) + "\n")


def _prompts(data: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((data / "val").glob("*_val.csv")):
        subject = path.name.removesuffix("_val.csv")
        examples: list[dict[str, str]] = []
        for row in _rows(data / "dev" / f"{subject}_dev.csv")[:5]:
            examples += [_asked(subject, row), {"role": "assistant", "content": row["answer"]}]
        for row in _rows(path):
            yield {"subject": subject, "messages": [*examples, _asked(subject, row)], "answer": row["answer"]}


def _asked(subject: str, row: dict[str, str]) -> dict[str, str]:
    return {"role": "user", "content": _TEMPLATE.format(subject=subject, **row)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def install(peer: Peer) -> Path:
    """The interpreter of a program's environment, which is created on first use.

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
        FailedRunError: It did not get an answer to every question.
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
    answered = counters["answered"]  # replies may be cut at their letter, and requests retried
    if usage.exit_code != 0 or answered != VALIDATION:
        print((scratch / "log").read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
        raise FailedRunError(f"exit code {usage.exit_code} after {answered} of {VALIDATION} questions")
    return {**asdict(usage), "ask_s": counters["request_phase_s"], "server": counters}


def _measured(peer: Peer, python: Path, runs: int, data: Path, scratch: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for server in SERVERS:
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
    if not peer.package:
        return __version__ if peer.name == "bundle" else versions(["aiohttp"])["aiohttp"]
    code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def run_peers(peers: Sequence[Peer], runs: int) -> dict[str, Any]:
    """Install and run each; one that fails is named with the reason."""
    results = surroundings(runs) | {"versions": {}, "peers": {}, "not_run": {}}
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


def main() -> None:
    """Parse the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description="Benchmark evaluation programs against simulated servers.")
    names = [one.name for one in PEERS]
    parser.add_argument("--only", action="append", choices=names, help="run this program; can be repeated")
    parser.add_argument("--runs", type=int, default=1, help="runs per program and server; medians are shown")
    parser.add_argument("--update-docs", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.update_docs and arguments.only:
        parser.error("the table of the document is measured in one sitting: --update-docs excludes --only")
    compile_program()
    results = run_peers([one for one in PEERS if one.name in (arguments.only or names)], arguments.runs)
    publish("peers", results, peers_summary(results), document=arguments.update_docs)
    sys.exit(1 if "bundle" in results["not_run"] else 0)


if __name__ == "__main__":
    main()
