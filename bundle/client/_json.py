"""JSON as servers write it."""

import contextlib
import json
from typing import Any

import pydantic_core

_UTF_8 = "utf-8"


def charset_of(content_type: str) -> str:
    """The charset that a ``Content-Type`` names; UTF-8 where it names none that is known."""
    charset = content_type.partition("charset=")[2].partition(";")[0].strip("\"' ") or _UTF_8
    try:
        b"  ".decode(charset)
    except (LookupError, ValueError):
        return _UTF_8
    return charset


def from_json(data: bytes, charset: str = _UTF_8) -> object:
    """Parse JSON: in a form of Unicode, as it must be, or else in ``charset``.

    Its numbers may have any length, and its texts line ends as they are.

    An object that a gateway has encoded a second time, as a string, is that object. Raises ValueError if it is not
    JSON, RecursionError if it is nested too deep.
    """
    value = _parsed(data, charset)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return _parsed(value.encode("utf-8", "surrogatepass"), charset)
    return value


def _parsed(data: bytes, charset: str) -> Any:
    # A fifth of json's time; what it does not know of old encodings and odd numbers, json may.
    with contextlib.suppress(ValueError):
        return pydantic_core.from_json(data)
    text: bytes | str = data
    try:
        return json.loads(data)
    except json.JSONDecodeError:
        return json.loads(data, strict=False)
    except UnicodeDecodeError:
        text = data.decode(charset)
    except ValueError:
        pass  # Python converts no integer of more than 4,300 digits
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)
