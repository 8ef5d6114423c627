"""What a run of very many questions costs the program that hands them out: memory, and processor time a question.

    python -m benchmarks.many_questions [--questions N] [--workers N] [--concurrency N]

The questions are loaded, recorded, handed out to workers as those of a cluster are, and scored. The workers are
simulated in the same process, and their own time is not counted.
"""

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import uvloop

from bundle.client import Reply
from bundle.config.model_files import ModelFile
from bundle.evaluation import AskingOptions, Evaluation
from bundle.fleet import DistantClient, Link
from bundle.fleet.wire import from_line, reply_to_json, to_line
from bundle.pipeline.options import EvaluationOptions
from bundle.pipeline.pipeline import garbage_rarely_searched
from bundle.pipeline.plan import plan_tasks
from bundle.runs.run import Run

_TASK = """description = "Random questions"

[rows]
file = "questions-NUMBER.jsonl"

[prompt]
user = "{question}"

[answer]
rule = "first_capital"
"""
_REPLY_S = 0.05
_TRIED = 20_000
_LARGEST_TASK = 200_000
"""Questions. A table of questions may have 64 MiB."""


def client(number: int) -> DistantClient:
    """Asks a simulated worker."""

    def receive(data: bytes) -> None:
        if (line := answer(data)) is not None:
            asyncio.get_running_loop().call_later(_REPLY_S, link.received, line)

    link = Link(receive, f"machine {number}")
    return DistantClient(link, "echo")


def answer(data: bytes) -> bytes | None:
    """What a worker writes in answer to a line; None if it answers nothing."""
    number, name, arguments = from_line(data)
    if name != "ask":
        return to_line(number, "result", None) if number else None
    text = "ABCD"[len(arguments[0][-1]["content"]) % 4]
    reply = Reply(text, "stop", 300, 2, None, _REPLY_S, 1)
    return to_line(number, "result", (reply_to_json(reply), ()))


async def cost_of_workers() -> float:
    """Seconds of processor time that a question takes in the simulated workers."""
    told = {"rule": "first_capital", "of": "ABCD"}
    line = to_line(1, "ask", ([{"role": "user", "content": "x" * 200}], 2048, {}, None, told))
    loop = asyncio.get_running_loop()
    began = time.process_time()
    for _ in range(_TRIED):
        loop.call_later(_REPLY_S, lambda _: None, answer(line))
    await asyncio.sleep(2 * _REPLY_S)
    return (time.process_time() - began) / _TRIED


async def ask_all(directory: Path, tasks: list[str], workers: int, concurrency: int) -> None:
    """Ask all questions of tasks, write to a directory, and print what that took."""
    plan = plan_tasks(EvaluationOptions(tasks=tasks), ModelFile(description="simulated"))
    loaded = plan.load(lambda _: None, lambda: None)
    _tell("loaded")
    began = time.process_time()
    with Run.create(directory, "many") as run:
        asking = AskingOptions(concurrency, adaptive=False, full_replies=False, prefix_order=True)
        evaluation = Evaluation(
            plan.tasks,
            loaded.questions,
            run,
            lambda _: None,
            max_out_len=plan.max_out_len,
            asking=asking,
            servers=workers,
        )
        run.write_prompts(evaluation.questions)
        _tell("recorded")
        asked_from = time.process_time()
        first, *others = [client(number) for number in range(workers)]
        helping = [
            asyncio.ensure_future(evaluation.help_asking(number, client)) for number, client in enumerate(others, 1)
        ]
        with garbage_rarely_searched():  # as in every run
            await evaluation.ask(first, ours=True)
        for task in helping:
            task.cancel()
        asked_s = time.process_time() - asked_from
        _tell("asked")
        results = evaluation.results({})
        _tell("scored")
    count = len(loaded.questions)
    print(f"answered {results.coverage.answered:,} of {count:,}")
    print(f"all after loading: {time.process_time() - began:.0f} s of processor time")
    each_s = asked_s / count - await cost_of_workers()
    print(f"handing out and taking back: {1e3 * each_s:.3f} ms of processor time a question")


def _tell(what: str) -> None:
    now = psutil.Process().memory_info().rss
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{what:9} {now / 1e6:7.0f} MB, at most {most / 1e6:.0f} MB", flush=True)


def write_tasks(directory: Path, questions: int) -> list[str]:
    """Write tasks of random questions; return their paths."""
    tasks = []
    lot = random.Random(1)  # noqa: S311 - nothing is secret
    for task, first in enumerate(range(0, questions, _LARGEST_TASK)):
        with (directory / f"questions-{task}.jsonl").open("w") as file:
            for number in range(first, min(questions, first + _LARGEST_TASK)):
                row = {"question": f"{number}: {lot.randbytes(100).hex()}", "answer": lot.choice("ABCD")}
                file.write(json.dumps(row) + "\n")
        tasks.append(str(directory / f"random-{task}.toml"))
        Path(tasks[-1]).write_text(_TASK.replace("NUMBER", str(task)))
    return tasks


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="What a run of very many questions costs.")
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bundle-many-") as folder:
        tasks = write_tasks(Path(folder), arguments.questions)
        ask = partial(ask_all, Path(folder), tasks, arguments.workers, arguments.concurrency)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ask())


if __name__ == "__main__":
    main()
