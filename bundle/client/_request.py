"""What is sent for a question, adapted to what a server accepts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core

from bundle.client._faults import AttemptError
from bundle.tasks.prompts import Message, is_plain

_REFUSED = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|extra|invalid|deprecated|illegal|must (be|not)|should be"
    r"|\bonly\b|\bnot\b.{0,20}(support|permit|allow|accept|recogni[sz]ed|valid)"
    r"|不(被|再)?(支持|允许|合法|接受)|非法|无效|未知|未定义|有误|错误|必须|取值|应(该|当|为|大于|小于|在)|不(能|可|得)|只能|仅",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"unexpected keyword|un(known|expected|recogni[sz]ed|supported) (\w+ )?(parameter|argument|field|key)"
    r"|extra (fields|inputs)|未知|未定义|不支持",
    re.IGNORECASE,
)
"""What a 5xx must say, since it names much that is not to blame."""
_OF_VALUE = re.compile(
    r"context|too (large|long|big|many|small|short|low)|exceed|less than|at (most|least)|larger|greater|below|minim"
    r"|上下文|超过|超出|小于|大于|不低于|至少|最小|过(小|大|长|短)|太(小|大|长|短)",
    re.IGNORECASE,
)
"""Says of a number of tokens that another one would be taken."""
_ABOVE_ZERO = re.compile(
    r"\(0(\.0)?\s*,|greater than 0|> ?0|above 0|positive|(0(\.0)? is )?exclusive|大于 ?0"
    r"|不(能|可|得)(为|是|等于) ?0|（0",
    re.IGNORECASE,
)
_WANTS_STREAM = re.compile(r"true|enable|only|must|仅|只|必须|需要?|开启|请使用", re.IGNORECASE)
_LENGTH_NAMES = r"最大(输出|生成|回复)?\s*(长度|[Tt]oken)|最大输出"
_CHINESE_NAMES = {
    "temperature": "温度",
    "max_tokens": _LENGTH_NAMES,
    "max_completion_tokens": _LENGTH_NAMES,
    "stream": "(?<!非)流式",
}
_ALMOST_GREEDY = 0.01
_BROKEN = 500


class RequestBody:
    """Builds the bodies of a model's requests, and changes them if the server refuses a parameter.

    Fields that are ``fixed``, as the user wants them, are never left out.

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

    def add(self, fields: Mapping[str, Any]) -> None:
        """Send further fields with every request from now on, unless they are fixed already."""
        self._extra |= {name: value for name, value in fields.items() if name not in self._fixed}
        self.version += 1

    def build(self, messages: Sequence[Message], max_out_len: int, fields: Mapping[str, Any]) -> bytes:
        """A body with further fields, but for what `ending` adds.

        Raises ValueError if a message cannot be encoded as UTF-8.
        """
        prompt = {"prompt": messages[0]["content"]} if is_plain(messages) else {"messages": messages}
        body = {**self._sampling, **self._extra, **self._fixed, **prompt, **fields}
        if self._length is not None:
            body[self._length] = max_out_len
        return pydantic_core.to_json(body)[:-1]  # a quarter of json's time

    def ending(self, *, streams: bool) -> bytes:
        """The end of a body: whether the reply is streamed, which is never left to the server's default."""
        if not streams:
            return b',"stream":false}' if self._with_stream else b"}"
        return b',"stream":true,"stream_options":{"include_usage":true}}' if self._with_options else b',"stream":true}'

    def adapt(self, fault: AttemptError, *, streams: bool) -> str | None:
        """Rename or leave out the parameter that a refusal names; say what has changed, None for nothing."""
        is_about_one = (_UNKNOWN if fault.status >= _BROKEN else _REFUSED).search(fault.reason) or fault.parameter
        change = self._change(fault, streams) if is_about_one else None
        if change is not None:
            self.version += 1
            self.changes.append(change)
        return change

    def _change(self, fault: AttemptError, streams: bool) -> str | None:
        def names(parameter: str) -> bool:
            name = rf"\b{parameter}\b|{_CHINESE_NAMES.get(parameter, '(?!)')}"
            return fault.parameter == parameter or bool(re.search(name, fault.reason, re.ASCII))

        if self._with_options and names("stream_options"):
            self._with_options = False
            return "stream_options left out"
        if self._length is not None and names(self._length) and not _OF_VALUE.search(fault.reason):
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
