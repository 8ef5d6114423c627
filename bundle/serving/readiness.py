"""When a server is ready: its health check answers, it lists our model, and it has really generated a token."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bundle.errors import ServerError
from bundle.serving.server_log import printable

if TYPE_CHECKING:
    import aiohttp

# A look costs little and a server that is up should not be kept waiting, but it may also take ten minutes to load.
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_PROBE_SECONDS = 5.0
# A server that is up but gives the wrong answer may still be settling; for longer than this it is simply wrong.
_PATIENCE_SECONDS = 20.0


class Readiness:
    """Waits for one condition after the other; says at any time which one, and what is seen instead.

    Args:
        root: The server's address, ``http://HOST:PORT``.
        api_key: The key the server was started with.
        model: The name it must serve.
        limit: Seconds the first token may take: the rest of the time there is for starting.
        patience: Seconds a wrong answer is tolerated once the server is healthy.
    """

    def __init__(
        self, root: str, api_key: str, model: str, *, limit: float, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self._root = root
        self._api_key = api_key
        self._model = model
        self._limit = limit
        self._patience = patience
        self.waiting_for = "the server to start"
        self.seen = "nothing yet"

    async def wait(self) -> None:
        """Return when the server is ready. There is no limit in time here; the caller sets one.

        Raises:
            ServerError: It does not take our key, or is up and stays unable to serve the model.
        """
        # It takes a third of a second to import, which ``bundle --help`` need not pay.
        import aiohttp

        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._api_key}"},
            trust_env=False,  # A proxy that is set for the outside must not see what goes to our own machine.
            connector=aiohttp.TCPConnector(force_close=True),
        ) as http:
            await self._until(f"{self._root}/health to answer", lambda: self._healthy(http))
            await self._until(f"{self._root}/v1/models to list {self._model!r}", lambda: self._listed(http), fussy=True)
            await self._until("a first token from the model", lambda: self._generates(http), fussy=True)

    async def _until(self, what: str, look: Callable[[], Awaitable[str | None]], *, fussy: bool = False) -> None:
        """Repeat ``look`` until it sees nothing wrong; if ``fussy``, only for so long as the server may be wrong."""
        import aiohttp

        self.waiting_for = what
        self.seen = "no answer yet"
        pause = _FIRST_PAUSE_SECONDS
        wrong_since: float | None = None
        while True:
            try:
                wrong = await look()
            except TimeoutError:
                self.seen, wrong_since = "no answer in time", None
            except (aiohttp.ClientError, OSError) as error:
                self.seen, wrong_since = _in_words(error), None
            else:
                if wrong is None:
                    return
                self.seen = wrong
                wrong_since = wrong_since or time.monotonic()
                if fussy and time.monotonic() - wrong_since > self._patience:
                    raise ServerError(
                        f"The server is up but cannot be used. Waited for {what}; saw instead: {self.seen}.",
                        remedy="Look at what it printed.",
                    )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _healthy(self, http: "aiohttp.ClientSession") -> str | None:
        status, body = await self._ask(http, "GET", "/health")
        return None if status == 200 else _reply_in_words(status, body)

    async def _listed(self, http: "aiohttp.ClientSession") -> str | None:
        status, body = await self._ask(http, "GET", "/v1/models")
        match status, body:
            case 200, {"data": list(models)}:
                names = [model.get("id") for model in models if isinstance(model, dict)]
                if self._model in names:
                    return None
                return f"it lists {', '.join(map(repr, names))}" if names else "it lists no model"
        return _reply_in_words(status, body)

    async def _generates(self, http: "aiohttp.ClientSession") -> str | None:
        question = {
            "model": self._model,
            "messages": [{"role": "user", "content": "1"}],
            "max_tokens": 1,
            "stream": False,
        }
        # Some servers load the model only now, so this has all the time there is.
        status, body = await self._ask(http, "POST", "/v1/chat/completions", question, seconds=self._limit)
        match status, body:
            # A server can report a failure inside a successful reply (lmdeploy: finish_reason "error").
            case 200, {"choices": [{"finish_reason": "stop" | "length", "message": dict()}, *_]}:
                return None
        return _reply_in_words(status, body)

    async def _ask(
        self,
        http: "aiohttp.ClientSession",
        method: str,
        path: str,
        question: object = None,
        *,
        seconds: float = _PROBE_SECONDS,
    ) -> tuple[int, Any]:
        """The status and the body of a reply: JSON where it is that, text elsewhere."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=seconds)
        async with http.request(
            method, self._root + path, json=question, timeout=timeout, allow_redirects=False
        ) as reply:
            if reply.status in (401, 403):
                raise ServerError(
                    f"{self._root} does not take the key its server was started with (HTTP {reply.status}).",
                    remedy="Another server may have taken the port: try again, and look at what listens there.",
                )
            try:
                return reply.status, await reply.json(content_type=None)
            except ValueError:
                return reply.status, await reply.text(errors="replace")


def _reply_in_words(status: int, body: object) -> str:
    text = printable(str(body))
    return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"


def _in_words(error: Exception) -> str:
    """What a failed connection means; the library's own words name its internals."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else printable(str(error))
