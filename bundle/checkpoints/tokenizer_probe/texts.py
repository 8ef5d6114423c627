"""Whether a tokenizer gives texts back, and knows its added tokens."""

from __future__ import annotations

import os
from typing import Any

from bundle.checkpoints.tokenizer_probe.files import read_json
from bundle.checkpoints.tokenizer_probe.report import Report, common, shown

LEFT_OUT = "as a special token, which servers leave out of replies"

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
    context = max(0, common(text, got) - 10)
    return f"{shown(text[context : context + 40])} comes back as {shown(got[context : context + 40])}"


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


def check_ends(tokenizer: Any, directory: str, declared: dict[int, dict[str, Any]], report: Report) -> None:
    """What ends a reply by the model's files is a mark of the tokenizer: not beyond its vocabulary, and no word."""
    given = (read_json(directory, "generation_config.json") or read_json(directory, "config.json")).get("eos_token_id")
    for token in given if isinstance(given, list) else [given]:
        if isinstance(token, int) and token >= 0 and token not in (*declared, *tokenizer.all_special_ids):
            text = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
            if text is None or not str(text).startswith(("<", "[")):  # not all declare their marks
                what = "has no such token" if text is None else f"has {shown(text)} there"
                report.check(f"eos_token_id {token} of the model ends a reply, but the tokenizer {what}")
