"""The arguments of a server's command line, read as argparse does: also a long option's beginning names it."""

import itertools
import re
from collections.abc import Iterable

from bundle.errors import UsageError


class Arguments(tuple[str, ...]):
    """An argument list, in the order in which its members count."""

    __slots__ = ()

    def value(self, *names: str) -> str | None:
        """The value of an option with these names; the last one counts. None if it is not given."""
        value = None
        for argument, following in itertools.pairwise([*self, ""]):
            given, equals, rest = argument.partition("=")
            if any(_is(given, name) for name in names):
                value = rest if equals else following
        return value

    def number(self, *names: str) -> int | None:
        """The same of an option that takes a number; None also where it is given none."""
        value = self.value(*names)
        return int(value) if value and value.isdigit() else None

    def has(self, option: str) -> bool:
        """Whether an option is given, with or without a value."""
        return any(_is(argument.partition("=")[0], option) for argument in self)

    def refuse(self, options: Iterable[str], server: str) -> None:
        """Raise UsageError if one of the options is given that this program sets itself."""
        given = [argument.partition("=")[0] for argument in self]
        if taken := sorted({one for one in given if any(_is(one, name) for name in options)}):
            raise UsageError(
                f"{', '.join(taken)}: these {server} options are set by bundle.",
                remedy="Leave them out; address and adapter are set with --host and --adapter.",
            )

    def with_hyphens(self) -> "Arguments":
        """The same with the hyphens that vLLM takes underscores for."""
        return Arguments(re.sub("^--[^=]*", lambda name: name[0].replace("_", "-"), argument) for argument in self)


def _is(given: str, option: str) -> bool:
    return given == option or (len(given) > 2 and given.startswith("--") and option.startswith(given))
