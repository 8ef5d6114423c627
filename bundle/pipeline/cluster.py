"""A checkpoint, served on machines of a Ray cluster, each server beside a worker that asks it.

The questions, the run's directory and the scores stay here. What a server needs of this program on its machine, the
worker does there, and each server has a worker of its own.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from bundle.checkpoints import Conversation, RenderedPrompt, TokenCounter
from bundle.config.files import path_or_name
from bundle.config.model_files import ModelFile
from bundle.errors import BundleError, ServerError, UsageError
from bundle.fleet import DistantClient, Host, Link, Program
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.local import Local
from bundle.pipeline.options import ALL
from bundle.pipeline.placement import Placement
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

_STOP_S: Final = 90.0
"""How long a worker may take to stop its server and see its memory free."""


@dataclass(slots=True)
class _Worker:
    """One that has opened the checkpoint.

    ``versions`` are of what it runs with; it has said what it ``found`` of checkpoint and engine, and ``prepared`` for
    its server.
    """

    program: Program
    versions: Mapping[str, str]
    found: Mapping[str, Any]
    prepared: Mapping[str, Any]


class Cluster(Target):
    """The target of ``bundle eval-local --cluster``: a checkpoint, as this machine sees it, and a cluster's address."""

    def __init__(self, local: Local, address: str) -> None:
        self.local = local
        self._address = address
        self._host: Host | None = None
        self._places: Placement | None = None
        self._model: LocalModelRecord | None = None
        self._engine = "auto"
        self._first: _Worker | None = None
        self._requests: Mapping[str, Any] | None = None

    async def open(self, screen: Screen) -> None:
        options = self.local.options
        if options.gpu is not None:
            raise UsageError("--gpu has no effect with --cluster.", remedy="Leave it out: Ray assigns GPUs.")
        await self.local.open(screen)
        self._model = await in_thread(self.local.given.record)
        host = self._host = await Host.join(self._address)
        gpus, cpus = (sum(getattr(machine, what) for machine in host.machines) for what in ("gpus", "cpus"))
        there = f"{plural(gpus, 'GPU')}, {plural(cpus, 'core')}"
        screen.say(f"Ray cluster {self._address}: {plural(len(host.machines), 'machine')}, {there}")
        self._engine, count = self.local.elsewhere(on_gpus=gpus > 0)
        places = self._places = Placement(host, count, options.servers, options.wait)
        if places.most == 0:
            raise ServerError(f"No machine of the cluster has {places.what}.", remedy="`ray status` shows what it has.")
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

    @property
    def places(self) -> Placement:
        assert self._places is not None
        return self._places

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "ClusterModel":
        first = self.first
        self.local.begin(plan, first.found["engine"], scores_texts=first.found["scores_texts"], screen=screen)
        self._requests = asdict(plan.requests)
        with timing.phase("start_s"):
            try:
                first.prepared = await first.program.link.call("prepare", self._requests)
            except ServerError as error:  # the cluster does not know who uses a GPU besides it
                self.places.judge(first.program, error)
                await first.program.end()
                if not self.places.others:
                    raise
                screen.say(f"not using {error}")
                self._first = await self.worker(screen, leads=True)
        wanted, most = self.local.options.servers, self.places.most
        if wanted > most:
            screen.say(f"{most} of {wanted} servers: the cluster has room for no more")
        servers = most if wanted == ALL else min(wanted, most)
        return ClusterModel(self, screen, timing, helpers=servers - 1)

    def kill(self) -> None:
        if self._host is not None:
            self._host.kill()

    async def worker(self, screen: Screen, *, leads: bool) -> _Worker:
        """One that agrees with the first, placed where there is room; what it says is shown.

        A machine that cannot serve the model, or would serve another one, is passed over: for a while, if what is in
        the way may pass. One that ``leads`` is for the first server, which asks what no other may: it waits for so long
        only, and takes another one's place if it must.
        Raises BundleError if there is no room, or no machine of the cluster can serve the model; ServerError if the
        worker of a further server is lost, which counts as one of that server's deaths.
        """
        while True:
            program = await self.places.place(screen, leads=leads)
            try:
                return await self._begin(program, screen)
            except BaseException as error:
                was_lost = program.link.lost.done()  # as it is after the end, too
                if isinstance(error, BundleError):
                    self.places.judge(program, error)
                await program.end()
                if not isinstance(error, BundleError) or (not self.places.others if leads else was_lost):
                    raise
                screen.say(f"not using {error}")

    async def _begin(self, program: Program, screen: Screen) -> _Worker:
        """Have a worker open the checkpoint. Raises BundleError if it cannot serve it, or not as the first one does."""
        link = program.link
        link.heard = _Heard(screen, link.machine)
        options = self.local.options
        # The cluster takes the GPU for free: who holds it still is most likely a lost worker, about to stop its server.
        # Another program's is waited for where there is no other machine to go to.
        wait_s = ENDING_S if self.places.others - {program.node} else max(options.wait or 0.0, ENDING_S)
        options = replace(options, cluster=None, replicas=None, engine=self._engine, wait=wait_s)
        # Its current directory is another.
        adapter = [one and str(user_path(one).resolve()) for one in options.adapter]
        file = options.model_file and path_or_name(options.model_file)
        model_dir = str(user_path(self.local.given.directory).resolve())
        told = await link.hello()
        # What another version would make of the call is not known.
        _require_same(link, {"bundle": told.get("bundle")}, {"bundle": versions()["bundle"]})
        if self._first is not None:
            _require_same(link, told, self._first.versions)
        given = {**asdict(options), "adapter": adapter, "model_file": file}
        found = await link.call("open", model_dir, given, self.local.given.arguments)
        assert self._model is not None
        if found["fingerprint"] != self._model.fingerprint:
            raise _differs(link, f"{self.local.given.directory} is another checkpoint there")
        if self._first is not None:
            _require_same(link, found, self._first.found)
        prepared = {} if self._requests is None else await link.call("prepare", self._requests)
        if self._first is not None and self._first.prepared:
            theirs, ours = ({**one["engine"], "gpus": None} for one in (prepared, self._first.prepared))
            _require_same(link, theirs, ours, whose="the engine's ")
        return _Worker(program, told, found, prepared)

    async def stop(self, program: Program) -> None:
        """Have a worker stop its server and end, and see to that."""
        program.link.stop()
        ended: set[asyncio.Future[Any]] = {program.gone, program.link.lost}
        stopping = asyncio.wait(ended, timeout=_STOP_S, return_when=asyncio.FIRST_COMPLETED)
        await undisturbed(asyncio.ensure_future(stopping))
        if program.link.silent:
            self.places.pass_over(program.node)
        await program.end()


def _require_same(link: Link, theirs: Mapping[str, Any], ours: Mapping[str, Any], whose: str = "") -> None:
    """Raise UsageError if a worker says something else than the first one."""
    for name in sorted({*ours, *theirs}):
        if theirs.get(name) != ours.get(name):
            there, elsewhere = (one.get(name) or "none" for one in (theirs, ours))
            raise _differs(link, f"{whose}{name} {there} there, {elsewhere} elsewhere")


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
        self.label = cluster.local.given.checkpoint.name
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
            proof = await first.program.link.call("prove", conversations)
            self._proof.set_result((conversations, proof))
            return [RenderedPrompt(**one) for one in proof["rendered"]]

        self.template = await TemplateProof.of(
            (await loading).questions,
            self.max_restarts,
            render,
            engine=self._engine.name,
            option=first.prepared["chosen_template"],
            vocabulary=local.given.checkpoint.path,
        )

    def describe(self) -> Served:
        return Served(self._cluster.local.given.record(), self._engine)

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        worker, self._unused = self._unused, None
        with self._timing.phase("start_s"):
            try:
                worker = worker or await self._cluster.worker(self._screen, leads=self._lead is None)
            except BundleError as error:
                raise _as_server_error(error) from None
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._cluster.stop, worker.program)
            cleanup.enter_context(self._cluster.places.serving(worker.program))
            link = worker.program.link
            link.heard = _Heard(self._screen, link.machine, log)
            started.set()
            try:
                with self._timing.phase("start_s"):
                    await link.call("serve", str(log))
                if worker is not self._cluster.first:
                    await self._require_same(worker)
            except BundleError as error:
                self._cluster.places.judge(worker.program, error)
                if worker is self._cluster.first:
                    raise
                raise _as_server_error(error) from None
            client = DistantClient(link, worker.prepared["scoring"])
            yield Server(client, lambda work: until_done_or_trouble(work, _trouble(link)))
            with self._timing.phase("stop_s"):
                await cleanup.aclose()

    async def _require_same(self, worker: _Worker) -> None:
        """Have a worker prove its tokenizer as well.

        Raises BundleError if it gives something else than on the first machine.
        """
        link, first = worker.program.link, self._cluster.first.program.machine
        gpus = EngineRecord(**worker.prepared["engine"]).gpus
        if gpus != self._engine.gpus:
            self._screen.say(f"{link.machine} has other GPUs than {first}: {', '.join(gpus)}")
        conversations, proof = await asyncio.shield((self._lead or self)._proof)
        if await link.call("prove", conversations) != proof:
            raise _differs(link, f"the tokenizer gives other tokens than on {first}")


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
