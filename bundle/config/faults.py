"""What pydantic finds wrong with a file, in plain sentences."""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bundle.system.text import did_you_mean, one_line

_COMPARISONS: Final[Mapping[str, str]] = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length} entries",
    "string_too_short": "must not be empty",
}
_KINDS: Final[Mapping[str, str]] = {
    "int": "a valid integer",
    "float": "a valid number",
    "finite_number": "a finite number",
    "bool": "a valid boolean, true or false",
    "string": "text in quotes",
    "is_instance": "text in quotes",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
}
"""What a value should have been, by the beginning of the error's type."""


def first_fault(error: ValidationError, schema: type[BaseModel] = BaseModel) -> str:
    """The gravest of a validation's errors as a sentence: which key, and what is wrong with it.

    ``schema`` has the names that an unknown key may be meant for.
    """
    # An unknown key often is the cause of a missing one, so it goes first.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    key = one_line(".".join(str(part) for part in fault["loc"]), 100)
    match fault["type"]:
        case "extra_forbidden":
            near = did_you_mean(str(fault["loc"][-1]), _keys(schema, fault["loc"][:-1]))
            return f"unknown key {key!r}. {near}".rstrip()
        case "missing":
            if keys := _keys(schema, fault["loc"]):
                return f"the table [{key}] is missing; its keys are {', '.join(keys)}."
            return f"the key {key!r} is missing."
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", fault["msg"])
            said = f"must be {' or '.join(map(repr, allowed)) or 'one of the values allowed'}"
            return f"key {key!r}: {said}. {did_you_mean(str(fault['input']), allowed)}".rstrip()
    said = _said(fault)
    return f"key {key!r}: {said}." if key else f"{said}."


def value_fault(error: ValidationError) -> str:
    """What is wrong with a single value, such as an option's."""
    return _said(error.errors(include_url=False)[0])


def _said(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"]).rstrip(".")
    if kind in _COMPARISONS:
        return _COMPARISONS[kind].format_map(context)
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    wanted = next((words for start, words in _KINDS.items() if kind.startswith(start)), None)
    return one_line(fault["msg"], 200) if wanted is None else f"must be {wanted}"


def _keys(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys a part of the file may have; none if the part is not a table of a schema."""
    fields = schema.model_fields
    for part in location:
        annotation: Any = fields[str(part)].annotation if str(part) in fields else None
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not tables:
            return []
        fields = tables[0].model_fields
    return list(fields)
