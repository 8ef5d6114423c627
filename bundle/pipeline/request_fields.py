"""Fields of the requests to a server that is started here: what engines understand of them, and what they must hold."""

from collections.abc import Mapping
from typing import Any

from bundle.checkpoints import TokenizerProof
from bundle.serving.engine import ServerSpec


def understood(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as every engine understands them: some remote APIs have ``enable_thinking`` as one of its own."""
    fields = dict(fields)
    if "enable_thinking" in fields:
        thinking = {"enable_thinking": fields.pop("enable_thinking")}
        fields["chat_template_kwargs"] = thinking | fields.get("chat_template_kwargs", {})
    return fields


def template_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of a request hand the chat template; engines hand it how much to think as well."""
    fields = understood(fields)
    effort = {name: fields[name] for name in ("reasoning_effort",) if name in fields}
    return {**fields.get("chat_template_kwargs", {}), **effort}


def stop_fields(spec: ServerSpec, proof: TokenizerProof) -> dict[str, list[str] | list[int]]:
    """What requests must hold so that replies stop where the chat template ends a turn; usually nothing."""
    if not proof.stop_token_ids or proof.end_of_turn is None or spec.stop_field is None:
        return {}
    return {spec.stop_field: [proof.end_of_turn] if spec.stop_field == "stop" else list(proof.stop_token_ids)}
