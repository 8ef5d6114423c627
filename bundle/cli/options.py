"""The command line made from classes of options: one option a field, and help in groups."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from bundle.pipeline.options import Option

_WIDEST_HELP = 120
"""Columns; longer lines are hard to read, however wide the terminal."""
HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP}


class GroupedHelp(TyperCommand):
    """A command whose ``--help`` shows its options under the headings they were declared with."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, group by group in the order of their declaration."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        if len(groups) > 2 and (others := groups.pop("Options", None)):
            groups["Other"] = others
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of ``command`` that is a class of options by one option for each of its fields.

    Typer makes the command line from a function's parameters; this one has those, and calls ``command`` with objects of
    the classes.
    """
    signature = inspect.signature(command, eval_str=True)
    classes: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }
    parameters = [one for name, one in signature.parameters.items() if name not in classes]
    for kind in classes.values():
        hints = get_type_hints(kind)
        parameters += [_parameter(one, hints[one.name]) for one in fields(kind)]
    parameters.sort(key=lambda one: one.default is not inspect.Parameter.empty)

    @functools.wraps(command)
    def called_by_typer(**values: Any) -> None:
        made = {}
        for name, kind in classes.items():
            made[name] = kind(**{one.name: _parsed(one, values.pop(one.name)) for one in fields(kind)})
        command(**values, **made)

    called_by_typer.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called_by_typer.__annotations__ = {one.name: one.annotation for one in parameters}
    return called_by_typer


def _parameter(one: "Field[Any]", hint: Any) -> inspect.Parameter:
    option: Option = one.metadata["option"]
    typed, default = hint, one.default
    if option.parse is not None:
        typed, default = option.typed | None, None
    elif default is MISSING:
        assert one.default_factory is not MISSING
        default = one.default_factory()
    declared = typer.Option(
        *option.names,
        help=option.help,
        metavar=option.metavar,
        min=option.minimum,
        max=option.maximum,
        show_default=option.shown,
        rich_help_panel=option.group,
    )
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[typed, declared]
    )


def _parsed(one: "Field[Any]", value: Any) -> Any:
    parse = one.metadata["option"].parse
    return value if parse is None else parse(value)
