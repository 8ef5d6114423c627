"""A model that somebody else serves, behind an OpenAI-compatible API: one server, not ours to restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from bundle.client import ChatClient, insecure, is_loopback, normalise_base_url, only_model, require_usable_proxy
from bundle.config.files import file_names
from bundle.config.model_files import ModelFile, RemoteSettings, keys_from_environment, model_file
from bundle.errors import UsageError
from bundle.pipeline.options import RemoteOptions
from bundle.pipeline.plan import CountTokens, Loaded, Plan
from bundle.pipeline.targets import Server, Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import RemoteModelRecord, RequestsRecord, Served
from bundle.system.text import nearest

_PATIENCE_S = 3600.0
"""For how long rate limits and outages are waited out while no question gets a reply."""


class Remote:
    """The target of ``bundle eval-remote``.

    Args:
        model: A served name, or the name or path of a model file; None for the only model the server lists.
        options: Where it is served.
    """

    def __init__(self, model: str | None, options: RemoteOptions) -> None:
        self._model = model
        self._options = options

    @cached_property
    def model_file(self) -> ModelFile:
        """The model file that is named, or one for the served name that is."""
        if self._model is None:
            return ModelFile(description="the only model the server lists")
        if self._model in file_names("models") or self._model.endswith(".toml"):
            return model_file(self._model)
        return ModelFile(description=self._model, remote=RemoteSettings(model=self._model))

    def token_counter(self) -> CountTokens | None:
        """None: the tokenizer is the server's."""
        return None

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "RemoteModel":
        settings = self.model_file.remote
        base_url = normalise_base_url(self._base_url(settings))
        if not is_loopback(base_url):
            require_usable_proxy(base_url)
        variable = self._options.api_key_env or settings.api_key_env
        keys = keys_from_environment(variable) if variable is not None else []
        if keys and insecure(base_url):
            screen.say(f"warning: the API key is sent to {base_url} unencrypted")
        name = settings.model or await only_model(
            base_url, keys[0] if keys else None, proxies=not is_loopback(base_url)
        )
        screen.heading(plan.tasks, f"model {name} at {base_url}", plan.sources())
        options = plan.options
        requests = RequestsRecord(
            qps=options.qps or settings.qps,
            retries=settings.retries if options.retries is None else options.retries,
            timeout_s=options.request_timeout or settings.timeout_s,
        )
        connect = partial(
            ChatClient,
            base_url,
            keys,
            name,
            temperature=plan.temperature,
            timeout_s=requests.timeout_s,
            retries=requests.retries,
            proxies=not is_loopback(base_url),
            qps=requests.qps,
            patience_s=_PATIENCE_S,
            answer_from_thinking=options.answer_from_thinking,
            say=screen.say,
        )
        record = Served(RemoteModelRecord(name=name, base_url=base_url), requests=requests)
        return RemoteModel(name, settings.concurrency, record, connect)

    def kill(self) -> None:
        """The server is not ours."""

    def _base_url(self, settings: RemoteSettings) -> str:
        base_url = self._options.base_url or settings.base_url
        if base_url is not None:
            return base_url
        name = self._model or "the model"
        if Path(name).is_dir():
            remedy = f"{name} is a directory: use `bundle eval-local` to serve a checkpoint."
        elif near := nearest(name, file_names("models")):
            remedy = f"Did you mean the model file {near[0]}?"
        else:
            remedy = "Give --base-url, or name a model file that has one; `bundle models` lists them."
        raise UsageError(f"No address known for {settings.model or name}.", remedy=remedy)


@dataclass
class RemoteModel:
    """A model with its address. See `Prepared`."""

    label: str
    concurrency: int
    record: Served
    connect: Callable[[], ChatClient]
    ours = False
    max_restarts = 0
    extra_body: ClassVar[Mapping[str, Any]] = {}

    async def check(self, started: asyncio.Event, loading: Awaitable[Loaded]) -> None:
        """Nothing of it is here to be checked."""

    async def prove(self, evaluation: object, client: object) -> None:
        """Its tokenizer and chat template are the server's."""

    def describe(self) -> Served:
        return self.record

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        """The server is there already, and whatever goes wrong with it ends the run."""

        async def attend(work: Coroutine[Any, Any, None]) -> None:
            await work

        yield Server(self.connect(), attend)
