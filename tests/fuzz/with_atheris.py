"""Feeds one of `targets` with what atheris, which watches which lines are reached, makes up.

    make fuzz FUZZ=archive FUZZ_SECONDS=300

What it finds is written to ``build/fuzz``; made small, it belongs into ``found/``.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # only whoever fuzzes installs it

with atheris.instrument_imports(include=["bundle", "zipfile", "tomllib"]):
    from tests.fuzz.targets import outcome

from tests.fuzz.seeds import SEEDS


def main() -> None:
    """Fuzz until libFuzzer's own options, which follow the target's name, say that it is enough."""
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(SEEDS[name]):
            (Path(seeds) / str(number)).write_bytes(seed)
        sys.argv.append(seeds)
        atheris.Setup(sys.argv, lambda data: outcome(name, data, Path(directory)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
