"""What a run can be pointed at: something that is prepared once and then gives servers, one after the other."""

# ruff: noqa: B027 - what few targets have something to do for is empty in the others

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.checkpoints import TokenCounter
from bundle.config.model_files import ModelFile
from bundle.errors import ServerError
from bundle.pipeline.context import ContextLimit
from bundle.pipeline.plan import Loaded, Plan
from bundle.pipeline.template_proof import TemplateProof
from bundle.reports.screen.console import Screen
from bundle.runs.record import Served
from bundle.serving.gpus import Gpu
from bundle.tasks.catalog import Question

if TYPE_CHECKING:  # slow to import, and the server should start first
    from bundle.client import Client


class Timing(dict[str, float]):
    """Seconds by phase."""

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to that of ``name``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - began


class Target(ABC):
    """Where the model is served: on this machine, or by someone else.

    What finds that the model cannot be evaluated, or not like this, raises BundleError. A method that does nothing here
    is for the few targets that have something to do.
    """

    async def open(self, screen: Screen) -> None:
        """Do what must be done before anything about the model can be asked; it may take a while."""

    async def aclose(self) -> None:
        """Undo what `open` did, however far that came."""

    @property
    @abstractmethod
    def model_file(self) -> ModelFile:
        """How the model is asked unless the command line says otherwise."""

    @property
    def qps(self) -> float | None:
        """Maximum requests per second unless the command line says otherwise; None for no limit."""
        return None

    def token_counter(self) -> TokenCounter | None:
        """Counts the tokens of a prompt; None without a vocabulary."""
        return None

    def context_limits(self) -> Sequence[ContextLimit]:
        """Maximum tokens of a prompt and its reply together, as far as the target itself says so."""
        return ()

    def require_possible(self, plan: Plan, questions: Sequence[Question] = ()) -> None:
        """Check what can be checked of a run without preparing it; also the prompts of these questions, in seconds."""

    @abstractmethod
    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "Prepared":
        """Do what comes before the first server, while the questions are being loaded."""

    def kill(self) -> None:
        """Kill whatever was started, without asking."""


class Prepared(ABC):
    """A target that can be served.

    Attributes:
        label: The model's name in that of the run's directory.
        ours: Whether the servers are started here: then what fails may be the server, and pass with it.
        max_restarts: How often a server that died may be followed by another, crashes that a question explains aside.
        concurrency: Maximum concurrent requests, unless the command line says otherwise.
        helpers: The same model on further servers, which are asked at the same time.
        gpus: The GPUs of its server, as far as they can be watched from here.
        template: Proves on a server that is ready that it builds prompts as it should; None where that is not to be
            proved. Known once `check` has returned.
    """

    label: str
    ours: bool = True
    max_restarts: int = 0
    concurrency: int
    helpers: Sequence["Prepared"] = ()
    gpus: Sequence[Gpu] = ()
    template: TemplateProof | None = None

    @property
    def extra_body(self) -> Mapping[str, Any]:
        """Further fields of every request; known once `check` has returned."""
        return {}

    async def check(self, started: asyncio.Event, loading: Awaitable[Loaded]) -> None:
        """Do what must be done before the first question and can be done while the first server loads.

        Once that server's command runs, ``started`` is set; ``loading`` gives the questions. Raises BundleError if no
        score of this model could be trusted.
        """

    @abstractmethod
    def describe(self) -> Served:
        """The model and its server, for ``run.json``. May take seconds."""

    def close(self) -> None:
        """Give back what was reserved; no server is started afterwards."""

    @abstractmethod
    def serve(self, log: Path, started: asyncio.Event) -> contextlib.AbstractAsyncContextManager["Server"]:
        """Have a server, whose output is appended to ``log``, for as long as the block lasts.

        Once its command runs, ``started`` is set. Raises ServerError if it does not become ready, or cannot be stopped.
        """


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready, with a client.

    ``attend`` awaits work that asks it, and returns what went wrong with the server, if that ended the work and the
    next server can go on with it.
    """

    client: "Client"
    attend: Callable[[Coroutine[Any, Any, None]], Awaitable[ServerError | None]]
