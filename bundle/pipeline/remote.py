"""A model that somebody else serves, behind an OpenAI-compatible API: one server, not ours to restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bundle.client import ChatClient, insecure, is_loopback, normalise_base_url, only_model
from bundle.config.files import file_names
from bundle.config.model_files import ModelFile, RemoteSettings, keys_from_environment, model_file
from bundle.errors import UsageError
from bundle.pipeline.options import RemoteOptions
from bundle.pipeline.plan import CountTokens, Plan
from bundle.pipeline.targets import Timing
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
        return RemoteModel(
            label=name,
            concurrency=settings.concurrency,
            base_url=base_url,
            keys=keys,
            requests=requests,
            plan=plan,
            screen=screen,
        )

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


@dataclass(slots=True, kw_only=True)
class RemoteModel:
    """A model with its address. See `Prepared`."""

    label: str
    ours: bool = False
    lives: int = 1
    concurrency: int
    base_url: str
    keys: list[str] = field(repr=False)
    requests: RequestsRecord
    plan: Plan
    screen: Screen

    async def check(self, started: asyncio.Event) -> None:
        """Nothing of it is here to be checked."""

    def describe(self) -> Served:
        return Served(RemoteModelRecord(name=self.label, base_url=self.base_url), requests=self.requests)

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator["RemoteServer"]:
        """The server is there already."""
        yield RemoteServer(
            ChatClient(
                self.base_url,
                self.keys,
                self.label,
                temperature=self.plan.temperature,
                proxies=not is_loopback(self.base_url),
                timeout_s=self.requests.timeout_s,
                retries=self.requests.retries,
                qps=self.requests.qps,
                patience_s=_PATIENCE_S,
                answer_from_thinking=self.plan.options.answer_from_thinking,
                say=self.screen.say,
            )
        )


@dataclass(slots=True)
class RemoteServer:
    """A server that answers, as far as we know. See `Server`."""

    client: ChatClient

    async def attend(self, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``; whatever goes wrong with the server ends it."""
        await work
