"""All checks of ``bundle doctor``, in the order they are reported."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.doctor.checks import Check
from bundle.doctor.facts import SLOW, Facts
from bundle.doctor.findings import Finding, failing
from bundle.doctor.probes import ProbeError

# Ending processes takes seconds, and removing gigabytes more: neither is to be given up halfway.
_CLEANING_S = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked at besides the machine.

    Attributes:
        data: As in ``--data``; None for what a run takes without.
        model_dir: A checkpoint; None for none.
        out: Where run directories are made.
        clean: Whether what earlier runs have left is removed.
        limit_s: Most seconds a check may take; slow ones may take three times as long.
    """

    data: str | None = None
    model_dir: Path | None = None
    out: Path = Path("outputs")
    clean: bool = False
    limit_s: float = 10.0


def checks(wanted: Wanted) -> list[Check]:
    """Everything there is to look at."""
    these = _Checks(wanted)
    python = "the disk that Python is on"
    cleaning = max(SLOW, _CLEANING_S / wanted.limit_s) if wanted.clean else SLOW
    checkpoint = [Check("checkpoint", these.checkpoint, "the checkpoint's disk", SLOW)] if wanted.model_dir else []
    return [
        Check("system", these.system, "the system"),
        Check("packages", these.packages, python),
        Check("gpu", these.gpus, "nvidia-smi or torch", SLOW),
        Check("gpu memory", these.gpu_memory, "nvidia-smi"),
        Check("engine", these.engine, "nvidia-smi"),
        Check("lmdeploy", these.lmdeploy, "lmdeploy's Python"),
        Check("torch", these.torch, "torch", SLOW),
        Check("cpu engine", these.cpu_engine, python),
        *checkpoint,
        Check("data", these.data, "the source of the questions"),
        Check("disk", these.output, f"the disk of {wanted.out}"),
        Check("disk", these.caches, "the disk of the caches or of the temporary files"),
        Check("network", these.network, "the network"),
        Check("leftovers", these.left_processes, "the list of processes", cleaning),
        Check("leftovers", these.left_files, "a disk", cleaning),
        Check("leftovers", these.rewritten, "the disk of the cache", cleaning),
    ]


class _Checks:
    """The checks themselves. Each imports what it needs; see ``facts``."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._facts = Facts(wanted.limit_s)

    def system(self) -> Iterator[Finding]:
        from bundle.doctor.packages import look_at_system

        return look_at_system()

    def packages(self) -> Iterator[Finding]:
        from bundle.doctor.packages import look_at_own_packages

        return look_at_own_packages(self._facts.ours())

    def gpus(self) -> Iterator[Finding]:
        from bundle.doctor.gpu import look_at_gpus

        facts = self._facts
        nvidia = facts.nvidia()
        lmdeploys = None
        if nvidia.gpus:
            try:
                lmdeploys = facts.lmdeploys()
            except ProbeError:
                lmdeploys = None  # the check of lmdeploy says so

        def torch_sees_them() -> bool:
            try:
                seen = facts.torch()
            except ProbeError:
                return False
            return seen is not None and seen["devices"] > 0

        cuda = lmdeploys.cuda if lmdeploys is not None else None
        version = lmdeploys.versions["lmdeploy"] if lmdeploys is not None else None
        return look_at_gpus(nvidia, cuda, version, torch_sees_them)

    def gpu_memory(self) -> Iterator[Finding]:
        usable = self._facts.usable_gpus()
        if not usable:
            return
        from bundle.doctor.gpu_memory import look_at_memory
        from bundle.doctor.processes import NotKnownError
        from bundle.serving.gpus import list_processes as ask_for_processes

        try:
            marked = self._facts.marked()
        except NotKnownError:
            marked = []
        ours = {one.pid for one in marked if not one.orphaned}
        orphans = {one.pid for one in marked if one.orphaned}
        yield from look_at_memory(usable, ask_for_processes(0.9 * self._wanted.limit_s), ours, orphans)

    def engine(self) -> Iterator[Finding]:
        from bundle.doctor.engine import look_at_choice

        return look_at_choice(self._facts.nvidia())

    def lmdeploy(self) -> Iterator[Finding]:
        from bundle.doctor.packages import look_at_lmdeploy

        installed = self._facts.lmdeploy()
        try:
            beside = self._facts.lmdeploys()
        except ProbeError as error:
            yield failing(f"lmdeploy's Python {error}", "Mend its environment, or make a new one.")
            return
        yield from look_at_lmdeploy(installed, beside, wanted=bool(self._facts.usable_gpus()))

    def torch(self) -> Iterator[Finding]:
        if not self._facts.usable_gpus():
            return
        from bundle.doctor.engine import look_at_torch

        try:
            seen = self._facts.torch()
        except ProbeError as error:
            yield failing(
                f"the torch beside lmdeploy {error}",
                "Mend lmdeploy's environment; where its disk is only slow, give it longer with --time-limit SECONDS.",
            )
            return
        if seen is not None:
            yield from look_at_torch(seen, self._facts.nvidia())

    def cpu_engine(self) -> Iterator[Finding]:
        from bundle.doctor.packages import look_at_cpu_engine

        return look_at_cpu_engine(self._facts.ours(), wanted=not self._facts.usable_gpus())

    def checkpoint(self) -> Iterator[Finding]:
        from bundle.doctor.checkpoint import look_at_checkpoint

        assert self._wanted.model_dir is not None
        limit_s = 0.9 * SLOW * self._wanted.limit_s
        return look_at_checkpoint(self._wanted.model_dir, self._facts.usable_gpus(), self._facts.lmdeploy(), limit_s)

    def data(self) -> Iterator[Finding]:
        from bundle.doctor.data import look_at_data

        # Two servers may have to be asked one after the other.
        return look_at_data(self._wanted.data, 0.45 * self._wanted.limit_s)

    def output(self) -> Iterator[Finding]:
        from bundle.doctor.storage import look_at_output

        return look_at_output(self._wanted.out)

    def caches(self) -> Iterator[Finding]:
        from bundle.doctor.storage import look_at_caches
        from bundle.serving.transformers_engine import cache_directory
        from bundle.tasks.sources.hub import hub_cache

        return look_at_caches(hub_cache(), cache_directory())

    def network(self) -> Iterator[Finding]:
        from bundle.doctor.network import look_at_descriptors, look_at_loopback, look_at_proxies

        yield from look_at_loopback()
        yield from look_at_proxies()
        yield from look_at_descriptors()

    def left_processes(self) -> Iterator[Finding]:
        from bundle.doctor.leftovers import look_at_processes

        return look_at_processes(self._facts.marked, clean=self._wanted.clean)

    def left_files(self) -> Iterator[Finding]:
        from bundle.doctor.leftovers import look_at_files
        from bundle.serving.transformers_engine import HUB_VIEWS, cache_directory
        from bundle.tasks.sources.modelscope import cache as modelscope_cache

        return look_at_files(
            self._wanted.out, modelscope_cache(), cache_directory() / HUB_VIEWS, clean=self._wanted.clean
        )

    def rewritten(self) -> Iterator[Finding]:
        from bundle.doctor.leftovers import look_at_rewritten
        from bundle.serving.transformers_engine import REWRITTEN, cache_directory

        return look_at_rewritten(cache_directory() / REWRITTEN, clean=self._wanted.clean)
