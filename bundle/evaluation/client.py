"""Asking an OpenAI-compatible server one question, and asking again where that can help."""

import asyncio
import email.utils
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from bundle.errors import BundleError
from bundle.tasks.prompts import Message

_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_REFUSED_STATUS = frozenset({401, 403, 404})
_WHOLE_REPLY = frozenset({"stop", "length"})
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply.

    Attributes:
        text: What the model said; "" where it said nothing.
        finish_reason: "stop" or "length".
        prompt_tokens: As counted by the server, None where it did not say.
        completion_tokens: Likewise.
        latency_s: Seconds the successful attempt took.
        attempts: How often it was asked, this time included.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    attempts: int


class NoReplyError(Exception):
    """A question stays without a reply, after as many attempts as were worth it."""

    def __init__(self, reason: str, attempts: int, latency_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.attempts = attempts
        self.latency_s = latency_s


class RefusedError(BundleError):
    """The server refuses in a way that every other question would meet as well."""

    exit_code = 3


class _AttemptError(Exception):
    """One attempt brought no reply."""

    def __init__(self, reason: str, *, retry: bool, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
        self.pause_s = pause_s


class ChatClient:
    """Asks one model on one server. An async context manager.

    Args:
        base_url: Up to and including ``/v1``.
        api_key: Sent as a bearer token.
        model: The served name.
        temperature: 0 for greedy.
        max_out_len: Most tokens a reply may have.
        timeout_s: Most seconds an attempt may take.
        retries: How often a question is asked again.
        proxies: Whether the proxies of the environment are used; a server on loopback is never behind one.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        *,
        temperature: float,
        max_out_len: int,
        timeout_s: float,
        retries: int,
        proxies: bool,
    ) -> None:
        self._sampling = {"model": model, "temperature": temperature, "max_tokens": max_out_len}
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._retries = retries
        # Retrying is done here and not in the package: it must know how often, and see through a broken body as well.
        self._openai = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=DefaultAioHttpClient(trust_env=proxies),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """Ask, and ask again after a passing fault.

        Raises:
            NoReplyError: There is no reply and asking again is not worth it.
            RefusedError: The server refuses this key, model or address; every question would be refused.
        """
        body = {"messages": messages, **self._sampling}
        attempt = 0
        while True:
            attempt += 1
            started = time.perf_counter()
            try:
                answer = await self._post(body)
                return _reply(answer, time.perf_counter() - started, attempt)
            except _AttemptError as failure:
                if not failure.retry or attempt > self._retries:
                    raise NoReplyError(failure.reason, attempt, time.perf_counter() - started) from None
                pause = failure.pause_s
                if pause is None:
                    pause = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)  # noqa: S311
                await asyncio.sleep(pause)

    async def _post(self, body: Mapping[str, Any]) -> Any:
        try:
            # The typed `chat.completions.create` validates every message again and costs four times as much.
            async with asyncio.timeout(self._timeout_s):
                return await self._openai.post("/chat/completions", body=body, cast_to=object)
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except (openai.APIConnectionError, TimeoutError) as error:
            # The package calls a refused connection a timeout; what it comes from tells them apart.
            if isinstance(_root(error), TimeoutError | asyncio.CancelledError):
                raise _AttemptError(f"no reply within {self._timeout_s:g} s", retry=True) from None
            raise _AttemptError(f"connection failed: {_described(_root(error))}", retry=True) from None
        except (openai.APIError, ValueError) as error:
            raise _AttemptError(
                f"the reply is not what the API promises: {_described(_root(error))}", retry=True
            ) from None

    def _status_failure(self, error: openai.APIStatusError) -> _AttemptError:
        status, said = error.status_code, _said(error)
        if status in _REFUSED_STATUS:
            remedy = {
                401: "Check the API key.",
                403: "Check that the API key may use this model.",
                404: "Check the base URL and the model's name.",
            }[status]
            raise RefusedError(f"{self._base_url} refuses every request with HTTP {status}: {said}", remedy=remedy)
        retry = status in _RETRIED_STATUS or status >= 500
        return _AttemptError(f"HTTP {status}: {said}", retry=retry, pause_s=_retry_after(error.response.headers))


def _reply(answer: Any, latency_s: float, attempts: int) -> Reply:
    """Take the reply out of a response body; one that is none raises ``_AttemptError``.

    Null content is an empty reply. A finish reason other than "stop" and "length" means that the server gave up
    ("abort", "error") or withheld the text ("content_filter"), and that is no reply.
    """
    try:
        choice = answer["choices"][0]
        text, finish_reason = choice["message"]["content"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        raise _AttemptError(f"the reply is not what the API promises: {str(answer)[:200]}", retry=True) from None
    if finish_reason not in _WHOLE_REPLY or not isinstance(text, str | None):
        retry = finish_reason != "content_filter"
        raise _AttemptError(f"the server ended the reply with {str(finish_reason)[:50]!r}", retry=retry)
    usage = answer.get("usage") or {}
    return Reply(
        text=text or "",
        finish_reason=finish_reason,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        latency_s=latency_s,
        attempts=attempts,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks, in either form of the header (RFC 9110, 10.2.3), or None."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 10 * _LONGEST_PAUSE_S)


def _said(error: openai.APIStatusError) -> str:
    """What the server said of an error, in one bounded line."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body or error.response.reason_phrase).split())[:300]


def _root(error: BaseException) -> BaseException:
    """What a chain of exceptions began with."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def _described(error: BaseException) -> str:
    """An exception in one bounded line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
