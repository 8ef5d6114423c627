"""All checks of one tokenizer."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from bundle.checkpoints.tokenizer_probe.files import brings_code, declared_tokens
from bundle.checkpoints.tokenizer_probe.report import Report, told
from bundle.checkpoints.tokenizer_probe.template import (
    CHAT,
    adopt_template,
    check_chat,
    chosen_template,
    count_tokens,
    end_of_turn,
    is_dated,
)
from bundle.checkpoints.tokenizer_probe.texts import check_added_tokens, check_ends, check_texts, own_tokenizer

SENTENCEPIECE_NEEDS = (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf"))


def probe(
    directory: str,
    *,
    trust_remote_code: bool,
    vocab_size: int | None,
    conversations: list[list[dict[str, str]]] | None = None,
    template_arguments: dict[str, Any] | None = None,
    template: str | None = None,
) -> dict[str, Any]:
    """Load the tokenizer in ``directory``, check it, and count the tokens of conversations.

    ``template`` is used instead of the checkpoint's chat template. Returns, for JSON: ``transformers`` (its version, or
    null), ``checked`` (how many things were), ``problems`` (what failed, at most ``PROBLEM_LIMIT``), ``failed``
    (how many did), ``error`` (null, or why the tokenizer could not even be loaded and asked), ``missing`` (packages
    that reading a sentencepiece model takes and that are not installed; transformers 5 then complains of a third
    one), ``template`` (null, or why the chat template makes no prompt of a conversation), ``dated`` (whether its
    prompts are others on another day), ``chosen`` (of two files with different chat templates the one that is used;
    null if there are no two), ``end_of_turn`` (the token that the chat template writes after a reply, and its id;
    null if none), ``eos_token_id`` (the tokenizer's own) and ``conversations`` (what `count_tokens` says of each).
    """
    result: dict[str, Any] = {"transformers": None, "error": None, "missing": []}
    result |= {"template": None, "dated": False, "chosen": None}
    result |= {"end_of_turn": None, "eos_token_id": None, "conversations": []}
    report = Report(vocab_size)
    arguments = template_arguments or {}
    step = "transformers could not be imported"
    if not brings_code(directory):
        # transformers 5 imports torch even for tokenizers: seconds, and none of its own uses it.
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import transformers  # here, where its failure is a finding

        result["transformers"] = str(transformers.__version__)
        step = "loading it failed"
        # vLLM does not take Mistral's own (tekken.json) either, for which marks in a text are no marks.
        knows_it = hasattr(transformers.models.auto.tokenization_auto, "_use_mistral_format")
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=trust_remote_code, **({"mistral_format": False} if knows_it else {})
        )
        step = "encoding and decoding failed"
        own = own_tokenizer(tokenizer, directory)
        check_texts(tokenizer, own, report)
        step = "its added tokens could not be checked"
        declared = declared_tokens(directory)
        check_added_tokens(tokenizer, declared, report)
        step = "its vocabulary could not be read"
        report.see(list(tokenizer.get_vocab().values()), "the vocabulary")
        step = "what ends a reply could not be checked"
        check_ends(tokenizer, directory, declared, report)
        adopt_template(tokenizer, directory, template)
        try:
            check_chat(tokenizer, own, declared, report)
            result["end_of_turn"] = end_of_turn(tokenizer, declared)
            result["chosen"] = chosen_template(tokenizer, directory)
            chats = [messages for messages in conversations or () if messages[0]["role"] != "text"]
            result["dated"] = is_dated(tokenizer, chats[0] if chats else CHAT, arguments)
        except Exception as error:
            result["template"] = told(error)
        step = "its prompts could not be counted"
        result["eos_token_id"] = getattr(tokenizer, "eos_token_id", None)
        result["conversations"] = [count_tokens(tokenizer, messages, arguments) for messages in conversations or ()]
    # Whatever a checkpoint's own code raises is a finding.
    except Exception as error:
        result["error"] = f"{step}: {told(error)}"
        result["missing"] = [name for name, module in SENTENCEPIECE_NEEDS if not installed(module)]
    return {**result, "checked": report.checked, "failed": report.failed, "problems": report.problems}


def installed(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of its parent
        return False
