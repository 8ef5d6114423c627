"""Notices that a server which was ready is of no more use: that it has died, or hangs."""

import asyncio
import time
from collections.abc import Callable

from bundle.errors import ServerError
from bundle.serving.supervisor import Server

HEALTH_SILENCE_S = 60.0
"""A server whose health check has not answered for so long hangs. A busy one may take seconds."""

_HEALTH_EVERY_S = 2.0
_HEALTH_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.5


async def wait_for_trouble(
    server: Server,
    silent_for: Callable[[], float],
    silence_s: float,
    *,
    health_silence_s: float = HEALTH_SILENCE_S,
) -> ServerError:
    """Return, when a server has died or hangs, an error that says which. Does not raise it.

    Args:
        server: Which was ready.
        silent_for: For how many seconds requests have been in flight without a sign of any of their replies.
        silence_s: A server that is silent for so long hangs, also if its health check answers.
        health_silence_s: One whose health check does not answer for so long hangs too.
    """
    watches = {
        asyncio.ensure_future(server.wait_for_death()),
        asyncio.ensure_future(_silence_of_requests(server, silent_for, silence_s)),
        asyncio.ensure_future(_silence_of_health(server, health_silence_s)),
    }
    try:
        done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


# Both count the time in which they looked, not the clock's: where this program was stopped for a while (Ctrl-Z, a
# laptop that was closed), nobody was there to hear the server.


async def _silence_of_requests(server: Server, silent_for: Callable[[], float], silence_s: float) -> ServerError:
    pause = min(_LOOK_EVERY_S, silence_s / 2)
    silent = 0.0
    while silent < silence_s:
        await asyncio.sleep(pause)
        silent = min(silent + pause, silent_for())
    return _hangs(server, f"no reply, nor any part of one, for {silence_s:g} s")


async def _silence_of_health(server: Server, silence_s: float) -> ServerError:
    import aiohttp

    pause, limit = min(_HEALTH_EVERY_S, silence_s / 2), min(_HEALTH_TIMEOUT_S, silence_s)
    silent = 0.0
    # A new connection each time: what hangs may still hold an old one open.
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=limit)
    async with aiohttp.ClientSession(trust_env=False, connector=connector, timeout=timeout) as http:
        while silent < silence_s:
            began = time.monotonic()
            try:
                async with http.get(server.base_url.removesuffix("/v1") + "/health") as reply:
                    # Whatever it says, it says something; whether replies come is another's to watch.
                    await reply.read()
                silent = 0.0
            except (aiohttp.ClientError, OSError, TimeoutError):
                silent += min(time.monotonic() - began, limit) + pause
            await asyncio.sleep(pause)
    return _hangs(server, f"its health check has not answered for {silence_s:g} s")


def _hangs(server: Server, how: str) -> ServerError:
    return ServerError(
        f"The {server.engine} server hangs: {how}.",
        remedy="See what it printed last in server.log. A model that takes longer for a reply needs a longer "
        "--hang-timeout.",
    )
