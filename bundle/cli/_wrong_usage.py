"""What typer finds wrong with a command line, said as every other error of this program."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

import typer

from bundle.errors import UsageError
from bundle.system.text import did_you_mean

TAKE_ENGINE_ARGUMENTS: Final = ("eval-local", "watch")
"""Commands that pass on what follows ``--``."""

_TYPERS: Final[Any] = typer.BadParameter.__mro__[1]
"""What all its usage errors are; the class has no public name."""
_OPENCOMPASS: Final = {
    "--datasets": "--task",
    "--work-dir": "--out",
    "--batch-size": "--concurrency",
    "--reuse": "--resume",
    "--hf-path": "the argument MODEL_DIR",
    "--models": "the argument MODEL_DIR",
    "--hf-num-gpus": "--tp of the server, after `--`",
}
"""Options of OpenCompass's command line, and what they are called here."""
_UNEXPECTED: Final = re.compile(r"Got unexpected extra argument\S* \((.*)\)")
_IN_QUOTES: Final = re.compile(r"'([^']*)'")


@contextlib.contextmanager
def in_our_words(context: Any) -> Iterator[None]:
    """Turn typer's usage error into a UsageError with a hint."""
    try:
        yield
    except _TYPERS as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # shows the help
            raise
        raise _said(error, context) from None


def _said(error: Any, context: Any) -> UsageError:
    name, parameters = getattr(error, "option_name", ""), context.command.params
    if name in _OPENCOMPASS and context.info_name == "eval-local":
        return UsageError(f"No such option: {name}.", remedy=f"OpenCompass's {name} is {_OPENCOMPASS[name]} here.")
    if hasattr(error, "possibilities"):  # there is no such option
        names = [one for parameter in parameters for one in (*parameter.opts, *parameter.secondary_opts)]
        known = {one.lstrip("-"): one for one in names if one.startswith("-")}
        near = did_you_mean(name.lstrip("-"), known).replace("mean ", "mean --")
        engine = "Options of the inference server come after `--`." * (context.info_name in TAKE_ENGINE_ARGUMENTS)
        hints = [near or f"`{context.command_path} --help` lists the options." * (not engine), engine]
        return UsageError(f"No such option: {name}.", remedy=" ".join(filter(None, hints)))
    parameter = getattr(error, "param", None) or next((one for one in parameters if name in one.opts), None)
    if parameter is None:
        message = _UNEXPECTED.sub(r"Unexpected argument: \1", error.format_message())
        return UsageError(f"{message.rstrip('.')}.", remedy=context.get_usage())
    if parameter.param_type_name == "argument":
        shown, remedy = parameter.metavar.strip("[]"), context.command.epilog
    else:
        shown, remedy = parameter.opts[0], f"{parameter.get_help_record(context)[0]}: {parameter.help}"
    if name:  # it lacks a value, or has one and takes none
        message = error.message.replace(f"'{name}'", name)
    elif type(error).__name__ == "MissingParameter":
        message = f"Missing {parameter.param_type_name}: {shown}"
    else:
        said = error.message
        if type(error.__cause__).__name__ == "ValidationError":  # pydantic's words are not for users
            from bundle.config.faults import value_fault  # imported late: `bundle --help` does not need it

            said = value_fault(error.__cause__)
        if " is not one of " in said:
            written, *choices = _IN_QUOTES.findall(said)
            remedy = did_you_mean(written, choices, remedy)
        message = f"Invalid value for {shown}: {said}"
    return UsageError(f"{message.rstrip('.')}.", remedy=remedy)
