"""The command line made from classes of options: one option per field, and help in groups."""

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from bundle.cli import _completion
from bundle.cli._wrong_usage import in_our_words
from bundle.pipeline.options import GROUPS, Option
from bundle.pipeline.options import option as _option_of_group
from bundle.runs.finding import OUTPUTS

_WIDEST_HELP = 120
"""Columns; longer lines are hard to read, however wide the terminal."""
_WIDEST_NAMES = 28
_NO_BRACES = str.maketrans("", "", "{}")

RUN_HELP = "A run: its directory, its name or the beginning of it, its model's name, or latest."

option = functools.partial(_option_of_group, "")
"""A field of a class of options, for a command whose options are few."""

# What several commands have.
RunArgument = Annotated[Path, typer.Argument(metavar="[RUN]", help=RUN_HELP, autocompletion=_completion.runs)]
page_language = functools.partial(option, None, "Language of the page.", default="the browser's")
screen_language = functools.partial(option, None, "Language of the table.", default="the locale's")
runs_directory = functools.partial(option, OUTPUTS, "Look for runs in DIR.", metavar="DIR")

_COMPLETED = {
    "tasks": _completion.tasks,
    "task": _completion.tasks,
    "model": _completion.run_models,
    "subjects": _completion.subjects,
    "engine": _completion.engines,
    "model_file": _completion.models,
    "baseline": _completion.runs,
    "base": _completion.runs,
    "remove": _completion.run_names,
    "format_name": _completion.formats,
    "log": _completion.trackers,
    "resume": _completion.runs,
}
"""What completes an option, by its field."""

HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP}


class GroupedHelp(TyperCommand):
    """A command whose ``--help`` shows its options under the headings they were declared with, in one column."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the command line; what is wrong with it raises this program's UsageError."""
        with in_our_words(ctx):
            return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name on the usage line; typer brackets arguments that are bracketed already."""
        pieces = (piece.translate(_NO_BRACES) for piece in super().collect_usage_pieces(ctx))
        return [piece.replace("[[", "[").replace("]]", "]") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, group by group in the order of their declaration."""
        groups: dict[str, list[tuple[str, str]]] = {}
        parameter: Any
        for parameter in self.get_params(ctx):
            if getattr(parameter, "hidden", False):
                continue
            names, text = parameter.get_help_record(ctx)
            group = getattr(parameter, "rich_help_panel", None)
            if parameter.param_type_name == "option":
                text = parameter.help  # has the default already, in fewer words
            elif parameter.param_type_name == "argument":
                names, group = parameter.metavar, "Arguments"
            groups.setdefault(group or "Other options", []).append((names.lstrip(" /"), text))
        width = min(_WIDEST_NAMES, max(len(names) for records in groups.values() for names, _ in records))
        for group, records in groups.items():
            with formatter.section(group if len(groups) > 2 else group.removeprefix("Other ").capitalize()):
                formatter.write_dl([(names.ljust(width), text) for names, text in records], col_max=width)


def with_options(command: Callable[..., None], *, hidden: Collection[str] = ()) -> Callable[..., None]:
    """Replace every parameter of ``command`` that is a class of options by one option for each of its fields.

    The help does not show the ``hidden`` fields, which the command refuses.

    Typer makes the command line from a function's parameters; this one has those, and calls ``command`` with an object
    of each class.
    """
    signature = inspect.signature(command, eval_str=True)
    classes: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }
    hints = {kind: get_type_hints(kind) for kind in classes.values()}
    options = [(one, of_kind[one.name]) for kind, of_kind in hints.items() for one in fields(kind)]
    options.sort(key=lambda one: ("", *GROUPS).index(_declared(one[0]).group))
    parameters = [one for name, one in signature.parameters.items() if name not in classes]
    parameters += [_parameter(one, hint, hidden=one.name in hidden) for one, hint in options]

    @functools.wraps(command)
    def called_by_typer(**values: Any) -> None:
        made = {}
        for name, kind in classes.items():
            given = {one.name: (values.pop(one.name), _declared(one).parse) for one in fields(kind)}
            typed = {key: (value, parse) for key, (value, parse) in given.items() if value is not None}
            made[name] = kind(**{key: parse(value) if parse else value for key, (value, parse) in typed.items()})
        command(**values, **made)

    called_by_typer.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called_by_typer.__annotations__ = {one.name: one.annotation for one in parameters}
    return called_by_typer


def _declared(one: "Field[Any]") -> Option:
    declared: Option = one.metadata["option"]
    return declared


def _parameter(one: "Field[Any]", hint: Any, *, hidden: bool) -> inspect.Parameter:
    told, default = _declared(one), one.default
    if one.default_factory is not MISSING:
        default = None if told.parse else one.default_factory()
    shown = told.default or (None if isinstance(default, bool) else default)
    help_text = told.help
    if shown is not None:
        words = ", ".join(shown) if isinstance(shown, list) else f"{shown:g}" if isinstance(shown, float) else shown
        help_text += f" [default: {words}]"
    names = told.names
    if not names and told.metavar:  # typer 0.27 takes a metavar like ENGINE for the name of an option called engine
        names = (f"--{one.name.replace('_', '-')}",)
    declared = typer.Option(
        *names,
        help=help_text,
        metavar=told.metavar,
        min=told.minimum,
        max=told.maximum,
        show_default=False,
        hidden=hidden,
        rich_help_panel=told.group or None,
        autocompletion=_COMPLETED.get(one.name),
    )
    typed = told.typed | None if told.parse else hint
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(one.name, kind, default=default, annotation=Annotated[typed, declared])
