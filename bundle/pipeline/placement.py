"""On which machines of a cluster a run has its servers: where there is room, and nothing has failed."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import Final

from bundle.errors import BundleError, EngineMissingError, ServerError
from bundle.fleet import UNTIL_MISSED_S, Host, Machine, Program
from bundle.pipeline.options import ALL
from bundle.reports.screen.console import Screen
from bundle.system.text import plural

_WAIT_S: Final = 60.0
"""How long the first server waits for a free GPU unless ``--wait`` says it."""
_SAY_AFTER_S: Final = 10.0


class Placement:
    """Finds places for the first server, which asks what no other may, and for further ones beside it.

    Args:
        gpus: How many GPUs a server takes; one on the CPU takes all of a machine.
        servers: How many servers the user wants, or `ALL`.
        wait_s: As in ``--wait``.
    """

    def __init__(self, host: Host, gpus: int, servers: int, wait_s: float | None) -> None:
        self._host = host
        self._gpus = gpus
        self._servers = servers
        self._wait_s = wait_s
        self._serving: list[Program] = []
        self._first_placed = asyncio.Event()
        self._unfit: set[str] = set()
        self._passed_over: dict[str, float] = {}

    @property
    def what(self) -> str:
        """What a server needs."""
        return plural(self._gpus, "GPU") if self._gpus else "a core"

    @property
    def most(self) -> int:
        """How many servers the cluster has room for."""
        if self._gpus:
            return sum(machine.gpus // self._gpus for machine in self._machines)
        return len(self._machines) if self._servers == ALL else max(self._servers, 1)

    @property
    def others(self) -> set[str]:
        """The machines that are left."""
        return {machine.node for machine in self._machines} - self._avoided

    @property
    def _machines(self) -> list[Machine]:
        return [one for one in self._host.machines if (one.gpus // self._gpus if self._gpus else one.cpus)]

    @property
    def _avoided(self) -> set[str]:
        """Machines that cannot serve the model, and those that failed to or were lost a moment ago.

        Until the cluster misses a machine that is lost, it takes it for a free one; one that it does not miss is back.
        """
        now = asyncio.get_running_loop().time()
        return self._unfit | {node for node, until in self._passed_over.items() if now < until}

    def pass_over(self, node: str) -> None:
        """Do without a machine for a while."""
        self._passed_over[node] = asyncio.get_running_loop().time() + UNTIL_MISSED_S

    def judge(self, program: Program, error: BundleError) -> None:
        """Use a machine no more on which a worker failed; or not for a while, if what is in the way may pass."""
        is_final = not isinstance(error, ServerError) or isinstance(error, EngineMissingError)
        if is_final and not program.link.lost.done():
            self._unfit.add(program.node)
        else:
            self.pass_over(program.node)

    @contextlib.contextmanager
    def serving(self, program: Program) -> Iterator[None]:
        """Know that a worker has a server, for as long as the block lasts."""
        self._serving.append(program)
        try:
            yield
        finally:
            if program in self._serving:
                self._serving.remove(program)

    async def place(self, screen: Screen, *, leads: bool) -> Program:
        """Start a worker where there is room.

        One that ``leads`` waits for so long only, and takes a further server's place if it must; a further one waits
        while there is any other server. Raises ServerError if there is no room.
        """
        if leads:
            self._first_placed.clear()
        try:
            return await self._place(screen, leads=leads)
        finally:
            if leads:
                self._first_placed.set()

    async def _place(self, screen: Screen, *, leads: bool) -> Program:
        wait_s = _WAIT_S if self._wait_s is None else self._wait_s if leads else max(self._wait_s, _WAIT_S)
        said = made_room = False
        while True:
            if not leads:
                await self._first_placed.wait()  # the cluster does not ask who was first
            avoid = self._where_not(leads=leads)
            cpus = 0 if self._gpus else 1
            starting = asyncio.ensure_future(
                self._host.start("-m", "bundle.worker", gpus=self._gpus, cpus=cpus, avoid=avoid, wait_s=wait_s)
            )
            try:
                while not (await asyncio.wait({starting}, timeout=_SAY_AFTER_S))[0]:
                    if not said:
                        said = True
                        at_most = f", at most {wait_s:.0f} s" if leads else ""
                        screen.say(f"waiting until {self.what} of the cluster is free{at_most}")
                    made_room = made_room or (leads and self._make_room(avoid))
                program = await starting
            except TimeoutError:
                if not leads and self._serving:
                    continue
                raise ServerError(
                    f"{self.what[0].upper()}{self.what[1:]} of the cluster did not become free in time.",
                    remedy="Wait longer with --wait TIME; `ray status` shows what is in use.",
                ) from None
            finally:
                starting.cancel()
            if leads or self._first_placed.is_set():
                return program
            await program.end()  # the first server waits for a place

    def _where_not(self, *, leads: bool) -> set[str]:
        """The machines to avoid: if need be, the first server tries one again that was passed over."""
        nodes, avoided = {machine.node for machine in self._machines}, self._avoided
        if nodes <= self._unfit:
            raise ServerError(
                f"No machine of the cluster with {self.what} can be used any more.",
                remedy="`bundle doctor --cluster` compares the machines.",
            )
        return self._unfit if leads and nodes <= avoided else avoided

    def _make_room(self, avoid: Collection[str]) -> bool:
        """Have a further server give its place to the first one; whether there was one that could."""
        one = next((one for one in reversed(self._serving) if one.node not in avoid), None)
        if one is not None:
            self._serving.remove(one)
            one.link.lose(f"{one.machine}: its place is needed by the first server.")
        return one is not None
