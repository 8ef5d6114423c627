"""The command line: it parses, calls, and turns an error into an exit code."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from bundle import __version__
from bundle.cli.compare import compare
from bundle.cli.doctor import doctor
from bundle.cli.eval_local import eval_local
from bundle.cli.eval_remote import eval_remote
from bundle.cli.lists import models, tasks
from bundle.cli.make_checkpoint import make_checkpoint
from bundle.cli.options import HELP_SETTINGS, GroupedHelp
from bundle.cli.report import report
from bundle.cli.runs import runs
from bundle.errors import BundleError, ExitCode, UsageError

app = typer.Typer(
    name="bundle",
    help="Serve a checkpoint, run C-Eval against it, get a number you can trust, leave nothing behind.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help is there in half the time, and reads well in a log
    pretty_exceptions_enable=False,
    context_settings=HELP_SETTINGS,
)


def main() -> None:
    """Run the command line. What follows ``--`` is the engine's and is never taken for an argument of ours."""
    arguments = sys.argv[1:]
    passed_on: list[str] | None = None
    if "--" in arguments:
        split = arguments.index("--")
        arguments, passed_on = arguments[:split], arguments[split + 1 :]
    if isinstance(sys.stdout, TextIOWrapper):
        # What a terminal of another encoding has no character for is shown as its number; standard error does so.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, obj=passed_on, prog_name="bundle")
    except BundleError as error:
        from bundle.reports.screen.console import Screen

        Screen().error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"bundle {__version__}")
        raise typer.Exit
    if context.obj is not None and context.invoked_subcommand != "eval-local":
        raise UsageError("Only eval-local takes arguments after --.", remedy="Leave them out.")


_COMMANDS = (
    ("eval-local", eval_local, "eval-local ./internlm2_5-1_8b-chat --data ./ceval-exam.zip -- --backend pytorch"),
    ("eval-remote", eval_remote, "eval-remote puyu-api --task demo_cmmlu_chat_gen"),
    ("report", report, "report 20261124-002609-ceval_gen-internlm2_5-1_8b-chat --lang zh"),
    ("compare", compare, "compare 20261123-180410 20261124-002609 --html comparison.html"),
    ("runs", runs, "runs --json"),
    ("tasks", tasks, "tasks ceval_gen"),
    ("models", models, "models"),
    ("doctor", doctor, "doctor --model-dir ./internlm2_5-1_8b-chat"),
    ("make-checkpoint", make_checkpoint, "make-checkpoint ./tiny --like tiny --seed 1"),
)
for _name, _function, _example in _COMMANDS:
    app.command(_name, cls=GroupedHelp, context_settings=HELP_SETTINGS, epilog=f"Example: bundle {_example}")(_function)
