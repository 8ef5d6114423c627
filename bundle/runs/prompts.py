"""``prompts.jsonl``: one row per question, with the messages that are sent.

The questions of a subject share their examples. A shared prefix is written once, in a row of its own, and the rows
after it refer to it; five-shot C-Eval takes a sixth of the space that way.
"""

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import RunError
from bundle.runs.files import PROMPTS, parse_json, read_lines, to_json
from bundle.tasks.prompts import Message
from bundle.tasks.scores import Key
from bundle.tasks.task import Question

_REMEDY = "Write the file again with `bundle resume`, or start a new run."

_AT_ONCE = 10_000
"""Questions of a part whose prompts are made together, to find what they share: all of them may take gigabytes."""

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class RecordedPrompt:
    """What was sent for one question.

    Attributes:
        prefix_name: Identifies the prefix within the run; None where there is none.
        prefix: The same object in all questions that share it.
        own: What follows. Where it continues in the role in which the prefix ends, it continues that message.
    """

    gold: str
    prefix_name: str | None
    prefix: Messages
    own: Messages

    @property
    def conversation(self) -> Messages:
        """All messages, as they were sent."""
        if self.prefix and self.own and self.prefix[-1]["role"] == self.own[0]["role"]:
            joint: Message = {**self.own[0], "content": self.prefix[-1]["content"] + self.own[0]["content"]}
            return (*self.prefix[:-1], joint, *self.own[1:])
        return self.prefix + self.own


def prompt_lines(questions: Sequence[Question]) -> Iterator[bytes]:
    """The lines of ``prompts.jsonl``, each with its newline."""
    written: set[str] = set()
    for _, of_part in itertools.groupby(questions, lambda question: question.key.part):
        while part := list(itertools.islice(of_part, _AT_ONCE)):
            prompts = [question.messages for question in part]
            for question, messages, (name, prefix) in zip(part, prompts, _shared_prefixes(part, prompts), strict=True):
                if name is not None and name not in written:
                    written.add(name)
                    yield _line({"prefix": name, "messages": prefix})
                yield _line(
                    {
                        "task": question.task,
                        "split": question.split,
                        "subject": question.subject,
                        "id": question.id,
                        "gold": question.gold,
                        "prefix": name,
                        "messages": _after(prefix, messages),
                    }
                )


def read_prompts(directory: Path) -> dict[Key, RecordedPrompt]:
    """Read what was sent in a run: all its questions, in the order of the tasks.

    Raises RunError if the file is missing or damaged, so it is not known which questions the run has.
    """
    path = directory / PROMPTS
    prefixes: dict[str | None, Messages] = {None: ()}
    prompts: dict[Key, RecordedPrompt] = {}
    number = 0
    try:
        for number, line in enumerate(read_lines(path), 1):  # noqa: B007 - used where a line is damaged
            _read_row(parse_json(line), prefixes, prompts)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist.", remedy=_REMEDY) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{path}, line {number}, is damaged.", remedy=_REMEDY) from None
    return prompts


def _read_row(row: Any, prefixes: dict[str | None, Messages], prompts: dict[Key, RecordedPrompt]) -> None:
    messages = tuple(_message(one) for one in row["messages"])
    prefix_name = row["prefix"]
    if "task" not in row:
        prefixes[_text(prefix_name)] = messages
        return
    number = row["id"]
    key = Key(_text(row["task"]), _text(row["split"]), _text(row["subject"]), number)
    if type(number) is not int or number < 0 or key in prompts:
        raise ValueError("the same question twice")
    prompts[key] = RecordedPrompt(_text(row["gold"]), prefix_name, prefixes[prefix_name], messages)


def _message(value: Any) -> Message:
    return {"role": _text(value["role"]), "content": _text(value["content"])}  # type: ignore[typeddict-item]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _after(prefix: Sequence[Message], messages: Sequence[Message]) -> Sequence[Message]:
    """What follows a prefix: further messages, or the rest of the only one."""
    if len(prefix) == len(messages) == 1:
        return [{**messages[0], "content": messages[0]["content"][len(prefix[0]["content"]) :]}]
    return messages[len(prefix) :]


def _shared_prefixes(
    questions: Sequence[Question], prompts: Sequence[Sequence[Message]]
) -> list[tuple[str | None, Sequence[Message]]]:
    """For every question of a part the name of the prefix it shares with others, and that prefix; None for none."""
    # Nearly always all messages but the last are the same in a subject. Grouping by them, and not by the subject alone,
    # keeps a single question with other examples from taking the shared prefix away from all.
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, (question, messages) in enumerate(zip(questions, prompts, strict=True)):
        leading = tuple((one["role"], one["content"]) for one in messages[:-1])
        groups[question.examples, leading].append(index)
    shared: list[tuple[str | None, Sequence[Message]]] = [(None, ())] * len(questions)
    for indices in groups.values():
        if len(indices) > 1 and (prefix := _common([prompts[index] for index in indices])):
            name = hashlib.sha256(json.dumps(prefix).encode()).hexdigest()[:16]
            for index in indices:
                shared[index] = name, prefix
    return shared


def _common(conversations: Sequence[Sequence[Message]]) -> Sequence[Message]:
    """The prefix shared by conversations that differ at most in their last message: whole messages, or its lines."""
    if not all(conversations):
        return ()
    leading = conversations[0][:-1]
    lasts = [one[-1] for one in conversations]
    roles = {last["role"] for last in lasts}
    if leading:
        # A message that follows one of its own role would be read as the rest of that one.
        return () if leading[-1]["role"] in roles else leading
    if len(roles) != 1:
        return ()
    contents = [last["content"] for last in lasts]
    # What the first and the last in the order of the alphabet begin with, all between them begin with too.
    lines = _common_lines(min(contents), max(contents))
    return [{**lasts[0], "content": lines}] if lines else ()


def _common_lines(one: str, other: str) -> str:
    pairs = zip(one.split("\n")[:-1], other.split("\n")[:-1], strict=False)
    return "".join(f"{mine}\n" for mine, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _line(content: Mapping[str, Any]) -> bytes:
    return to_json(content).encode() + b"\n"
