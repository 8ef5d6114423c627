"""Pack the wheels with which ``make gpu-check`` runs on a machine without network that has PyTorch already.

    python -m benchmarks.gpu.pack WHEELS --python 3.12.3 --present FILE

FILE is what ``python3 -m pip list --format=freeze`` prints on that machine. What is there is left alone as far as its
version will do; everything else that lmdeploy's PyTorch engine and this program need is downloaded for it (x86-64
Linux): about 35 MB. lmdeploy's own wheel is repacked without TurboMind's library. It fails where something is missing.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]

_LMDEPLOY = "lmdeploy==0.18.*"
_TOO_LARGE = re.compile(r"lmdeploy/turbomind/(?:.*\.so$|lib(?:64)?/)")
_GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)  # pip takes a platform's tag literally, so all that may occur are named
# lmdeploy asks for these and does without them: InternLM2, its PyTorch engine, one GPU. torch and what belongs to it
# is of the machine, whatever its version.
_NOT_NEEDED = {
    "ray",
    "rdkit",
    "flash-linear-attention",
    "tilelang",
    "peft",
    "datasets",
    "torch",
    "torchvision",
    "triton",
}
_NOT_NEEDED_PREFIX = "nvidia-"
_ROUNDS = 12


@dataclass
class Wanted:
    """All that is asked of one package."""

    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    extras: set[str] = field(default_factory=set)
    by: set[str] = field(default_factory=set)


def main() -> None:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description="Pack wheels for a machine without network.")
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--python", default="3.12.3", help="the version there")
    parser.add_argument("--present", type=Path, required=True, help="what `pip list --format=freeze` prints there")
    arguments = parser.parse_args()
    arguments.wheels.mkdir(parents=True, exist_ok=True)
    present = read_present(arguments.present.read_text(encoding="utf-8"))
    for _ in range(_ROUNDS):
        packed = {canonicalize_name(name): (version, path) for name, version, path in _packed(arguments.wheels)}
        missing = still_missing(_wanted(packed, arguments.python), present, {n: v for n, (v, _) in packed.items()})
        if not missing:
            break
        for name in missing.keys() & packed.keys():
            packed[name][1].unlink()
        _download([f"{name}{one.specifier}" for name, one in missing.items()], arguments.python, arguments.wheels)
        for path in arguments.wheels.glob("lmdeploy-*.whl"):
            without_turbomind(path)
    else:
        sys.exit(
            "pack: requirements contradict each other: " + "; ".join(f"{n}{w.specifier}" for n, w in missing.items())
        )
    files = list(arguments.wheels.glob("*.whl"))
    print(f"{len(files)} wheels, {sum(path.stat().st_size for path in files) / 2**20:.0f} MiB")


def read_present(text: str) -> dict[NormalizedName, str]:
    """Names and versions of what a machine has."""
    lines = (line.strip().partition("==") for line in text.splitlines())
    return {canonicalize_name(name): version for name, _, version in lines if name}


def still_missing(
    wanted: dict[NormalizedName, Wanted], present: dict[NormalizedName, str], packed: dict[NormalizedName, str]
) -> dict[NormalizedName, Wanted]:
    """What is wanted and neither packed nor present, in a version that will do."""

    def there(name: NormalizedName, one: Wanted) -> bool:
        # What is packed comes first on the path, and hides what is present.
        version = packed.get(name) or present.get(name)
        return version is not None and one.specifier.contains(version, prereleases=True)

    return {name: one for name, one in wanted.items() if not there(name, one)}


def without_turbomind(wheel: Path) -> None:
    """Leave TurboMind's library, a hundred megabytes, out of a wheel of lmdeploy's."""
    partial = wheel.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith(".dist-info/RECORD"):
                kept = (line for line in content.decode().splitlines(True) if not _TOO_LARGE.match(line.split(",")[0]))
                content = "".join(kept).encode()
            if not _TOO_LARGE.match(member.filename):
                new.writestr(member, content)
    partial.replace(wheel)


def _wanted(packed: dict[NormalizedName, tuple[str, Path]], python: str) -> dict[NormalizedName, Wanted]:
    """What this program and the packed wheels ask for, and these in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = [line for line in project["optional-dependencies"]["gpu"] if not line.startswith("lmdeploy")]
    wanted: dict[NormalizedName, Wanted] = {}
    queue = [(Requirement(line), "bundle", "") for line in (*project["dependencies"], *extra, _LMDEPLOY)]
    seen: set[tuple[NormalizedName, str]] = set()
    while queue:
        requirement, by, of_extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in _NOT_NEEDED or name.startswith(_NOT_NEEDED_PREFIX):
            continue
        if requirement.marker is not None and not requirement.marker.evaluate(_target(python, of_extra)):
            continue
        one = wanted.setdefault(name, Wanted())
        one.specifier &= requirement.specifier
        one.by.add(by)
        if name in packed:
            for extra_name in ("", *requirement.extras):
                if (name, extra_name) not in seen:
                    seen.add((name, extra_name))
                    queue += [(needed, name, extra_name) for needed in _requires(packed[name][1])]
    return wanted


def _target(python: str, extra: str) -> dict[str, str]:
    return {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": extra,
    }


def _packed(wheels: Path) -> Iterator[tuple[str, str, Path]]:
    for path in wheels.glob("*.whl"):
        name, version, *_ = path.name.split("-")
        yield name, version, path


def _requires(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        path = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head = archive.read(path).decode(errors="replace").partition("\n\n")[0]
    return [Requirement(line) for line in re.findall(r"^Requires-Dist: *(.*)$", head, re.MULTILINE)]


def _download(requirements: list[str], python: str, wheels: Path) -> None:
    platforms = [f"manylinux_2_{number}_x86_64" for number in _GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", f"--dest={wheels}"]
    command += [f"--platform={one}" for one in platforms]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        if (result := subprocess.run([*command, "--requirement", file.name], check=False)).returncode != 0:
            sys.exit(result.returncode)


if __name__ == "__main__":
    main()
