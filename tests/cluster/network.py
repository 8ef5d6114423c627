"""Machines with a network of their own each: network namespaces on one bridge, whose cables can be cut."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.cluster.box import Nodes
from tests.patience import wait_until
from tests.program import carrying

_SWITCH = "switch"
_RAYS = ("gcs_server", "raylet", "ray::", "dashboard", "log_monitor", "monitor.py")


def can_be_cut() -> bool:
    """Whether there may be network namespaces here."""
    probe = ["unshare", "--net", "--uts", "ip", "link", "set", "lo", "up"]
    return shutil.which("ip") is not None and not subprocess.run(probe, capture_output=True, check=False).returncode


class Cabled(Nodes):
    """A cluster whose machines reach each other only by cables. The first one is its head and has no GPU.

    Attributes:
        names: Those of the machines.
    """

    names = ("head", "left", "right")

    def _begin(self) -> None:
        pid = os.getpid()
        self._prefix = f"bundle-{pid}-"
        self._net = f"10.{pid // 256 % 256}.{pid % 256}"  # Ray refuses an address that another cluster here has
        self._harmed: set[str] = set()
        self._ip("netns", "add", self._prefix + _SWITCH)
        self._there(_SWITCH, "link", "add", "bridge0", "type", "bridge")
        self._there(_SWITCH, "link", "set", "bridge0", "up")
        for number, name in enumerate(self.names, start=1):
            self._ip("netns", "add", self._prefix + name)
            self._there(_SWITCH, *f"link add {name} type veth peer name cable netns {self._prefix}{name}".split())
            self._there(_SWITCH, "link", "set", "dev", name, "master", "bridge0", "up")
            self._there(name, "addr", "add", f"{self._net}.{number}/24", "dev", "cable")
            for link in ("lo", "cable"):
                self._there(name, "link", "set", link, "up")
        self.address = f"{self._net}.1:6379"
        for name in self.names:
            self.boot(name)

    def boot(self, name: str) -> None:
        """Start Ray on a machine."""
        number = 1 + self.names.index(name)
        head = ["--head", "--port=6379", "--num-gpus=0", "--include-dashboard=false"]
        role = head if number == 1 else [f"--address={self.address}", "--num-gpus=1"]
        fixed = [f"--node-ip-address={self._net}.{number}", "--num-cpus=1", "--object-store-memory=100000000"]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
        locks = self.directory / f"locks-{name}"
        locks.mkdir(exist_ok=True)
        environment = self._environment | {"BUNDLE_GPU_LOCKS": str(locks)}
        with (self.directory / f"{name}.log").open("ab") as log:
            subprocess.run([*self.on(name), *ray, *role, *fixed], env=environment, stdout=log, stderr=log, check=True)

    def on(self, name: str) -> Sequence[str]:
        """What a command begins with that runs on a machine, which calls itself so."""
        inside = ["ip", "netns", "exec", self._prefix + name, "unshare", "--uts"]
        return [*inside, "sh", "-c", 'hostname "$0"; exec "$@"', name]

    def cut(self, name: str) -> None:
        """Pull the cable of a machine."""
        self._harmed.add(name)
        self._there(_SWITCH, "link", "set", "dev", name, "down")

    def restore(self, name: str) -> None:
        """Plug it in again."""
        self._there(_SWITCH, "link", "set", "dev", name, "up")

    def machine_of(self, pid: int) -> str:
        """Where a process runs."""
        where = Path(f"/proc/{pid}/ns/net").stat().st_ino
        return next(name for name in self.names if Path(f"/run/netns/{self._prefix}{name}").stat().st_ino == where)

    def ours_on(self, name: str) -> list[psutil.Process]:
        """What runs on a machine for an evaluation and is not Ray's."""
        found = []
        for process in self.processes():
            with contextlib.suppress(OSError, psutil.Error):
                if "ray::" not in process.name() and self.machine_of(process.pid) == name:
                    found.append(process)
        return found

    def stop_ray(self, name: str, what: str = "") -> None:
        """Kill Ray's processes on a machine, as ``ray stop --force`` does, or those that are a ``what``."""
        self._harmed.add(name)
        for process in self._rays_on(name, what):
            with contextlib.suppress(psutil.Error):
                process.kill()
        wait_until(lambda: not self._rays_on(name, what))

    def has_ray(self, name: str) -> bool:
        """Whether Ray runs on a machine."""
        return bool(self._rays_on(name, "raylet/raylet"))

    def _rays_on(self, name: str, what: str) -> list[psutil.Process]:
        found = []
        for process in carrying(str(self.directory)):
            with contextlib.suppress(OSError, psutil.Error):
                command = " ".join(process.cmdline())
                if self.machine_of(process.pid) == name and what in command and any(one in command for one in _RAYS):
                    found.append(process)
        return found

    def hide(self, name: str, directory: Path, behind: Path) -> None:
        """Have a directory hold on a machine what another one holds; `heal` undoes it."""
        self._harmed.add(name)
        there = ["nsenter", "--mount", f"--target={self._rays_on(name, 'raylet')[0].pid}"]
        subprocess.run([*there, "mount", "--bind", behind, directory], check=True)

    def heal(self) -> None:
        """Make all as it was: plug cables in, and start Ray again on machines to which anything was done."""
        harmed = self.names if "head" in self._harmed else sorted(self._harmed)
        for name in harmed:
            self.restore(name)
            self.stop_ray(name)
        for name in harmed:
            self.boot(name)
        self._harmed.clear()

    def shut_down(self) -> None:
        for process in carrying(str(self.directory)):
            with contextlib.suppress(psutil.Error):
                process.kill()
        wait_until(lambda: not carrying(str(self.directory)))
        for name in (_SWITCH, *self.names):
            self._ip("netns", "del", self._prefix + name)

    def _there(self, name: str, *what: str) -> None:
        self._ip("-n", self._prefix + name, *what)

    def _ip(self, *what: str) -> None:
        subprocess.run(["ip", *what], check=True)
