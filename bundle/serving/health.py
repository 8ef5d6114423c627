"""When a server is ready, and when one that was ready is no longer of use."""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from bundle.errors import ServerError
from bundle.serving.server import Server
from bundle.serving.server_log import printable

if TYPE_CHECKING:
    import aiohttp

# A look costs little and a server that is up should not wait, but it may also take ten minutes to load.
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_PROBE_SECONDS = 5.0
# A server that is up but gives the wrong answer may still be settling; for longer than this it is simply wrong.
_PATIENCE_SECONDS = 20.0


HEALTH_SILENCE_S = 60.0
"""A server whose health check does not answer for this long hangs. A busy one may take seconds."""

_HEALTH_EVERY_S = 1.0
_HEALTH_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.5
_UNAVAILABLE = 503
"""What a server answers whose engine is gone, and lmdeploy also while a step of its engine takes over 10 s."""
_LINE_SHOWN = 200


@dataclass(slots=True)
class Readiness:
    """Waits until the server's health check answers, it lists our model, and it has really generated a token.

    Says at any time which of these it is waiting for, and what it sees instead.

    Attributes:
        root: The server's address, ``http://HOST:PORT``.
        model: The name it must serve.
        limit: Seconds the first token may take: all the time allowed for starting.
        patience: Seconds for which wrong answers are tolerated once the server is healthy.
        plain: Whether the token is asked for without a chat template.
    """

    root: str
    api_key: str = field(repr=False)
    model: str
    _: KW_ONLY
    limit: float
    patience: float = _PATIENCE_SECONDS
    plain: bool = False
    waiting_for: str = field(default="the server to answer", init=False)
    seen: str = field(default="nothing yet", init=False)

    async def wait(self) -> None:
        """Return when the server is ready. The caller sets the time limit.

        Raises ServerError if it rejects our key, or is up but remains unable to serve the model.
        """
        # It takes a third of a second to import, which ``bundle --help`` need not pay.
        import aiohttp

        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.api_key}"},
            trust_env=False,  # A proxy that is set for the outside must not see what goes to our own machine.
            connector=aiohttp.TCPConnector(force_close=True),
        ) as http:
            await self._until("the server to answer", lambda: self._healthy(http))
            await self._until(f"the server to list the model {self.model!r}", lambda: self._listed(http), fussy=True)
            await self._until("a first token from the model", lambda: self._generates(http), fussy=True)

    async def _until(self, what: str, look: Callable[[], Awaitable[str | None]], *, fussy: bool = False) -> None:
        """Repeat ``look`` until it sees nothing wrong; if ``fussy``, only for so long as the server may be wrong."""
        import aiohttp  # imported late: slow, and the server should start first

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
                if fussy and time.monotonic() - wrong_since > self.patience:
                    raise ServerError(
                        f"The server is up but cannot be used. Expected {what}, got: {self.seen}.",
                        remedy="Its last output is below.",
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
                if self.model in names:
                    return None
                return f"it lists {', '.join(map(repr, names))}" if names else "it lists no model"
        return _reply_in_words(status, body)

    async def _generates(self, http: "aiohttp.ClientSession") -> str | None:
        prompt = {"prompt": "1"} if self.plain else {"messages": [{"role": "user", "content": "1"}]}
        question = {"model": self.model, **prompt, "max_tokens": 1, "stream": False}
        path = "/v1/completions" if self.plain else "/v1/chat/completions"
        # Some servers load the model only now, so this has all the time there is.
        status, body = await self._ask(http, "POST", path, question, seconds=self.limit)
        match status, body:
            # A server can report a failure inside a successful reply (lmdeploy: finish_reason "error").
            case 200, {"choices": [{"finish_reason": "stop" | "length", "message": dict()}, *_]}:
                return None
            case 200, {"choices": [{"finish_reason": "stop" | "length", "text": str()}, *_]}:
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
        """The status and the body of a reply: as JSON if possible, else as text."""
        import aiohttp  # imported late: slow, and the server should start first

        timeout = aiohttp.ClientTimeout(total=seconds)
        async with http.request(
            method, self.root + path, json=question, timeout=timeout, allow_redirects=False
        ) as reply:
            if reply.status in (401, 403):
                raise ServerError(
                    f"{self.root} rejects the key its server was started with (HTTP {reply.status}).",
                    remedy="Another server may have taken the port: try again, and check what listens there.",
                )
            try:
                return reply.status, await reply.json(content_type=None)
            except ValueError:
                return reply.status, await reply.text(errors="replace")


async def wait_for_trouble(
    server: Server,
    silent_for: Callable[[], float],
    silence_s: float,
    *,
    health_silence_s: float = HEALTH_SILENCE_S,
) -> ServerError:
    """Return, when a server that was ready has died, answers nothing any more or hangs, an error that says which.

    Args:
        silent_for: For how many seconds requests have been in flight without a sign of any of their replies.
        silence_s: A server that is silent for so long hangs, even if its health check answers.
        health_silence_s: So does one whose health check does not answer for so long.
    """
    watches = {
        asyncio.ensure_future(watch)
        for watch in (
            server.wait_for_death(),
            _silence_of_requests(server, silent_for, silence_s),
            _health(server, silent_for, health_silence_s),
            _deadly_line(server),
            _death_of_child(server),
        )
    }
    try:
        done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


# Both kinds of silence are counted in looks, not by the clock: while this program is stopped (Ctrl-Z, a laptop that is
# closed), no one listens to the server.


async def _silence_of_requests(server: Server, silent_for: Callable[[], float], silence_s: float) -> ServerError:
    pause = min(_LOOK_EVERY_S, silence_s / 2)
    silent = 0.0
    while silent < silence_s:
        await asyncio.sleep(pause)
        silent = min(silent + pause, silent_for())
    return _hangs(server, f"no reply, not even a part of one, for {silence_s:g} s")


async def _health(server: Server, silent_for: Callable[[], float], silence_s: float) -> ServerError:
    import aiohttp  # takes a third of a second

    pause, limit = min(_HEALTH_EVERY_S, silence_s / 2), min(_HEALTH_TIMEOUT_S, silence_s)
    silent, wrong = 0.0, "has not answered"
    # A new connection each time: what hangs may still hold an old one open.
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=limit)
    async with aiohttp.ClientSession(trust_env=False, connector=connector, timeout=timeout) as http:
        while silent < silence_s:
            began = time.monotonic()
            try:
                async with http.get(server.base_url.removesuffix("/v1") + "/health") as reply:
                    says = printable(await reply.text(errors="replace"))[:_LINE_SHOWN]
                # Whatever else it says, it says something; whether replies come is watched elsewhere.
                silent_now = 0.0
                if reply.status == _UNAVAILABLE:
                    if _is_deadly(server, says):
                        return _is_dead(server, f"its health check says {says!r}")
                    wrong = f"has answered HTTP {_UNAVAILABLE} ({says or 'and nothing else'})"
                    # A server that replies to requests has an engine.
                    silent_now = min(silent + time.monotonic() - began + pause, silent_for())
                silent = silent_now
            except (aiohttp.ClientError, OSError, TimeoutError):
                wrong = "has not answered"
                silent += min(time.monotonic() - began, limit) + pause
            await asyncio.sleep(pause)
    return _hangs(server, f"its health check {wrong} for {silence_s:g} s")


async def _deadly_line(server: Server) -> ServerError:
    while True:
        for line in server.log.new_lines():
            if _is_deadly(server, line):
                await asyncio.sleep(_LOOK_EVERY_S)  # what follows it may show the cause
                return _is_dead(server, f"its log says {line[-_LINE_SHOWN:]!r}")
        await asyncio.sleep(_LOOK_EVERY_S)


def _is_deadly(server: Server, line: str) -> bool:
    return any(re.search(pattern, line) for pattern in server.spec.signs.deadly)


async def _death_of_child(server: Server) -> ServerError:
    return _is_dead(server, f"process {await server.vital.end_of_one()} of its engine has ended")


def _is_dead(server: Server, evidence: str) -> ServerError:
    error = ServerError(
        f"The {server.spec.engine} server is running but no longer answers requests: {evidence}.",
        remedy=f"Its log: {server.log.path}",
    )
    return server.explained(error, anything=True)


def _hangs(server: Server, how: str) -> ServerError:
    error = ServerError(
        f"The {server.spec.engine} server hangs: {how}.",
        remedy=f"Its log: {server.log.path}. A model that takes longer for a reply needs a longer --hang-timeout.",
    )
    return server.explained(error)


def _reply_in_words(status: int, body: object) -> str:
    text = printable(str(body))
    return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"


def _in_words(error: Exception) -> str:
    """What a failed connection means; the library's own message names its internals."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else printable(str(error))
