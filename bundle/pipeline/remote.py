"""A model that someone else serves, behind an OpenAI-compatible API: one server, not ours to restart."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from bundle.checkpoints import TokenCounter, token_counter
from bundle.client import (
    ChatClient,
    Endpoint,
    KeyRing,
    RefusedError,
    insecure,
    is_loopback,
    listed,
    normalise_base_url,
    only_model,
    served_models,
)
from bundle.config.files import file_names
from bundle.config.model_files import ModelFile, RemoteSettings, headers_from, keys_from_environment, model_file
from bundle.errors import BundleError, UsageError
from bundle.pipeline.options import RemoteOptions
from bundle.pipeline.plan import Plan
from bundle.pipeline.targets import Prepared, Server, Target, Timing
from bundle.reports.screen.console import Screen
from bundle.runs.record import RemoteModelRecord, RequestsRecord, Served
from bundle.system.files import user_path
from bundle.system.network import proxy_for
from bundle.system.text import is_unicode, nearest, quoted

_PATIENCE_S = 3600.0
"""For how long rate limits and outages are waited out while no question gets a reply."""
_LIST_TIMEOUT_S = 10.0
_USUAL_URL, _USUAL_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"


class Remote(Target):
    """The target of ``bundle eval-remote``.

    ``model`` is a served name, or the name or path of a model file; None for the only model the server lists.
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
        if not is_unicode(self._model):
            raise UsageError(f"The model's name {quoted(self._model)} is not valid UTF-8.", remedy="Check the name.")
        return ModelFile(description=self._model, remote=RemoteSettings(model=self._model))

    @property
    def qps(self) -> float | None:
        return self.model_file.remote.qps

    def token_counter(self) -> TokenCounter | None:
        """With the tokenizer that the user names: the server's own is not here."""
        directory = self._options.tokenizer
        if directory is None:
            return None
        counter = token_counter(user_path(directory))
        if counter is None:
            raise UsageError(
                f"--tokenizer {directory}: it contains no readable tokenizer.json or tokenizer.model.",
                remedy="Name the directory of a checkpoint or of its tokenizer; or leave it out for an estimate.",
            )
        return counter

    async def prepare(self, plan: Plan, screen: Screen, timing: Timing) -> "RemoteModel":
        settings, asked = self.model_file.remote, plan.options
        base_url = normalise_base_url(self._base_url(settings, screen))
        if not is_loopback(base_url) and (proxy := proxy_for(base_url)) is not None:
            screen.say(f"asking through the proxy {proxy.address} (from {proxy.variable})")
        headers, shown_headers, secrets = headers_from(settings)
        variable = self._key_variable(settings, base_url, screen, others=secrets)
        keys = keys_from_environment(variable) if variable is not None else []
        if (keys or secrets) and insecure(base_url):
            screen.say(f"warning: the API key is sent to {base_url} unencrypted")
        endpoint = Endpoint(base_url, keys, headers, secrets)
        name = settings.model or await only_model(endpoint)
        hide = KeyRing(keys, secrets).hide_in_reply
        screen.heading(plan.tasks, f"model {hide(name)} at {base_url}", plan.sources)
        requests = RequestsRecord(
            qps=asked.qps or settings.qps,
            retries=settings.retries if asked.retries is None else asked.retries,
            timeout_s=asked.request_timeout or settings.timeout_s,
        )
        patience_s = _PATIENCE_S if self._options.patience is None else self._options.patience
        how = replace(plan.requests.settings, patience_s=patience_s, **requests.model_dump())
        connect = partial(ChatClient, endpoint, name, how, say=screen.say)
        record = RemoteModelRecord(name=hide(name), base_url=base_url, headers=shown_headers)
        return RemoteModel(
            hide(name), name, hide, settings.concurrency, Served(record, requests=requests), connect, endpoint
        )

    def _base_url(self, settings: RemoteSettings, screen: Screen) -> str:
        if (base_url := self._options.base_url or settings.base_url) is not None:
            return base_url
        if base_url := os.environ.get(_USUAL_URL):
            normalise_base_url(base_url)  # what cannot be used may hold a secret, and is not shown
            screen.say(f"using {_USUAL_URL}={base_url}")
            return base_url
        name = self._model or "the model"
        if Path(name).is_dir():
            remedy = f"{name} is a directory: use `bundle eval-local` to serve a checkpoint."
        elif near := nearest(name, file_names("models")):
            remedy = f"Did you mean the model file {near[0]}?"
        else:
            remedy = (
                f"Give --base-url, set {_USUAL_URL}, or name a model file that has one; `bundle models` lists them."
            )
        raise UsageError(f"No address known for {settings.model or name}.", remedy=remedy)

    def _key_variable(
        self, settings: RemoteSettings, base_url: str, screen: Screen, *, others: Sequence[str]
    ) -> str | None:
        """The variable with the API keys; the usual one only where the model file says nothing of the matter."""
        if (named := self._options.api_key_env or settings.api_key_env) is not None:
            return named
        from_file = settings.base_url is not None and self._options.base_url is None
        if from_file or others or not os.environ.get(_USUAL_KEY):
            return None
        if insecure(base_url):
            screen.say(
                f"{_USUAL_KEY} is not sent over an unencrypted connection; to send it anyway, add "
                f"--api-key-env {_USUAL_KEY}"
            )
            return None
        screen.say(f"sending the API key in {_USUAL_KEY}; --api-key-env NAME names another variable")
        return _USUAL_KEY


@dataclass
class RemoteModel(Prepared):
    """A model with its address. See `Prepared`."""

    label: str
    name: str
    hide: Callable[[str], str]
    concurrency: int
    record: Served
    connect: Callable[[], ChatClient]
    endpoint: Endpoint
    ours = False

    def describe(self) -> Served:
        return self.record

    @contextlib.asynccontextmanager
    async def serve(self, log: Path, started: asyncio.Event) -> AsyncIterator[Server]:
        """The server is there already, and whatever goes wrong with it ends the run."""

        async def attend(work: Coroutine[Any, Any, None]) -> None:
            try:
                await work
            except RefusedError as error:
                if error.no_model and (remedy := await self._other_models()) is not None:
                    error.remedy = remedy
                raise

        yield Server(self.connect(), attend)

    async def _other_models(self) -> str | None:
        """What the server has, if it does not list this model; None if it does, or lists nothing."""
        try:
            models = await served_models(self.endpoint, timeout_s=_LIST_TIMEOUT_S)
        except BundleError:
            return None
        if self.name in models:
            return None
        near = nearest(self.name, models)
        suggestion = f" Did you mean {self.hide(near[0])}?" if near else ""
        return f"The server has no model {self.label}; it has {listed([*map(self.hide, models)])}.{suggestion}"
