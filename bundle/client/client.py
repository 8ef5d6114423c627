"""Asking an OpenAI-compatible server one question, and asking again where that can help."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

from bundle.client.backoff import pause_s
from bundle.client.connection import Connection
from bundle.client.early_decisions import EarlyDecisions
from bundle.client.endpoint import is_loopback
from bundle.client.faults import AttemptError, Fate
from bundle.client.keys import Key, KeyRing
from bundle.client.limiter import RateLimiter
from bundle.client.replies import NoReplyError, RefusedError, Reply, reply_of, require_model
from bundle.client.server_metrics import prefix_cache_hit_rate
from bundle.client.streaming import StreamedReply
from bundle.tasks.prompts import Message

__all__ = ["ChatClient", "NoReplyError", "RefusedError", "Reply"]

_REFUSALS_IN_A_ROW = 10
_METRICS_TIMEOUT_S = 1.0
_STREAMED = b',"stream":true,"stream_options":{"include_usage":true}}'


class ChatClient:
    """Asks one model on one server. An async context manager.

    What is asked again, what is not and what ends the run is told by `bundle.client.faults`, what a reply is by
    `bundle.client.replies`, and both by ``docs/remote.md``.

    Args:
        base_url: What ``/chat/completions`` is appended to; see `bundle.client.endpoint.normalise_base_url`.
        keys: Sent as bearer tokens, in turn; none for a server without keys.
        model: The served name.
        temperature: 0 for greedy.
        timeout_s: Most seconds an attempt may take, not counting the wait for its turn.
        retries: How often a question is asked again after a passing fault.
        proxies: Whether the proxies of the environment are used; a server on loopback is never behind one.
        qps: Most requests a second, every attempt counted; None for no limit.
        answer_from_thinking: Whether thinking is the reply's text where there is no other.
        only_this_model: Whether a reply that names another model is none. A server of our own names what it was asked
            for; others answer "gpt-4o" with "gpt-4o-2024-08-06".
        say: Told when a key is dropped while others are left.
    """

    def __init__(
        self,
        base_url: str,
        keys: Sequence[str],
        model: str,
        *,
        temperature: float,
        timeout_s: float,
        retries: int,
        proxies: bool,
        qps: float | None = None,
        answer_from_thinking: bool = False,
        only_this_model: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._base_url = base_url
        self._url = f"{base_url}/chat/completions"
        self._keys = KeyRing(keys)
        self._sampling = {"model": model, "temperature": temperature}
        self._retries = retries
        self._answer_from_thinking = answer_from_thinking
        self._only_model = model if only_this_model else None
        self._say = say
        self._limiter = RateLimiter(qps)
        self._connection = Connection(base_url, timeout_s=timeout_s, proxies=proxies)
        self._heard = False
        self._can_stream = True
        self._has_streamed = False
        self._refusal: RefusedError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self._base_url.startswith("https:")

    def silent_for(self) -> float:
        """For how many seconds requests have been in flight without a sign of any of their replies."""
        return self._connection.silent_for()

    @property
    def achieved_qpm(self) -> float:
        """Requests sent in the last 60 seconds, every attempt counted."""
        return float(self._limiter.last_minute)

    async def prefix_cache_hit_rate(self) -> float | None:
        """The share of prompt tokens that the server had in its prefix cache, from 0 to 1, since it was started.

        None where it does not say, and where it is somebody else's: then it is none of this run's.
        """
        if not is_loopback(self._base_url):
            return None
        try:
            async with asyncio.timeout(_METRICS_TIMEOUT_S):
                metrics = await self._connection.get(urljoin(self._base_url, "/metrics"), self._keys.take().value)
        except (AttemptError, TimeoutError):
            return None
        return prefix_cache_hit_rate(metrics) if isinstance(metrics, str) else None

    async def ask(
        self,
        messages: Sequence[Message],
        max_out_len: int,
        *,
        reading: EarlyDecisions | None = None,
        begun: Callable[[], None] = lambda: None,
        busy: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Ask, and ask again after a passing fault, or with another key where one is refused.

        Args:
            messages: The conversation so far.
            max_out_len: Most tokens the reply may have.
            reading: Says how the reply is read; None for whole replies.
            begun: Called when the reply begins to come, where that can be seen.
            busy: Called when the server says that it is asked too often.

        Raises:
            NoReplyError: There is no reply and asking again is not worth it.
            RefusedError: The server refuses all keys, the model or the address, or there is no such server; every
                question would meet that.
        """
        body = self._body(messages, max_out_len)
        attempt = 1
        while True:
            await self._limiter.turn()
            if self._refusal is not None:
                raise self._refusal
            key = self._keys.take()
            streamed = reading.begin() if reading is not None and self._can_stream else None
            started = time.perf_counter()
            try:
                if reading is None or streamed is None:
                    reply = await self._whole(body, key.value, attempt)
                    if reading is not None:
                        reading.whole(reply.completion_tokens, took_text_back=reply.took_text_back)
                else:
                    reply = await self._streamed(body, key.value, attempt, streamed, reading, begun)
            except AttemptError as fault:
                self._heard |= fault.heard
                if streamed is not None and fault.fate is Fate.UNANSWERED and not self._has_streamed:
                    self._can_stream = False  # what is refused may be the stream and not the question
                    continue
                if self._is_done_with(key, fault):
                    continue  # another key is left, and that this one is refused is not the question's fault
                if fault.fate is not Fate.AGAIN or attempt > self._retries:
                    if not self._heard:
                        raise self._refused(fault) from None
                    reason = self._keys.hide(fault.reason)
                    passing = fault.fate is Fate.AGAIN
                    raise NoReplyError(reason, attempt, time.perf_counter() - started, passing=passing) from None
                if fault.busy:
                    busy()
                pause = fault.pause_s if fault.pause_s is not None else pause_s(attempt, busy=fault.busy)
                await asyncio.sleep(pause)
                attempt += 1
            else:
                self._heard = True
                key.refusals = 0
                return reply

    def _body(self, messages: Sequence[Message], max_out_len: int) -> bytes:
        body = {**self._sampling, "messages": messages, "max_tokens": max_out_len}
        try:
            return json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise NoReplyError(f"the question cannot be sent as UTF-8: {error.reason}", 0, 0.0, passing=False) from None

    async def _whole(self, body: bytes, key: str | None, attempt: int) -> Reply:
        started = time.perf_counter()
        return self._reply(await self._connection.post(self._url, body, key), started, attempt)

    async def _streamed(
        self,
        body: bytes,
        key: str | None,
        attempt: int,
        streamed: StreamedReply,
        reading: EarlyDecisions,
        begun: Callable[[], None],
    ) -> Reply:
        cut = False

        def take(event: object) -> bool:
            nonlocal cut
            require_model(event, self._only_model)
            streamed.take(event)
            if streamed.pieces == 1:
                begun()
            cut = reading.is_enough(streamed)
            return not cut

        started = time.perf_counter()
        # The braces of an object that has members already: to build it a second time would cost more.
        answer = await self._connection.post_streamed(self._url, body[:-1] + _STREAMED, key, take)
        if answer is not None:
            self._can_stream = False
            return self._reply(answer, started, attempt)
        self._has_streamed = True
        if not cut:
            reply = self._reply(streamed.body(), started, attempt)
            reading.streamed(streamed, cut=False)
            return reply
        reading.streamed(streamed, cut=True)
        return Reply(
            text=streamed.text,
            finish_reason=None,
            prompt_tokens=None,
            completion_tokens=None,
            cached_tokens=None,
            latency_s=time.perf_counter() - started,
            attempts=attempt,
            thinking=streamed.thinking,
            decided_early=True,
        )

    def _reply(self, answer: object, started: float, attempt: int) -> Reply:
        latency_s = time.perf_counter() - started
        require_model(answer, self._only_model)
        return reply_of(answer, latency_s=latency_s, attempts=attempt, answer_from_thinking=self._answer_from_thinking)

    def _is_done_with(self, key: Key, fault: AttemptError) -> bool:
        """Drop a key that is of no more use, and say so; raise where none is left.

        A refusal of a key that has brought replies may concern one question, as where a gateway answers 403 to what its
        filter dislikes. It is taken for a refusal of every question when nothing else comes back any more.
        """
        if fault.fate is Fate.REFUSED and key.refusals is not None:
            key.refusals += 1
            if key.refusals < _REFUSALS_IN_A_ROW:
                return False
        elif fault.fate not in (Fate.REFUSED, Fate.KEY_SPENT):
            return False
        was_in_use = self._keys.drop(key)
        if not self._keys:
            raise self._refused(fault, key)
        if was_in_use:
            reason = self._keys.hide(fault.reason)
            self._say(f"{self._keys.name(key)} is dropped, {len(self._keys)} left: {reason}")
        return True

    def _refused(self, fault: AttemptError, key: Key | None = None) -> RefusedError:
        """What ends the run, for this question and all that come after it."""
        reason = self._keys.hide(fault.reason).rstrip(".")
        if key is None:
            message = f"No question can be asked at {self._base_url}: {reason}."
        elif self._keys.total == 1:
            message = f"{self._base_url} refuses every request: {reason}."
        else:
            message = (
                f"{self._base_url} refuses all {self._keys.total} keys; the last, {self._keys.name(key)}: {reason}."
            )
        self._refusal = RefusedError(message, remedy=fault.remedy)
        return self._refusal
