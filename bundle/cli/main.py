"""The command line: it parses, calls, and turns an error into an exit code."""

import contextlib
import errno
import gc
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from bundle.cli._unexpected import hide_secrets, open_closed_streams, write_details
from bundle.cli._wrong_usage import TAKE_ENGINE_ARGUMENTS, in_our_words
from bundle.cli.board import board
from bundle.cli.catalog import models, tasks
from bundle.cli.compare import compare
from bundle.cli.doctor import doctor
from bundle.cli.evaluate import eval_local, eval_remote
from bundle.cli.make_checkpoint import make_checkpoint
from bundle.cli.options import HELP_SETTINGS, GroupedHelp
from bundle.cli.report import report
from bundle.cli.rescore import rescore
from bundle.cli.resume import resume
from bundle.cli.runs import runs
from bundle.cli.watch import watch
from bundle.errors import BundleError, ExitCode, UnexpectedError, UsageError
from bundle.system.text import nearest, one_line, printable
from bundle.version import __version__

_NAMES = ("bundle", "evalbundle")
"""The second is for where the first is another program, as Ruby's."""


class _Commands(TyperGroup):
    """Answers ``bundle evaluate ./ckpt`` with the command that takes a checkpoint."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        for one in args:  # "" would be this directory: `bundle runs --rm "$RUN"` without RUN
            option = one if one.startswith("--") and one.endswith("=") else ""
            if option.count("=") == 1 or not one.strip():
                what = f"The value of {printable(option[:-1])}" if option else "An argument"
                raise UsageError(f"{what} is empty.", remedy="If it is a variable's, set that variable.")
        with in_our_words(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in self.commands:
            return super().resolve_command(ctx, args)
        near = nearest(name, self.commands)
        if name.startswith("eval"):
            near = ["eval-remote" if name.startswith(("eval-r", "eval_r")) or "--base-url" in args else "eval-local"]
        remedy = f"Did you mean `bundle {near[0]}`?" if near else "`bundle --help` lists the commands."
        raise UsageError(f"No such command: {printable(name)}.", remedy=remedy)


app = typer.Typer(
    name="bundle",
    cls=_Commands,
    help="Serve a checkpoint, run C-Eval or CMMLU against it, get a number you can trust, leave nothing behind.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help takes half the time, and reads well in a log
    pretty_exceptions_enable=False,
    context_settings=HELP_SETTINGS,
)


def main() -> None:
    """Run the command line. What follows ``--`` is the engine's, and never an argument of ours."""
    # pydantic would look for plugins among all that is installed, which takes a twentieth of the start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    # Modules, questions and pages stay; looking for garbage as often as Python does takes a tenth of a run's CPU time.
    gc.set_threshold(50_000, 20, 100)
    open_closed_streams()
    arguments = sys.argv[1:]
    passed_on: list[str] | None = None
    if "--" in arguments:
        split = arguments.index("--")
        arguments, passed_on = arguments[:split], arguments[split + 1 :]
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal of another encoding shows a character it lacks as its number, as standard error does by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, obj=passed_on, prog_name=_called())
    except BundleError as error:
        from bundle.reports.screen.console import Screen  # imported late: slow

        Screen().error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as end:
        if isinstance(
            end.__context__, BrokenPipeError
        ):  # rich and typer end with 1, which says that a gate was not met
            sys.exit(128 + signal.SIGPIPE)
        raise
    except Exception as error:
        _end_unexpectedly(error)


def _called() -> str:
    """The name of this program as it was typed, for its help and the shell's completion."""
    name = Path(sys.argv[0]).name
    return name if name in _NAMES else _NAMES[0]


def _end_unexpectedly(error: Exception) -> NoReturn:
    """Say that this program is at fault, in a line, and leave the rest in a file."""
    directory = error.directory if isinstance(error, UnexpectedError) else None
    cause = error.__cause__ if isinstance(error, UnexpectedError) and error.__cause__ is not None else error
    if "can't start new thread" in str(cause):
        print("error: no further thread can be started\nhint: See `ulimit -u` and `ulimit -v`.", file=sys.stderr)
        sys.exit(ExitCode.USAGE)
    if isinstance(cause, MemoryError) or (isinstance(cause, ImportError) and "failed to map segment" in str(cause)):
        print("error: not enough memory\nhint: See `free -g` and `ulimit -v`.", file=sys.stderr, flush=True)
        sys.exit(ExitCode.USAGE)
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        print(
            f"error: {cause.filename or 'the output'} cannot be written: {cause.strerror}\nhint: See `df -h`.",
            file=sys.stderr,
        )
        sys.exit(ExitCode.USAGE)
    file = write_details(cause, directory)
    what = one_line(hide_secrets(f"{type(cause).__name__}: {cause}".removesuffix(": ")))
    where = "" if file is None else f"; details: {file}"
    with contextlib.suppress(OSError, ValueError):
        print(f"error: unexpected error in bundle {__version__} ({what}){where}", file=sys.stderr, flush=True)
    sys.exit(ExitCode.UNEXPECTED)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(f"bundle {__version__}")
        raise typer.Exit
    if context.obj is not None and context.invoked_subcommand not in TAKE_ENGINE_ARGUMENTS:
        raise UsageError("Only eval-local and watch take arguments after --.", remedy="Leave them out.")


_COMMANDS = (
    ("eval-local", eval_local, "eval-local ./internlm2_5-1_8b-chat --data sample"),
    ("eval-remote", eval_remote, "eval-remote puyu-api --task demo_cmmlu_chat_gen"),
    ("watch", watch, "watch ./sft-output --until checkpoint-3000"),
    ("resume", resume, "resume latest"),
    ("report", report, "report latest --lang zh"),
    ("rescore", rescore, "rescore latest --rule first_option"),
    ("compare", compare, "compare sft-1000 sft-2000"),
    ("board", board, "board --base sft-1000"),
    ("runs", runs, "runs --json"),
    ("tasks", tasks, "tasks ceval_gen"),
    ("models", models, "models"),
    ("doctor", doctor, "doctor --model-dir ./internlm2_5-1_8b-chat"),
    ("make-checkpoint", make_checkpoint, "make-checkpoint ./tiny --like tiny --seed 1"),
)
for _name, _function, _example in _COMMANDS:
    app.command(_name, cls=GroupedHelp, context_settings=HELP_SETTINGS, epilog=f"Example: bundle {_example}")(_function)
