"""The version OpenCompass shows beside a score: a hash of the prompt, so that scores are compared that can be.

It is the beginning of a SHA-256 of the data set's ``infer_cfg`` as JSON (``opencompass/utils/prompt.py``,
``get_prompt_hash``). Ours is made of the same configuration, written from what the run's record says of its prompt, so
that the same prompt has the same version here and there.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bundle.tasks.benchmarks import Subject

_LENGTH = 6
_OPENICL = "opencompass.openicl"
_EXAMPLES_HERE = "</E>"


def prompt_version(task: Mapping[str, Any], subject: Subject) -> str | None:
    """The version of a subject's prompt.

    Args:
        task: A task's part of ``run.json``.
        subject: The subject.

    Returns:
        Six hexadecimal digits; None where the record is too old to say how the questions were asked.
    """
    try:
        user, assistant = (str(task[part]).replace("{subject}", subject.chinese) for part in ("user", "assistant"))
        examples, place, longest = task["examples"], task["place_for_examples"], task["max_out_len"]
    except KeyError:
        return None
    return _hash(_infer_cfg(user, assistant, examples, place, longest))[:_LENGTH]


def _infer_cfg(user: str, assistant: str, examples: int, place: bool, longest: int | None) -> dict[str, Any]:
    turns = [{"role": "HUMAN", "prompt": user}]
    if place or assistant != "{answer}":  # which adds nothing to a prompt without examples, and is left out there
        turns.append({"role": "BOT", "prompt": assistant})
    template: dict[str, Any] = {"type": f"{_OPENICL}.icl_prompt_template.PromptTemplate", "template": {"round": turns}}
    if place:
        template |= {"template": {"begin": _EXAMPLES_HERE, "round": turns}, "ice_token": _EXAMPLES_HERE}
    inferencer: dict[str, Any] = {"type": f"{_OPENICL}.icl_inferencer.GenInferencer"}
    if longest is not None:
        inferencer["max_out_len"] = longest
    if examples:
        inferencer["fix_id_list"] = list(range(examples))
    retriever = "FixKRetriever" if examples else "ZeroRetriever"
    return {
        "ice_template" if place else "prompt_template": template,
        "retriever": {"type": f"{_OPENICL}.icl_retriever.{retriever}"},
        "inferencer": inferencer,
    }


def _hash(infer_cfg: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(infer_cfg, sort_keys=True).encode()).hexdigest()
