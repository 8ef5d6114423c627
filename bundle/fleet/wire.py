"""What a worker and its driver write to each other: a line of JSON for each call, outcome or notice.

The driver writes ``[number, name, arguments]`` to have something done, ``[number, "cancel", []]`` to call it off, and
empty lines to show that it is alive. The worker writes ``[number, kind, value]``: "result" or "error" ends a call,
and "begun" says that the reply to a question has begun; with the number 0 it reports something by itself.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

import pydantic_core  # several times as quick as json

from bundle import errors
from bundle.client import NoReplyError, RefusedError, Reply

LONGEST_LINE: Final = 2**28
BEAT_S: Final = 2.0
PATIENCE_S: Final = 30.0
"""Seconds without a line after which either side gives the other one up."""

_values: Final = attrgetter(*(field.name for field in fields(Reply)))
_NO_REPLY: Final = ("reason", "attempts", "latency_s", "transient", "too_long")


def to_line(number: int, kind: str, value: object) -> bytes:
    """A line, with its end."""
    try:
        return pydantic_core.to_json((number, kind, value)) + b"\n"
    except (pydantic_core.PydanticSerializationError, ValueError):  # half a character, as replies may hold
        return json.dumps((number, kind, value)).encode() + b"\n"


def from_line(line: bytes) -> tuple[int, str, Any]:
    """What a line says. Raises ValueError if it is not one of ours."""
    try:
        number, kind, value = pydantic_core.from_json(line)
    except ValueError:
        number, kind, value = json.loads(line)
    return number, kind, value


def reply_to_json(reply: Reply) -> Sequence[Any]:
    return _values(reply)


def reply_from_json(values: Sequence[Any]) -> Reply:
    return Reply(*values)


def error_to_json(error: BaseException) -> dict[str, Any]:
    if isinstance(error, NoReplyError):
        return {name: getattr(error, name) for name in _NO_REPLY}
    if not isinstance(error, errors.BundleError):
        error = errors.ServerError(f"The worker failed unexpectedly: {type(error).__name__}: {error}.")
    told = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy, "details": error.details}
    return told | ({"no_model": error.no_model} if isinstance(error, RefusedError) else {})


def error_from_json(told: dict[str, Any], machine: str) -> Exception:
    """The error that a worker has reported; one that ends more than a question names its machine."""
    if "reason" in told:
        return NoReplyError(**told)
    message, remedy = f"{machine}: {told['message']}", told["remedy"]
    if told["kind"] == RefusedError.__name__:
        return RefusedError(message, remedy=remedy, no_model=told["no_model"])
    kind = getattr(errors, told["kind"], errors.ServerError)
    error: Exception = kind(message, remedy=remedy, details=told["details"])
    return error
