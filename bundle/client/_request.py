"""What is sent for a question, adapted to what a server accepts."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.client._faults import AttemptError
from bundle.tasks.prompts import Message, is_plain

_REFUSED = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|extra|invalid|deprecated|illegal|must (be|not)|should be"
    r"|\bonly\b|\bnot\b.{0,20}(support|permit|allow|accept|recogni[sz]ed|valid)|不支持|非法|无效|未知|必须|取值",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context|too (large|long|big|many)|exceed|less than|at most|larger|上下文|超过|超出", re.IGNORECASE
)
_ABOVE_ZERO = re.compile(
    r"\(0(\.0)?\s*,|greater than 0|> ?0|above 0|positive|(0(\.0)? is )?exclusive|大于 ?0|（0", re.IGNORECASE
)
_WANTS_STREAM = re.compile(r"true|enable|only|must", re.IGNORECASE)
_ALMOST_GREEDY = 0.01


class RequestBody:
    """Builds the bodies of a model's requests, and changes them if the server refuses a parameter.

    Args:
        model: The served name.
        temperature: 0 for greedy decoding.
        fixed: Further fields, which the user wants and which are therefore never left out.

    Attributes:
        version: How many times it has changed.
        changes: What has changed, in words.
    """

    def __init__(self, model: str, temperature: float, fixed: Mapping[str, Any]) -> None:
        self._sampling: dict[str, Any] = {"model": model, "temperature": temperature}
        self._fixed = fixed
        self._extra: dict[str, Any] = {}
        self._length: str | None = "max_tokens"
        self._with_options, self._with_stream = True, True
        self.version = 0
        self.changes: list[str] = []
        self._set_ends()

    def add(self, fields: Mapping[str, Any]) -> None:
        """Send further fields with every request from now on, unless they are fixed already."""
        self._extra |= {name: value for name, value in fields.items() if name not in self._fixed}
        self.version += 1

    def build(self, messages: Sequence[Message], max_out_len: int, fields: Mapping[str, Any]) -> bytes:
        """A body with further fields, but for what `ending` adds.

        Raises:
            UnicodeEncodeError: A message cannot be encoded as UTF-8.
        """
        prompt = {"prompt": messages[0]["content"]} if is_plain(messages) else {"messages": messages}
        body = {**self._sampling, **self._extra, **self._fixed, **prompt, **fields}
        if self._length is not None:
            body[self._length] = max_out_len
        return json.dumps(body, ensure_ascii=False).encode()[:-1]

    def ending(self, *, streams: bool) -> bytes:
        """The end of a body: whether the reply is to be streamed, which is never left to the server's default."""
        return self._ends[streams]

    def adapt(self, fault: AttemptError, *, streams: bool) -> str | None:
        """Rename or leave out the parameter that a refusal names; say what has changed, None for nothing."""
        change = self._change(fault, streams) if _REFUSED.search(fault.reason) or fault.parameter else None
        if change is not None:
            self.version += 1
            self.changes.append(change)
            self._set_ends()
        return change

    def _change(self, fault: AttemptError, streams: bool) -> str | None:
        def names(parameter: str) -> bool:
            return fault.parameter == parameter or bool(re.search(rf"\b{parameter}\b", fault.reason))

        if self._with_options and names("stream_options"):
            self._with_options = False
            return "stream_options left out"
        if self._length is not None and names(self._length) and not _TOO_LONG.search(fault.reason):
            refused, self._length = self._length, "max_completion_tokens" if self._length == "max_tokens" else None
            return f"{refused} {'left out' if self._length is None else f'renamed to {self._length}'}"
        if "temperature" in self._sampling and names("temperature"):
            if self._sampling["temperature"] == 0 and _ABOVE_ZERO.search(fault.reason):
                self._sampling["temperature"] = _ALMOST_GREEDY
                return f"temperature {_ALMOST_GREEDY:g} instead of 0"
            del self._sampling["temperature"]
            return "temperature left out: the server's default applies"
        if (extra := next(filter(names, self._extra), None)) is not None:
            del self._extra[extra]
            return f"{extra} left out"
        if not streams and self._with_stream and names("stream") and not _WANTS_STREAM.search(fault.reason):
            self._with_stream = False
            return "stream left out"
        return None

    def _set_ends(self) -> None:
        options = b',"stream_options":{"include_usage":true}' if self._with_options else b""
        self._ends = {
            True: b',"stream":true' + options + b"}",
            False: b',"stream":false}' if self._with_stream else b"}",
        }
