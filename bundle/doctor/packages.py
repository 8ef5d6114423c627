"""Python, the packages of this program, and those of its engines."""

import platform
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from bundle.doctor import requirements
from bundle.doctor.findings import Finding, failing, ok, warning
from bundle.doctor.requirements import Environment
from bundle.serving.installation import Installation

_SHOWN: Final = ("openai", "huggingface-hub", "datasets")
_OLDEST_GLIBC: Final = (2, 28)
_INSTALL: Final = "`pip install '.[{extra}]'` in a checkout of this project"

TOKENIZER_TRAP: Final = (
    "under transformers 5 the tokenizer code that comes with InternLM2.5 drops spaces and newlines without an error; "
    "a run with such a checkpoint is stopped before the first question"
)


def look_at_system() -> Iterator[Finding]:
    """The system and Python, and whether there are wheels of lmdeploy for them."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        yield ok(f"{system}: checkpoints are served on the CPU (lmdeploy is for Linux)")
        return
    libc, version = platform.libc_ver()
    if libc == "glibc":
        system += f", glibc {version}"
    # PyPI: lmdeploy 0.12 to 0.18 has wheels for manylinux on x86_64 alone, since 0.15 for manylinux_2_28.
    if platform.machine() != "x86_64":
        yield warning(
            f"{system}: PyPI has no lmdeploy for {platform.machine()}",
            "Build lmdeploy from source, or serve on the CPU with `--engine transformers`.",
        )
    elif libc != "glibc":
        yield warning(
            f"{system}: PyPI has no lmdeploy for a system without glibc", "Use another system or container image."
        )
    elif tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST_GLIBC:
        yield warning(
            f"{system}: lmdeploy 0.15 and newer, and torch 2.6 and newer, want glibc 2.28",
            "Use a container image with a newer system.",
        )
    else:
        yield ok(system)


def look_at_own_packages(ours: Environment) -> Iterator[Finding]:
    """What this program cannot do without."""
    found = requirements.problems(requirements.required(), ours)
    missing = [one for one in found if "not installed" in one]
    remedy = "Install them with `pip install .` in a checkout of this project."
    if missing:
        yield failing("; ".join(found), remedy)
    elif found:
        yield warning("; ".join(found), remedy)
    else:
        yield ok(", ".join(f"{name} {ours.versions[name]}" for name in _SHOWN if name in ours.versions))


def look_at_lmdeploy(found: Installation | str, beside: Environment | None, *, wanted: bool) -> Iterator[Finding]:
    """lmdeploy, and what it wants beside it.

    Args:
        found: The lmdeploy there is, or why there is none.
        beside: What is installed beside it.
        wanted: Whether there is a GPU to serve on.
    """
    if isinstance(found, str) or beside is None:
        if wanted:
            remedy = f"Install it with {_INSTALL.format(extra='gpu')}, or serve with `--engine transformers`."
            yield failing(str(found), remedy)
        else:
            yield ok(f"{found} It is of use with an NVIDIA GPU only")
        return
    where = "" if found.interpreter == sys.executable else f" in {found.interpreter}"
    named = f"lmdeploy {found.version}{where}"
    for package in ("torch", "transformers"):
        if package in beside.versions:
            named += f", {package} {beside.versions[package]}"
    wrong = requirements.problems(requirements.asked_for(beside, "lmdeploy"), beside)
    ours = requirements.problems(requirements.required("gpu"), beside)
    trap = [one for one in ours if one.startswith("transformers ") and "not installed" not in one]
    wrong += [one for one in ours if one not in trap and one not in wrong]
    if wrong:
        yield warning(f"{named}: {_few(wrong)}", f"Install what fits with {_INSTALL.format(extra='gpu')}.")
    elif not trap:
        yield ok(named)
    if trap and _major(beside.versions.get("transformers", "")) >= 5:
        yield warning(
            f"{named}: {TOKENIZER_TRAP}",
            f"`{found.interpreter} -m pip install 'transformers>=4.56,<5'`, unless no checkpoint brings such code.",
        )
    elif trap:
        yield warning(f"{named}: {_few(trap)}", f"Install what fits with {_INSTALL.format(extra='gpu')}.")


def look_at_cpu_engine(ours: Environment, *, wanted: bool) -> Iterator[Finding]:
    """transformers and what its server wants, in our own environment.

    Args:
        ours: What is installed here.
        wanted: Whether it is what would serve.
    """
    wrong = requirements.problems(requirements.required("cpu"), ours)
    if not wrong:
        yield ok(f"transformers {ours.versions['transformers']}, torch {ours.versions['torch']}")
    elif not wanted:
        yield ok("not complete, and not needed where there is a GPU" if "transformers" in ours.versions else _ABSENT)
    else:
        yield failing(
            f"checkpoints would be served on the CPU, but {_few(wrong)}",
            f"Install the CPU engine with {_INSTALL.format(extra='cpu')}. eval-remote does without it.",
        )


_ABSENT: Final = "not installed, and not needed where there is a GPU"


def _major(version: str) -> int:
    number = re.match(r"\d+", version)
    return int(number[0]) if number else 0


def _few(problems: Sequence[str], shown: int = 4) -> str:
    rest = len(problems) - shown
    return "; ".join(problems[:shown]) + (f"; and {rest} more" if rest > 0 else "")
