"""A checkpoint, served on machines of a Ray cluster, each server beside a worker that asks it.

The questions, the run's directory and the scores stay here. What a server needs of this program on its machine, the
worker does there, and each server has a worker of its own.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints import Conversation, RenderedPrompt, TokenCounter
from bundle.config.model_files import ModelFile
from bundle.errors import BundleError, EngineMissingError, ServerError, UsageError
from bundle.fleet import UNTIL_MISSED_S, DistantClient, Host, Link, Machine, Program
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.local import Local
from bundle.pipeline.options import ALL
from bundle.pipeline.plan import Loaded, Plan
from bundle.pipeline.servers import PrefixedScreen
from bundle.pipeline.targets import Prepared, Server, Target, Timing
from bundle.pipeline.template_proof import TemplateProof
from bundle.reports.screen.console import Screen
from bundle.runs.record import EngineRecord, LocalModelRecord, Served, versions
from bundle.serving.gpu_choice import ENDING_S
from bundle.system.background import in_thread, until_done_or_trouble
from bundle.system.files import open_for_writing, user_path
from bundle.system.guarded import undisturbed
from bundle.system.text import plural

_WAIT_S: Final = 60.0
"""How long the first server waits for a free GPU unless ``--wait`` says it."""
_SAY_AFTER_S: Final = 10.0
_STOP_S: Final = 90.0
"""How long a worker may take to stop its server and see its memory free."""


@dataclass(slots=True)
class _Worker:
    """One that has opened the checkpoint.

    ``versions`` are of what it runs with; it has said what it ``found`` of checkpoint and engine, and ``prepared`` for
    its server.
    """

    program: Program
    link: Link
    versions: Mapping[str, str]
    found: Mapping[str, Any]
    prepared: Mapping[str, Any]


class Cluster(Target):
    """The target of ``bundle eval-local --cluster``: a checkpoint, as this machine sees it, and a cluster's address."""

    def __init__(self, local: Local, address: str) -> None:
        self.local = local
        self._address = address
        self._host: Host | None = None
        self._model: LocalModelRecord | None = None
        self._engine, self._gpus = "auto", 0
        self._first: _Worker | None = None
        self._serving: list[_Worker] = []
        self._first_placed = asyncio.Event()
        self._unfit: set[str] = set()
        self._passed_over: dict[str, float] = {}
        self._requests: Mapping[str, Any] | None = None

    async def open(self, screen: Screen) -> None:
        options = self.local.options
        if options.gpu is not None:
            raise UsageError("--gpu has no effect with --cluster.", remedy="Leave it out: Ray assigns GPUs.")
        await self.local.open(screen)
        self._model = await in_thread(self.local.record)
        host = self._host = await Host.join(self._address)
        gpus, cpus = (sum(getattr(machine, what) for machine in host.machines) for what in ("gpus", "cpus"))
        there = f"{plural(gpus, 'GPU')}, {plural(cpus, 'core')}"
        screen.say(f"Ray cluster {self._address}: {plural(len(host.machines), 'machine')}, {there}")
        self._engine, self._gpus = self.local.elsewhere(on_gpus=gpus > 0)
        if self._most() == 0:
            raise ServerError(
                f"No machine of the cluster has {plural(self._gpus, 'GPU') if self._gpus else 'a core'}.",
                remedy="`ray status` shows what it has.",
            )
        self._first = await self.worker(screen, leads=True)

    async def aclose(self) -> None:
        if self._host is not None:
            await self._host.close()

    @property
    def model_file(self) -> ModelFile:
        return self.local.model_file

    def token_counter(self) -> TokenCounter | None:
        return self.local.token_counter()

    def context_limits(self) -> Sequence[ContextLimit]:
        return [ContextLimit(tokens, source) for tokens, source in self.first.found["context"]]

    @property
    def first(self) -> _Worker:
        """The worker that all others must agree with."""
        assert self._first is not None
        return self._first

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "ClusterModel":
        first = self.first
        self.local.begin(plan, first.found["engine"], scores_texts=first.found["scores_texts"], screen=screen)
        self._requests = asdict(plan.requests)
        with timing.phase("start_s"):
            try:
                first.prepared = await first.link.call("prepare", self._requests)
            except ServerError as error:  # the cluster does not know who uses a GPU besides it
                self.judge(first.program, first.link, error)
                await first.program.end()
                if not self._others:
                    raise
                screen.say(f"not using {error}")
                self._first = await self.worker(screen, leads=True)
        wanted, most = self.local.options.servers, self._most()
        if wanted > most:
            screen.say(f"{most} of {wanted} servers: the cluster has room for no more")
        servers = most if wanted == ALL else min(wanted, most)
        return ClusterModel(self, screen, timing, helpers=servers - 1)

    def kill(self) -> None:
        if self._host is not None:
            self._host.kill()

    @property
    def _machines(self) -> list[Machine]:
        """Those with room for a server: one on the CPU takes all of a machine."""
        assert self._host is not None
        return [one for one in self._host.machines if (one.gpus // self._gpus if self._gpus else one.cpus)]

    @property
    def _avoided(self) -> set[str]:
        """Machines that cannot serve the model, and those that failed to or were lost a moment ago.

        Until the cluster misses a machine that is lost, it takes it for a free one; one that it does not miss is back.
        """
        now = asyncio.get_running_loop().time()
        return self._unfit | {node for node, until in self._passed_over.items() if now < until}

    @property
    def _others(self) -> set[str]:
        """The machines that are left."""
        return {machine.node for machine in self._machines} - self._avoided

    def _pass_over(self, node: str) -> None:
        self._passed_over[node] = asyncio.get_running_loop().time() + UNTIL_MISSED_S

    def judge(self, program: Program, link: Link, error: BundleError) -> None:
        """Use a machine no more on which a worker failed; or not for a while, if what is in the way may pass."""
        is_final = not isinstance(error, ServerError) or isinstance(error, EngineMissingError)
        if is_final and not link.lost.done():
            self._unfit.add(program.node)
        else:
            self._pass_over(program.node)

    def _most(self) -> int:
        """How many servers the cluster has room for."""
        if self._gpus:
            return sum(machine.gpus // self._gpus for machine in self._machines)
        asked = self.local.options.servers
        return max(asked, 1) if asked != ALL else len(self._machines)

    async def worker(self, screen: Screen, *, leads: bool) -> _Worker:
        """One that agrees with the first, placed where there is room; what it says is shown.

        A machine that cannot serve the model, or would serve another one, is passed over: for a while, if what is in
        the way may pass. One that ``leads`` is for the first server, which asks what no other may: it waits for so long
        only, and takes another one's place if it must.
        Raises BundleError if there is no room, or no machine of the cluster can serve the model; ServerError if the
        worker of a further server is lost, which counts as one of that server's deaths.
        """
        while True:
            program = await self._place(screen, leads=leads)
            link = program.link()
            try:
                return await self._begin(program, link, screen)
            except BaseException as error:
                was_lost = link.lost.done()  # as it is after the end, too
                if isinstance(error, BundleError):
                    self.judge(program, link, error)
                await program.end()
                if not isinstance(error, BundleError) or (not self._others if leads else was_lost):
                    raise
                screen.say(f"not using {error}")

    async def _place(self, screen: Screen, *, leads: bool) -> Program:
        """Start a worker where there is room, for which a further server waits while there is any other server."""
        if not leads:
            return await self._place_one(screen, leads=False)
        self._first_placed.clear()
        try:
            return await self._place_one(screen, leads=True)
        finally:
            self._first_placed.set()

    async def _place_one(self, screen: Screen, *, leads: bool) -> Program:
        assert self._host is not None
        given = self.local.options.wait
        wait_s = _WAIT_S if given is None else given if leads else max(given, _WAIT_S)
        what = plural(self._gpus, "GPU") if self._gpus else "a core"
        cpus = 0 if self._gpus else 1
        said = made_room = False
        while True:
            if not leads:
                await self._first_placed.wait()  # the cluster does not ask who was first
            nodes = {machine.node for machine in self._machines}
            if nodes <= self._unfit:
                raise ServerError(
                    f"No machine of the cluster with {what} can be used any more.",
                    remedy="`bundle doctor --cluster` compares the machines.",
                )
            avoid = self._avoided
            if leads and nodes <= avoid:
                avoid = self._unfit
            starting = asyncio.ensure_future(
                self._host.start(*("-m", "bundle.worker"), gpus=self._gpus, cpus=cpus, avoid=avoid, wait_s=wait_s)
            )
            try:
                while not (await asyncio.wait({starting}, timeout=_SAY_AFTER_S))[0]:
                    if not said:
                        said = True
                        screen.say(
                            f"waiting until {what} of the cluster is free{f', at most {wait_s:.0f} s' if leads else ''}"
                        )
                    made_room = made_room or (leads and self._make_room(avoid))
                program = await starting
            except TimeoutError:
                if not leads and self._serving:
                    continue
                raise ServerError(
                    f"{what[0].upper()}{what[1:]} of the cluster did not become free in time.",
                    remedy="Wait longer with --wait TIME; `ray status` shows what is in use.",
                ) from None
            finally:
                starting.cancel()
            if leads or self._first_placed.is_set():
                return program
            await program.end()  # the first server waits for a place

    def _make_room(self, avoid: Collection[str]) -> bool:
        """Have a further server give its place to the first one; whether there was one that could."""
        one = next((one for one in reversed(self._serving) if one.program.node not in avoid), None)
        if one is not None:
            self._serving.remove(one)
            one.link.lose(f"{one.link.machine}: its place is needed by the first server.")
        return one is not None

    @contextlib.contextmanager
    def serving(self, worker: _Worker) -> Iterator[None]:
        """Know a worker that has a server, for as long as the block lasts."""
        self._serving.append(worker)
        try:
            yield
        finally:
            if worker in self._serving:
                self._serving.remove(worker)

    async def _begin(self, program: Program, link: Link, screen: Screen) -> _Worker:
        """Have a worker open the checkpoint. Raises BundleError if it cannot serve it, or not as the first one does."""
        link.heard = _Heard(screen, link.machine)
        options = self.local.options
        # The cluster takes the GPU for free: who holds it still is most likely a lost worker, about to stop its server.
        # Another program's is waited for where there is no other machine to go to.
        wait_s = ENDING_S if self._others - {program.node} else max(options.wait or 0.0, ENDING_S)
        options = replace(options, cluster=None, replicas=None, engine=self._engine, wait=wait_s)
        adapter = [one and str(user_path(one).resolve()) for one in options.adapter]
        model_dir = str(user_path(self.local.model_dir).resolve())
        told = await link.hello()
        ours = versions() if self._first is None else self._first.versions
        for name in ("bundle",) if self._first is None else sorted({*ours, *told}):
            if told.get(name) != ours.get(name):
                raise _differs(link, f"{name} {told.get(name, 'is missing')} there, {ours.get(name, 'none')} elsewhere")
        # What another version would make of the call is not known.
        found = await link.call("open", model_dir, {**asdict(options), "adapter": adapter}, self.local.arguments)
        assert self._model is not None
        if found["fingerprint"] != self._model.fingerprint:
            raise _differs(link, f"{self.local.model_dir} is another checkpoint there")
        if self._first is not None and found != self._first.found:
            raise _differs(link, f"it would serve with {found['engine']}, others with {self._first.found['engine']}")
        prepared = {} if self._requests is None else await link.call("prepare", self._requests)
        return _Worker(program, link, told, found, prepared)

    async def stop(self, worker: _Worker) -> None:
        """Have a worker stop its server and end, and see to that."""
        link, program = worker.link, worker.program
        link.stop()
        ended: set[asyncio.Future[Any]] = {program.gone, link.lost}
        stopping = asyncio.wait(ended, timeout=_STOP_S, return_when=asyncio.FIRST_COMPLETED)
        await undisturbed(asyncio.ensure_future(stopping))
        if link.silent:
            self._pass_over(program.node)
        await program.end()


def _differs(link: Link, how: str) -> UsageError:
    return UsageError(f"{link.machine}: {how}.", remedy="`bundle doctor --cluster` compares the machines.")


class ClusterModel(Prepared):
    """A checkpoint and how to have servers for it. See `Prepared`.

    Args:
        lead: The model of the first server, for that of a further one.
        helpers: How many further servers are asked at the same time.
    """

    def __init__(
        self, cluster: Cluster, screen: Screen, timing: Timing, *, lead: "ClusterModel | None" = None, helpers: int = 0
    ) -> None:
        self._cluster = cluster
        self._screen = screen
        self._timing = timing
        self._lead = lead
        first = cluster.first
        self.label = cluster.local.checkpoint.name
        self.max_restarts = cluster.local.options.max_restarts
        self.concurrency: int = first.prepared["concurrency"]
        self._engine = EngineRecord(**first.prepared["engine"])
        self._unused = first if lead is None else None
        self._proof: asyncio.Future[tuple[Sequence[Any], Mapping[str, Any]]] = asyncio.Future()
        self.helpers = [
            ClusterModel(cluster, PrefixedScreen(screen, f"server {number}"), Timing(), lead=self)
            for number in range(2, 2 + helpers)
        ]

    @property
    def extra_body(self) -> Mapping[str, Any]:
        extra: Mapping[str, Any] = self._proof.result()[1]["extra_body"] if self._proof.done() else {}
        return extra

    async def check(self, started: asyncio.Event, loading: Awaitable[Loaded]) -> None:
        """Have the first worker prove the tokenizer; every other proves its own before it is asked anything."""
        await started.wait()
        first, local = self._cluster.first, self._cluster.local

        async def render(conversations: Sequence[Conversation]) -> list[RenderedPrompt]:
            proof = await first.link.call("prove", conversations)
            self._proof.set_result((conversations, proof))
            return [RenderedPrompt(**one) for one in proof["rendered"]]

        self.template = await TemplateProof.of(
            (await loading).questions,
            self.max_restarts,
            render,
            engine=self._engine.name,
            option=first.prepared["chosen_template"],
            vocabulary=local.checkpoint.path,
        )

    def describe(self) -> Served:
        return Served(self._cluster.local.record(), self._engine)

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        worker, self._unused = self._unused, None
        with self._timing.phase("start_s"):
            try:
                worker = worker or await self._cluster.worker(self._screen, leads=self._lead is None)
            except BundleError as error:
                raise _as_server_error(error) from None
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._cluster.stop, worker)
            cleanup.enter_context(self._cluster.serving(worker))
            link = worker.link
            link.heard = _Heard(self._screen, link.machine, log)
            started.set()
            try:
                with self._timing.phase("start_s"):
                    await link.call("serve", str(log))
                if worker is not self._cluster.first:
                    await self._require_same(worker)
            except BundleError as error:
                self._cluster.judge(worker.program, link, error)
                if worker is self._cluster.first:
                    raise
                raise _as_server_error(error) from None
            client = DistantClient(link, worker.prepared["scoring"])
            yield Server(client, lambda work: _attend(link, work))
            with self._timing.phase("stop_s"):
                await cleanup.aclose()

    async def _require_same(self, worker: _Worker) -> None:
        """Have a worker prove its tokenizer as well.

        Raises BundleError if it gives something else than on the first machine.
        """
        machine, first = worker.link.machine, self._cluster.first.link.machine
        gpus = EngineRecord(**worker.prepared["engine"]).gpus
        if gpus != self._engine.gpus:
            self._screen.say(f"{machine} has other GPUs than {first}: {', '.join(gpus)}")
        conversations, proof = await asyncio.shield((self._lead or self)._proof)
        if await worker.link.call("prove", conversations) != proof:
            raise _differs(worker.link, f"the tokenizer gives other tokens than on {first}")


class _Heard:
    """Shows what a worker says, and writes down what its server prints."""

    def __init__(self, screen: Screen, machine: str, log: Path | None = None) -> None:
        self._screen = screen
        self._machine = machine
        self._log = log

    def __call__(self, kind: str, text: str) -> None:
        if kind == "say":
            self._screen.say(f"{self._machine}: {text}")
        elif kind == "activity":
            self._screen.server(text)
        elif text and self._log is not None:
            with contextlib.suppress(OSError):
                descriptor = open_for_writing(self._log, os.O_CREAT | os.O_APPEND)
                with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                    file.write(text)


async def _attend(link: Link, work: Coroutine[Any, Any, None]) -> ServerError | None:
    return await until_done_or_trouble(work, _trouble(link))


async def _trouble(link: Link) -> ServerError:
    """Wait for what goes wrong with the server or its worker."""
    try:
        await link.call("attend")
    except BundleError as error:
        return _as_server_error(error)
    return ServerError(f"{link.machine}: the worker no longer watches its server.")


def _as_server_error(error: BundleError) -> ServerError:
    """What ends one server, and not the run: another machine may do better."""
    if isinstance(error, ServerError):
        return error
    return ServerError(error.message, remedy=error.remedy, details=error.details)
