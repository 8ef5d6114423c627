"""The version OpenCompass shows beside a score: a hash of the prompt, so that only like is compared with like.

It is the first digits of a SHA-256 of the data set's ``infer_cfg`` as JSON (``opencompass/utils/prompt.py``,
``get_prompt_hash``). Ours is computed from the same configuration, rebuilt from the run's record, so the same prompt
has the same version here and there.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bundle.runs.task_record import TaskRecord

_LENGTH = 6
_OPENICL = "opencompass.openicl"
_EXAMPLES_HERE = "</E>"


def prompt_version(task: TaskRecord, subject: str) -> str:
    """The version of a subject's prompt: six hexadecimal digits.

    Args:
        task: The task.
        subject: The subject's name as it is in the prompt.
    """
    user, assistant = (text.replace("{subject}", subject) for text in (task.user, task.assistant))
    return _hash(_infer_cfg(user, assistant, task.examples, task.place_for_examples, task.max_out_len))[:_LENGTH]


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
