"""Loads a tokenizer as a server would, and reports whether it gives back what it is given.

Run by path, in the server's own interpreter, which need not be ours: only the standard library and transformers are
used, and nothing of ``bundle``. The line of its output that begins with ``RESULT`` is a JSON object: ``transformers``
(its version, or null), ``checked`` (how many things were), ``problems`` (what failed, at most ``PROBLEM_LIMIT``),
``failed`` (how many did), ``error`` (null, or why the tokenizer could not even be loaded and asked), ``missing``
(packages that reading a sentencepiece model takes and that are not installed; transformers 5 then complains of a third
one), ``template`` (null, or why the chat template makes no prompt of a conversation), ``dated`` (whether its prompts
are others on another day), ``chosen`` (of two files with different chat templates the one that is used; null if there
are no two), ``end_of_turn`` (the token that the chat template writes after a reply, and its id; null if none),
``eos_token_id`` (the tokenizer's own) and ``conversations`` (for each conversation it was given: ``tokens``, how many
the chat template makes of it, ``with_special``, how many if the tokenizer adds its own special tokens, too, ``bare``,
how many a text that is not a conversation has without these,
``appended``, the text of those that it puts at the end, and ``beginning``, how the rendered text begins; or ``error``,
why it cannot be rendered).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

RESULT = b"\x1eresult "  # as in ``confined``; no other line begins like this
PROBLEM_LIMIT = 20
SHOWN = 400  # characters
LEFT_OUT = "as a special token, which servers leave out of replies"
SENTENCEPIECE_NEEDS = (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf"))

# What C-Eval prompts and replies are made of. Texts that `clean_up_tokenization` would tidy (" ." or " n't") are left
# out on purpose: old tokenizers do that to replies, and no score depends on it.
TEXTS = (
    "以下是中国关于会计考试的单项选择题，请选出其中的正确答案。",
    "某企业2023年的营业收入为1,000万元，成本率为85%（含税），则下列说法正确的是____。\n"
    "A. 150万元\nB. 0.15亿元\nC. 以上都对\nD. 无法确定\n答案: ",
    "A. 甲\n答案: ",
    "答案: A\n\n",
    "两个  空格，四个    空格，行尾有空格  \n\n\n    缩进四格",
    " 开头有空格，结尾也有 ",
    "\n开头是换行",
    "for x in range(3):\n    if x:\n        print(x)\n",
)
CHAT = (
    ("user", "“时间就是金钱”体现的是____。\nA. 甲  乙\nB. 丙\n答案:"),
    ("assistant", "A"),
    ("user", "下列说法正确的是____。\nA. 对\n\nB. 错\n答案:"),
)
REPLY = "这是一个回答"


class Report:
    """What was checked, and what did not hold."""

    def __init__(self, vocab_size: int | None) -> None:
        self.vocab_size = vocab_size
        self.checked = 0
        self.failed = 0
        self.problems: list[str] = []
        self._highest = -1

    def check(self, problem: str | None) -> None:
        """Count one check, failed if there is a ``problem``."""
        self.checked += 1
        if problem is not None:
            self.failed += 1
            if len(self.problems) < PROBLEM_LIMIT:
                self.problems.append(problem)

    def see(self, ids: list[int], source: str) -> None:
        """Note token ids; each new highest one beyond the model's is a problem."""
        highest = max(ids, default=-1)
        if highest <= self._highest:
            return
        self._highest = highest
        if self.vocab_size is not None and highest >= self.vocab_size:
            self.check(f"{source} has token id {highest}, but the model's vocab_size is {self.vocab_size}")


def shown(text: object, limit: int = 60) -> str:
    """Text in quotes, escaped where it does not print, and cut to a length."""
    plain = str(text)
    return repr(plain if len(plain) <= limit else plain[: limit - 1] + "…")


def difference(text: str, got: str) -> str | None:
    """How ``got`` differs from ``text``, or None if it does not.

    One space at the very start may come or go: sentencepiece's dummy prefix does that in sound models, and in a
    prompt such a start is never more than the text after a mark.
    """
    if got in (text, " " + text) or (text.startswith(" ") and got == text[1:]):
        return None
    for lost, name in ((" ", "spaces"), ("\n", "newlines"), (" \n", "spaces and newlines")):
        table = dict.fromkeys(map(ord, lost))
        if text.translate(table) == got.translate(table):
            verb = "lost" if len(got) < len(text) else "added"
            return f"{name} are {verb if len(lost) == 1 else 'changed'}: {shown(text)} comes back as {shown(got)}"
    start = next((i for i, (a, b) in enumerate(zip(text, got)) if a != b), min(len(text), len(got)))  # noqa: B905
    context = max(0, start - 10)
    return f"{shown(text[context : context + 40])} comes back as {shown(got[context : context + 40])}"


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, without those a tokenizer puts around it."""
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def decode(tokenizer: Any, ids: list[int], *, as_reply: bool = False) -> str:
    """The text of ids, every one of them; or as that of a reply, which servers give without special tokens."""
    return str(tokenizer.decode(ids, skip_special_tokens=as_reply, clean_up_tokenization_spaces=False))


def check_texts(tokenizer: Any, own: Any, report: Report) -> None:
    """Every text comes back as it was, from the tokens that ``tokenizer.json`` makes of it."""
    for text in TEXTS:
        ids = encode(tokenizer, text)
        report.see(ids, shown(text))
        problem = difference(text, decode(tokenizer, ids, as_reply=True))
        left_out = dict.fromkeys(decode(tokenizer, [one]) for one in ids if not decode(tokenizer, [one], as_reply=True))
        if problem is not None and left_out:
            problem += f", with {', '.join(map(shown, left_out))} {LEFT_OUT}"
        report.check(problem)
        check_tokens(tokenizer, own, text, report)


def own_tokenizer(tokenizer: Any, directory: str) -> Any:
    """What ``tokenizer.json`` says alone; None if there is none, or the tokenizer is not made of it.

    For some classes transformers 5 takes only the vocabulary from that file, and 4 takes all of it.
    """
    path = os.path.join(directory, "tokenizer.json")  # noqa: PTH118
    if not getattr(tokenizer, "is_fast", False) or not os.path.exists(path):  # noqa: PTH110
        return None
    import transformers  # imported late: slow, and the probe bounds its time

    return transformers.PreTrainedTokenizerFast(tokenizer_file=path)


def check_tokens(tokenizer: Any, own: Any, text: str, report: Report) -> None:
    """A text becomes the tokens that ``tokenizer.json`` makes of it, but for a space before the first."""
    if own is None:
        return
    ids, expected = encode(tokenizer, text), encode(own, text)
    rest = max(len(ids) - 3, 1)
    problem = f"{shown(text)} becomes {len(ids)} tokens, and {len(expected)} others by tokenizer.json"
    report.check(None if ids[-rest:] == expected[-rest:] else problem)


def declared_tokens(directory: str) -> dict[int, dict[str, Any]]:
    """The added tokens that the checkpoint's files declare, by id: ``content`` and flags.

    The first of these that says anything: tokenizer_config.json's ``added_tokens_decoder``, tokenizer.json's
    ``added_tokens`` (all there is when transformers 5 wrote the files), added_tokens.json.
    """
    decoder = read_json(directory, "tokenizer_config.json").get("added_tokens_decoder")
    if decoder:
        return {int(token): dict(entry) for token, entry in decoder.items()}
    added = read_json(directory, "tokenizer.json").get("added_tokens")
    if added:
        return {int(entry["id"]): dict(entry) for entry in added}
    return {int(token): {"content": content} for content, token in read_json(directory, "added_tokens.json").items()}


def read_json(directory: str, name: str) -> dict[str, Any]:
    """A JSON object, empty if the file does not exist."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            value = json.load(file)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def check_added_tokens(tokenizer: Any, declared: dict[int, dict[str, Any]], report: Report) -> None:
    """Every declared token has its own id, and is found within other text."""
    for token, entry in sorted(declared.items()):
        content = str(entry["content"])
        name = f"added token {token} ({shown(content)})"
        report.see([token], name)
        actual = tokenizer.convert_tokens_to_ids(content)
        if actual != token:
            report.check(f"{name} has id {actual} in the loaded tokenizer")
            continue
        gap = " " if entry.get("single_word") else ""
        texts = [f"x{gap}{content}{gap}y"]
        if entry.get("normalized"):
            # Normalizing may put sentencepiece's space before such a token, which then is found at a start only.
            texts.append(f"{content}{gap}y")
        found = [encode(tokenizer, text) for text in texts]
        for ids in found:
            report.see(ids, name)
        # A neighbour that the vocabulary lacks is the unknown token as well.
        many = token == getattr(tokenizer, "unk_token_id", None)
        whole = any(ids.count(token) == 1 or (many and token in ids) for ids in found)
        report.check(None if whole else f"{name} is not one token within other text: {shown(texts[0])} is {found[0]}")


class TemplateError(Exception):
    """A chat template that does not make a prompt of a conversation."""


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
    template = getattr(tokenizer, "chat_template", None)
    if not template or (isinstance(template, dict) and "default" not in template):
        return
    messages = [{"role": role, "content": content} for role, content in CHAT]
    text = render(tokenizer, messages, add_generation_prompt=True)
    ids = encode(tokenizer, text)
    report.see(ids, "a conversation")
    got = decode(tokenizer, ids)
    for _, content in CHAT:
        problem = None if content in got else f"a conversation loses the message {shown(content)}: {shown(got, 400)}"
        report.check(problem)
    marks = {str(entry["content"]): token for token, entry in declared.items() if entry.get("special")}
    for mark, count in occurrences(text, marks):
        problem = f"{shown(mark)} is in a conversation {count} times, but its id {marks[mark]} {ids.count(marks[mark])}"
        report.check(None if ids.count(marks[mark]) == count else problem)
    if own is not None and own.get_vocab().keys() >= {str(entry["content"]) for entry in declared.values()}:
        check_tokens(tokenizer, own, text, report)
    replied = render(tokenizer, [*messages, {"role": "assistant", "content": REPLY}], add_generation_prompt=False)
    if replied.startswith(text) and render(tokenizer, messages, add_generation_prompt=False) == text:
        beginning = replied[len(text) :].partition(REPLY)[0]
        if any(occurrences(beginning, marks)):
            raise TemplateError(f"a prompt does not end with what a reply begins with, {shown(beginning)}")


def end_of_turn(tokenizer: Any, declared: dict[int, dict[str, Any]]) -> tuple[str, int] | None:
    """The first added token that the chat template writes after a reply which another turn follows, and its id."""
    template = getattr(tokenizer, "chat_template", None)
    if not template or (isinstance(template, dict) and "default" not in template):
        return None
    contents = [*CHAT[:1], ("assistant", REPLY), *CHAT[2:]]
    messages = [{"role": role, "content": content} for role, content in contents]
    text = render(tokenizer, messages, add_generation_prompt=False)
    after = text.rpartition(REPLY)[2]
    marks = {str(entry["content"]): token for token, entry in declared.items()}
    marks = {**dict.fromkeys(tokenizer.all_special_tokens, 0), **marks}
    mark = next((mark for mark, _ in occurrences(after, marks)), None)
    if mark is None or REPLY not in text:
        return None
    token = tokenizer.convert_tokens_to_ids(mark)
    return (mark, token) if isinstance(token, int) else None


def occurrences(text: str, marks: dict[str, int]) -> Iterator[tuple[str, int]]:
    """The marks found in a text, in its order, and how often; of two at one place the longer one."""
    alternatives = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True) if mark)
    found = re.findall(alternatives, text) if alternatives else []
    for mark in dict.fromkeys(found):
        yield mark, found.count(mark)


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
        start = max(0, next((i for i, (a, b) in enumerate(zip(first, other)) if a != b), 0) - 20)  # noqa: B905
        became = f"{shown(first[start : start + 60])} may be {shown(other[start : start + 60])}"
        raise TemplateError(f"a prompt changes from one moment to the next: {became}")
    return any(at(morning + timedelta(days=days)) != first for days in (1, 2, 3, 4, 5, 6, 40, 400))


def chosen_template(tokenizer: Any, directory: str) -> str | None:
    """Of two files with different chat templates the one that the tokenizer has taken; None if there are no two."""
    try:
        with open(os.path.join(directory, "chat_template.jinja"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            own = file.read()
    except FileNotFoundError:
        return None
    template, used = read_json(directory, "tokenizer_config.json").get("chat_template"), tokenizer.chat_template
    if isinstance(template, list):
        template = {one.get("name"): one.get("template") for one in template}.get("default")
    if isinstance(used, dict):
        used = used.get("default")
    if not template or template.removesuffix("\n") == own.removesuffix("\n"):
        return None
    if used == own:
        return "chat_template.jinja"
    return "tokenizer_config.json" if used == template else "additional_chat_templates"


def adopt_template(tokenizer: Any, directory: str) -> None:
    """Give a tokenizer without a chat template that of the processor, as servers do."""
    if not getattr(tokenizer, "chat_template", None):
        template = read_json(directory, "chat_template.json").get("chat_template")
        if template:
            tokenizer.chat_template = template


def count_tokens(tokenizer: Any, messages: list[dict[str, str]], arguments: dict[str, Any]) -> dict[str, Any]:
    """How many tokens the chat template makes of a conversation that a reply continues.

    A text that the model continues as it stands (one message of the role ``text``) gets the special tokens that the
    tokenizer begins a text with, as in OpenCompass's ``HuggingFaceBaseModel``; ``bare`` is how many it has without.

    Some servers encode the rendered text as any other, so that a tokenizer adds its special tokens although the
    template has written them; they then remove the second of two ``bos`` tokens.
    """
    try:
        if messages[0]["role"] == "text":
            text = messages[0]["content"]
            special, bare = [int(token) for token in tokenizer.encode(text)], encode(tokenizer, text)
            counts = {"tokens": len(special), "with_special": len(special), "bare": len(bare)}
            return {**counts, "appended": appended(tokenizer, special, bare), **both_ends(text)}
        text = render(tokenizer, messages, add_generation_prompt=True, **arguments)
        special = [int(token) for token in tokenizer.encode(text)]
        doubled = len(special) > 1 and special[0] == special[1] == getattr(tokenizer, "bos_token_id", None)
        bare = encode(tokenizer, text)
        return {
            "tokens": len(bare),
            "with_special": len(special) - doubled,
            "appended": appended(tokenizer, special, bare),
            **both_ends(text),
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


def told(error: Exception) -> str:
    """An error as one line."""
    if type(error).__name__ == "TemplateSyntaxError":
        error = TemplateError(f"line {getattr(error, 'lineno', '?')}: {getattr(error, 'message', error)}")
    text = "more than it may use" if isinstance(error, MemoryError) else " ".join(str(error).split())
    text = text[:600].rstrip(".")
    return text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"


def both_ends(text: str) -> dict[str, str]:
    """How a prompt begins and ends."""
    return {"beginning": text[:SHOWN], "ending": text[-SHOWN:]}


def check_vocabulary(tokenizer: Any, report: Report) -> None:
    """No id that the tokenizer could ever give is beyond the model's."""
    report.see(list(tokenizer.get_vocab().values()), "the vocabulary")


def check_ends(tokenizer: Any, directory: str, declared: dict[int, dict[str, Any]], report: Report) -> None:
    """What ends a reply by the model's files is a mark of the tokenizer: not beyond its vocabulary, and no word."""
    given = (read_json(directory, "generation_config.json") or read_json(directory, "config.json")).get("eos_token_id")
    for token in given if isinstance(given, list) else [given]:
        if isinstance(token, int) and token >= 0 and token not in (*declared, *tokenizer.all_special_ids):
            text = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
            if text is None or not str(text).startswith(("<", "[")):  # not all declare their marks
                what = "has no such token" if text is None else f"has {shown(text)} there"
                report.check(f"eos_token_id {token} of the model ends a reply, but the tokenizer {what}")


def probe(
    directory: str,
    *,
    trust_remote_code: bool,
    vocab_size: int | None,
    conversations: list[list[dict[str, str]]] | None = None,
    template_arguments: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Load the tokenizer in ``directory``, check it, and count the tokens of conversations."""
    result: dict[str, Any] = {"transformers": None, "error": None, "missing": []}
    result |= {"template": None, "dated": False, "chosen": None}
    result |= {"end_of_turn": None, "eos_token_id": None, "conversations": []}
    report = Report(vocab_size)
    step = "transformers could not be imported"
    if not brings_code(directory):
        # transformers 5 imports torch even for tokenizers: seconds, and none of its own uses it.
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import transformers  # here, where its failure is a finding

        result["transformers"] = str(transformers.__version__)
        step = "loading it failed"
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
        step = "encoding and decoding failed"
        own = own_tokenizer(tokenizer, directory)
        check_texts(tokenizer, own, report)
        step = "its added tokens could not be checked"
        declared = declared_tokens(directory)
        check_added_tokens(tokenizer, declared, report)
        step = "its vocabulary could not be read"
        check_vocabulary(tokenizer, report)
        step = "what ends a reply could not be checked"
        check_ends(tokenizer, directory, declared, report)
        adopt_template(tokenizer, directory)
        try:
            check_chat(tokenizer, own, declared, report)
            result["end_of_turn"] = end_of_turn(tokenizer, declared)
            result["chosen"] = chosen_template(tokenizer, directory)
            chats = [messages for messages in conversations or () if messages[0]["role"] != "text"]
            messages = chats[0] if chats else [{"role": role, "content": content} for role, content in CHAT]
            result["dated"] = is_dated(tokenizer, messages, template_arguments or {})
        except Exception as error:
            result["template"] = told(error)
        step = "its prompts could not be counted"
        result["eos_token_id"] = getattr(tokenizer, "eos_token_id", None)
        arguments = template_arguments or {}
        result["conversations"] = [count_tokens(tokenizer, messages, arguments) for messages in conversations or ()]
    # Whatever a checkpoint's own code raises is a finding.
    except Exception as error:
        result["error"] = f"{step}: {told(error)}"
        result["missing"] = [name for name, module in SENTENCEPIECE_NEEDS if not installed(module)]
    return {**result, "checked": report.checked, "failed": report.failed, "problems": report.problems}


def brings_code(directory: str) -> bool:
    """Whether the checkpoint comes with code for its tokenizer, which may want any module."""
    try:
        with open(os.path.join(directory, "tokenizer_config.json"), encoding="utf-8") as stream:  # noqa: PTH118, PTH123
            return "auto_map" in json.load(stream)
    except (OSError, ValueError, TypeError):
        return True  # whatever is wrong there, transformers will say


def installed(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of its parent
        return False


def main() -> None:
    """Probe the directory given on the command line."""
    # A script's own directory comes first on the path; the modules in this one are not for it to import.
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != own]  # noqa: PTH100
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("conversations", metavar="FILE")
    arguments = parser.parse_args()
    with open(arguments.conversations, encoding="utf-8") as file:  # noqa: PTH123
        given = json.load(file)
    result = probe(
        arguments.directory,
        trust_remote_code=arguments.trust_remote_code,
        vocab_size=arguments.vocab_size,
        **given,
    )
    sys.stdout.flush()
    os.write(1, b"\n" + RESULT + json.dumps(result).encode() + b"\n")


if __name__ == "__main__":
    main()
