"""Whether a chat template makes prompts of conversations, and which."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from bundle.checkpoints.tokenizer_probe.files import read_json
from bundle.checkpoints.tokenizer_probe.report import Report, TemplateError, common, shown, told
from bundle.checkpoints.tokenizer_probe.texts import check_tokens, decode, encode

SHOWN = 400  # characters
REPLY = "这是一个回答"
CHAT = [
    {"role": "user", "content": "“时间就是金钱”体现的是____。\nA. 甲  乙\nB. 丙\n答案:"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "下列说法正确的是____。\nA. 对\n\nB. 错\n答案:"},
]


def adopt_template(tokenizer: Any, directory: str, chosen: str | None) -> None:
    """Give a tokenizer the chosen chat template; without one that of the processor, if it has none, as servers do."""
    template = chosen
    if template is None and not getattr(tokenizer, "chat_template", None):
        template = read_json(directory, "chat_template.json").get("chat_template")
    if template:
        tokenizer.chat_template = template


def default_template(tokenizer: Any) -> str | None:
    """The chat template that is used where none is named; None if there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return (template.get("default") if isinstance(template, dict) else template) or None


def chosen_template(tokenizer: Any, directory: str) -> str | None:
    """Of two files with different chat templates the one that the tokenizer has taken; None if there are no two."""
    try:
        with open(os.path.join(directory, "chat_template.jinja"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            own = file.read()
    except FileNotFoundError:
        return None
    template, used = read_json(directory, "tokenizer_config.json").get("chat_template"), default_template(tokenizer)
    if isinstance(template, list):
        template = {one.get("name"): one.get("template") for one in template}.get("default")
    if not template or template.removesuffix("\n") == own.removesuffix("\n"):
        return None
    if used == own:
        return "chat_template.jinja"
    return "tokenizer_config.json" if used == template else "additional_chat_templates"


def render(tokenizer: Any, messages: list[dict[str, str]], **arguments: Any) -> str:
    """The prompt that the chat template makes of a conversation. Every message must be in it, in order."""
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, **arguments))
    end = 0
    for message in messages:
        content = message["content"].strip()
        if content not in text:
            raise TemplateError(f"it leaves out text of a message: {shown(content)} becomes {shown(text, 200)}")
        if message["role"] != "system":  # some put that into the last turn
            if (start := text.find(content, end)) < 0:
                raise TemplateError(f"it changes the order of messages: {shown(text, 200)}")
            end = start + len(content)
    return text


def check_chat(tokenizer: Any, own: Any, declared: dict[int, dict[str, Any]], report: Report) -> None:
    """A rendered conversation keeps its messages, each mark in it is one token, and it ends where a reply begins."""
    if default_template(tokenizer) is None:
        return
    text = render(tokenizer, CHAT, add_generation_prompt=True)
    ids = encode(tokenizer, text)
    report.see(ids, "a conversation")
    got = decode(tokenizer, ids)
    for message in CHAT:
        content = message["content"]
        problem = None if content in got else f"a conversation loses the message {shown(content)}: {shown(got, 400)}"
        report.check(problem)
    marks = {str(entry["content"]): token for token, entry in declared.items() if entry.get("special")}
    found = marks_in(text, marks)
    for mark in dict.fromkeys(found):
        count, token = found.count(mark), marks[mark]
        problem = f"{shown(mark)} is in a conversation {count} times, but its id {token} {ids.count(token)}"
        report.check(None if ids.count(token) == count else problem)
    if own is not None and own.get_vocab().keys() >= {str(entry["content"]) for entry in declared.values()}:
        check_tokens(tokenizer, own, text, report)
    replied = render(tokenizer, [*CHAT, {"role": "assistant", "content": REPLY}], add_generation_prompt=False)
    if replied.startswith(text) and render(tokenizer, CHAT, add_generation_prompt=False) == text:
        beginning = replied[len(text) :].partition(REPLY)[0]
        if marks_in(beginning, marks):
            raise TemplateError(f"a prompt does not end with what a reply begins with, {shown(beginning)}")


def end_of_turn(tokenizer: Any, declared: dict[int, dict[str, Any]]) -> tuple[str, int] | None:
    """The first added token that the chat template writes after a reply which another turn follows, and its id."""
    if default_template(tokenizer) is None:
        return None
    messages = [CHAT[0], {"role": "assistant", "content": REPLY}, CHAT[2]]
    _, reply, after = render(tokenizer, messages, add_generation_prompt=False).rpartition(REPLY)
    found = marks_in(after, [*(str(entry["content"]) for entry in declared.values()), *tokenizer.all_special_tokens])
    if not reply or not found:
        return None
    token = tokenizer.convert_tokens_to_ids(found[0])
    return (found[0], token) if isinstance(token, int) else None


def marks_in(text: str, marks: Iterable[str]) -> list[str]:
    """The marks found in a text, each time, in its order; of two at one place the longer one."""
    alternatives = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True) if mark)
    return re.findall(alternatives, text) if alternatives else []


def is_dated(tokenizer: Any, messages: list[dict[str, str]], arguments: dict[str, Any]) -> bool:
    """Whether a prompt is another one on another day. Raises TemplateError if it changes within a day."""
    if not getattr(tokenizer, "chat_template", None):
        return False
    utilities: Any = sys.modules.get("transformers.utils.chat_template_utils")  # older versions tell templates no time

    def at(moment: datetime) -> str:
        class Stopped(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return moment

        real = getattr(utilities, "datetime", None)
        try:
            if real is not None:
                utilities.datetime = Stopped
            return render(tokenizer, messages, add_generation_prompt=True, **arguments)
        finally:
            if real is not None:
                utilities.datetime = real

    morning = datetime(2024, 5, 6)
    first, *later = (at(morning + timedelta(seconds=3671 * hour, microseconds=hour)) for hour in range(24))
    if (other := next((text for text in later if text != first), None)) is not None:  # or by chance, with `random`
        start = max(0, common(first, other) - 20)
        became = f"{shown(first[start : start + 60])} may be {shown(other[start : start + 60])}"
        raise TemplateError(f"a prompt changes from one moment to the next: {became}")
    return any(at(morning + timedelta(days=days)) != first for days in (1, 2, 3, 4, 5, 6, 40, 400))


def count_tokens(tokenizer: Any, messages: list[dict[str, str]], arguments: dict[str, Any]) -> dict[str, Any]:
    """How many tokens the chat template makes of a conversation that a reply continues.

    A text that the model continues as it stands (one message of the role ``text``) gets the special tokens that the
    tokenizer begins a text with, as in OpenCompass's ``HuggingFaceBaseModel``; ``bare`` is how many it has without.

    Some servers encode the rendered text as any other, so that a tokenizer adds its special tokens although the
    template has written them (``with_special``); they then remove the second of two ``bos`` tokens. What it puts at the
    end is ``appended``; ``beginning`` and ``ending`` are how the text begins and ends. Or ``error``: why there is none.
    """
    try:
        plain = messages[0]["role"] == "text"
        text = messages[0]["content"] if plain else render(tokenizer, messages, add_generation_prompt=True, **arguments)
        special, bare = [int(token) for token in tokenizer.encode(text)], encode(tokenizer, text)
        bos = getattr(tokenizer, "bos_token_id", None)
        doubled = not plain and len(special) > 1 and special[0] == special[1] == bos
        return {
            "tokens": len(special) if plain else len(bare),
            "with_special": len(special) - doubled,
            "bare": len(bare) if plain else None,
            "appended": appended(tokenizer, special, bare),
            "beginning": text[:SHOWN],
            "ending": text[-SHOWN:],
        }
    except MemoryError:  # of the server it would take as much
        raise
    # Whatever else a template or a checkpoint's own code raises is a finding.
    except Exception as error:
        return {"error": told(error)}


def appended(tokenizer: Any, special: list[int], bare: list[int]) -> str:
    """The text of the special tokens that a tokenizer puts after a text, such as its end; usually empty."""
    whole = len(special)
    end = next((end for end in range(whole, len(bare) - 1, -1) if special[end - len(bare) : end] == bare), whole)
    return decode(tokenizer, special[end:])
