"""Which versions this program wants, as its own package says, and whether they are there."""

import importlib.metadata
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_ASKED = ("lmdeploy", "transformers")


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed beside an interpreter.

    Attributes:
        python: Its version.
        versions: Normalised name -> version of everything installed.
        requires: What lmdeploy and transformers ask for there, by package.
        cuda: The CUDA that torch was built for, as in "12.8"; None where it is none or not known.
    """

    python: str
    versions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cuda: str | None = None

    @classmethod
    def from_probe(cls, answer: Mapping[str, Any]) -> "Environment":
        """From what ``environment_probe`` says."""
        return cls(answer["python"], answer["versions"], answer["requires"], answer["cuda"])


ASKED_OF_PROBE: Sequence[str] = _ASKED


def required(extra: str | None = None) -> list[Requirement]:
    """What this program requires on this system: always, or what its ``extra`` adds to that."""
    return list(_applicable(_declared(), extra))


def asked_for(environment: Environment, package: str, extra: str | None = None) -> list[Requirement]:
    """What an installed package requires on this system: always, or what its ``extra`` adds to that."""
    return list(_applicable(environment.requires.get(package, ()), extra))


def problem(requirement: Requirement, environment: Environment) -> str | None:
    """Why a requirement is not met, in a few words; None where it is."""
    name = canonicalize_name(requirement.name)
    version = environment.versions.get(name)
    wanted = f"{requirement.name}{_specifier(requirement)}"
    if version is None:
        return f"{wanted} is not installed"
    try:
        met = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return None  # A version of somebody's own: nothing can be said of it.
    return None if met else f"{requirement.name} {version} is installed, and {wanted} is wanted"


def problems(requirements: Iterable[Requirement], environment: Environment) -> list[str]:
    """Why requirements are not met, those with extras of their own included."""
    found = []
    for requirement in requirements:
        why = problem(requirement, environment)
        if why is not None:
            found.append(why)
            continue
        for extra in sorted(requirement.extras):
            inner = asked_for(environment, canonicalize_name(requirement.name), extra)
            found += problems(inner, environment)
    return list(dict.fromkeys(found))


def _specifier(requirement: Requirement) -> str:
    return ",".join(sorted(str(part) for part in requirement.specifier)[::-1])


def _applicable(lines: Iterable[str], extra: str | None) -> Iterator[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # of somebody else's package
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
        if project.get("name") == "bundle":
            extras = project.get("optional-dependencies", {})
            return [*project.get("dependencies", ()), *_with_extras(extras)]
    return importlib.metadata.requires("bundle") or []


def _with_extras(extras: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for extra, lines in extras.items():
        for line in lines:
            requirement, _, marker = line.partition(";")
            marker = f"({marker.strip()}) and " if marker.strip() else ""
            yield f"{requirement.strip()} ; {marker}extra == '{extra}'"
