"""The same questions through Inspect: a task with finished prompts, 128 connections, no display."""

import json
import os
import sys
from pathlib import Path

from inspect_ai import Task, eval  # type: ignore[import-not-found]  # noqa: A004
from inspect_ai.dataset import MemoryDataset, Sample  # type: ignore[import-not-found]
from inspect_ai.model import (  # type: ignore[import-not-found]
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    get_model,
)
from inspect_ai.scorer import pattern  # type: ignore[import-not-found]
from inspect_ai.solver import generate  # type: ignore[import-not-found]

_ROLES = {"user": ChatMessageUser, "assistant": ChatMessageAssistant}


def main(base_url: str, data: Path, scratch: Path) -> None:
    """Ask everything."""
    os.environ["INSPECT_LOG_DIR"] = str(scratch / "logs")
    samples = []
    with (data / "prompts.jsonl").open(encoding="utf-8") as file:
        for line in file:
            one = json.loads(line)
            messages = [_ROLES[message["role"]](content=message["content"]) for message in one["messages"]]
            samples.append(Sample(input=messages, target=one["answer"], metadata={"subject": one["subject"]}))
    model = get_model(
        "openai/simulated",
        base_url=base_url,
        api_key="none",
        config=GenerateConfig(max_connections=128, max_tokens=2048, temperature=0),
        responses_api=False,
    )
    task = Task(dataset=MemoryDataset(samples), solver=generate(), scorer=pattern(r"([ABCD])"))
    (log,) = eval(task, model=model, max_samples=128, display="none")
    print(log.status, log.results.scores[0].metrics)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
