"""Asks an OpenAI-compatible server one question, and retries where that can help."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urljoin

from bundle.client._addresses import join
from bundle.client._asked import Asked, Receiver
from bundle.client._early_decisions import EarlyDecisions
from bundle.client._faults import AttemptError, Fate, key_remedy, unexpected
from bundle.client._keys import Key, KeyRing
from bundle.client._modes import Modes
from bundle.client._origins import Origins
from bundle.client._pace import Patience, RateLimiter, SharedPause, pause_s
from bundle.client._replies import (
    NoReplyError,
    RefusedError,
    Reply,
    as_completion,
    other_model,
    reply_of,
    require_model,
)
from bundle.client._request import RequestBody
from bundle.client._server_info import own_hit_rate
from bundle.client._settings import SCORING, ClientSettings, Endpoint, Scoring
from bundle.client._thinking import KNOWN_MARKS, ThinkingMarks
from bundle.client._transport import Transport
from bundle.system.text import duration, one_line, time_in
from bundle.tasks.prompts import Message, is_plain, trivial

_MOST_BY_CHANCE, _LONGEST_BY_CHANCE = 0.5, 4
"""Of a server's latest requests, how many it may refuse as too many without having a limit that shows; and after how
many refusals a question waits no longer each time."""
_WORTH_A_TIME_S = 60.0
"""A pause from which on it is said when it ends."""
_WORTH_SAYING = 4
"""Pauses in vain after which an outage is mentioned: some seconds."""
_LEAST_LENGTH = 16
"""Tokens; some servers refuse to reply with fewer."""
_STREAMS_ONLY = "complete replies fail: streaming all replies; --stream always does so from the start"
_NO_STREAMS = "streaming fails: requesting complete replies; --stream never does so from the start"


class ChatClient:
    """Asks one model on one server. An async context manager.

    ``docs/remote.md`` says what counts as a reply, what is retried and what ends the run. ``model`` is the served name;
    ``say`` shows one line to the user.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, settings: ClientSettings, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._endpoint = endpoint
        self._base_url = endpoint.base_url
        self._url, self._plain_url = (join(self._base_url, path) for path in ("/chat/completions", "/completions"))
        self._settings = settings
        self._model = model
        self._only_model = model if endpoint.ours else None
        self._marks = KNOWN_MARKS if settings.thinking is None else ThinkingMarks(settings.thinking)
        self._say = say
        self._said: set[str] = set()
        self._keys = KeyRing(endpoint.keys, endpoint.secrets)
        self._body = RequestBody(model, settings.temperature, settings.extra_body)
        self._modes = Modes(settings.stream, settings.retries)
        self._origins = Origins()
        self._limiter = RateLimiter(settings.qps)
        self._patience = Patience(settings.patience_s)
        self._outage = SharedPause()
        self._transport = Transport(endpoint, timeout_s=settings.timeout_s)
        self._heard = False
        self._repeats = 0
        self._refusal: RefusedError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.close()

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self._endpoint.tls

    @property
    def scoring(self) -> Scoring:
        """How the server is asked how likely a text is."""
        return SCORING[self._settings.scoring]

    def silent_for(self) -> float:
        """For how many seconds requests have been in flight without a sign of any response."""
        return self._transport.silent_for()

    @property
    def achieved_qpm(self) -> float:
        """Requests sent in the last 60 seconds, counting every attempt."""
        return float(len(self._limiter.sent))

    @property
    def learned_qps(self) -> float | None:
        """How fast a server that limits the rate of requests is asked; None while that is not known."""
        return self._limiter.learned.per_s

    @property
    def changes(self) -> Sequence[str]:
        """How requests had to be changed for this server, in words."""
        return tuple(self._body.changes)

    def send_always(self, fields: Mapping[str, Any]) -> None:
        """Send further fields with every request from now on, such as ``top_k``, unless the server refuses them."""
        self._body.add(fields)

    async def prefix_cache_hit_rate(self) -> float | None:
        """The share of prompt tokens found in the server's prefix cache since it started, from 0 to 1.

        None if it does not report it, or runs elsewhere: then its figures are not those of this run.
        """
        return await own_hit_rate(self._transport, self._base_url, self._keys.take().value)

    async def ask(
        self,
        messages: Sequence[Message],
        max_out_len: int,
        *,
        fields: Mapping[str, Any] = MappingProxyType({}),
        reading: EarlyDecisions | None = None,
        path: str | None = None,
        begun: Callable[[], None] = lambda: None,
        busy: Callable[[int], None] = lambda in_hand: None,
    ) -> Reply:
        """Ask; retry after a transient fault, or with another key if one is refused.

        Raises NoReplyError if there is no reply, and asking again is not worthwhile; RefusedError if every question
        would meet the same: the server refuses all keys, the model or the address, or cannot be reached.

        Args:
            messages: The conversation so far, or a plain prompt.
            max_out_len: Maximum tokens of the reply.
            fields: Further fields of this request.
            reading: Decides how the reply is read; None for complete replies.
            path: Where to ask, from the server's root; None for the usual.
            begun: Called when the reply starts to arrive, if that can be seen.
            busy: Called when the server says that it is asked too often, with how many other requests it has.
        """
        usual = self._plain_url if is_plain(messages) else self._url
        url = usual if path is None else urljoin(self._base_url, path)
        question = Asked(url, messages, max_out_len, fields, reading, begun)
        try:
            while True:
                key = await self._turn()
                try:
                    reply = await self._attempt(question, key)
                except AttemptError as fault:
                    fault.reason = self._keys.hide(fault.reason)
                    self._heard |= fault.heard
                    if fault.busy:
                        busy(self._transport.in_flight)
                    if not await self._is_to_be_asked_differently(question, fault):
                        await self._prepare_retry(question, key, fault)
                else:
                    if not self._modes.doubts(question, reply):
                        self._note_reply(question, key, reply)
                        return reply
        finally:
            self._modes.end(question)

    async def _turn(self) -> Key:
        """Wait until a request may be sent; return the key to send."""
        now = await self._limiter.turn(self._pause_s)
        key = self._keys.take(now)
        key.sent(now)
        self._outage.sent(now)
        return key

    def _pause_s(self, now: float) -> float:
        if self._refusal is not None:
            raise self._refusal
        return max(self._outage.left_s(now), self._keys.pause_s(now))

    async def _attempt(self, question: Asked, key: Key) -> Reply:
        now = asyncio.get_running_loop().time
        if question.refusal is None:
            question.streams = self._modes.streams(question.reading)
        if question.version != self._body.version:
            question.version = self._body.version
            try:
                question.body = self._body.build(question.messages, question.max_out_len, question.fields)
            except ValueError:
                raise NoReplyError("the question cannot be encoded as UTF-8", 0, 0.0, transient=False) from None
        question.sent_at = now()
        question.receiver = receiver = Receiver(question.reading, question.begun, self._only_model, self._marks)
        body = question.body + self._body.ending(streams=question.streams)
        answer = await self._transport.post(
            question.url, body, key.value, receiver, may_stall=question.tries >= self._settings.retries
        )
        try:
            return self._read(question, receiver, answer, latency_s=now() - question.sent_at)
        except RecursionError:
            raise unexpected("JSON nested too deeply") from None

    def _read(self, question: Asked, receiver: Receiver, answer: object, *, latency_s: float) -> Reply:
        streamed, attempts = receiver.reply, question.attempts
        if streamed is not None and receiver.is_cut:
            reply, origin = streamed.stopped_early(latency_s=latency_s, attempts=attempts), streamed.origin
        else:
            self._modes.require_end(question)
            body = as_completion(answer) if streamed is None else streamed.body()
            require_model(body, self._only_model)
            reply = reply_of(
                body,
                latency_s=latency_s,
                attempts=attempts,
                answer_from_thinking=self._settings.answer_from_thinking,
                marks=self._marks,
            )
            is_nothing = reply.completion_tokens == 0 and not (reply.text.strip() or reply.thinking or reply.logprobs)
            if is_nothing and question.tries < min(1, self._settings.retries):
                raise AttemptError("an empty reply of no tokens", Fate.AGAIN)
            origin = (body.get("id"), body.get("created")) if isinstance(body, Mapping) else (None, None)
        # A server of our own says no such thing: there it is the model's text, and scored.
        if not self._endpoint.ours and question.reading is not None and question.reading.is_error(reply.text):
            raise AttemptError(f"an error as the text of a reply: {one_line(reply.text)}", Fate.AGAIN)
        self._origins.require_own(*origin, reply, question.body)
        receiver.learn(reply)
        return self._to_keep(reply)

    def _to_keep(self, reply: Reply) -> Reply:
        """A reply without secrets, and without the name of the model if that is the one asked for."""
        hide = self._keys.hide_in_reply
        model = other_model(reply.model, self._model)
        text, thinking, model = hide(reply.text), reply.thinking and hide(reply.thinking), model and hide(model)
        if text is reply.text and thinking is reply.thinking and model is reply.model:
            return reply
        return replace(reply, text=text, thinking=thinking, model=model)

    def _note_reply(self, question: Asked, key: Key, reply: Reply) -> None:
        now = asyncio.get_running_loop().time()
        self._heard = True
        self._patience.replied(now)
        self._limiter.learned.replied(now, question.sent_at)
        key.refusals = 0
        key.pause.end(question.sent_at)
        if self._outage.in_vain:
            if self._outage.in_vain >= _WORTH_SAYING:
                self._say("the server is replying again")
            self._outage.end()
        if self._modes.note(question, reply) and question.refusal is not None:
            line = _STREAMS_ONLY if question.streams else _NO_STREAMS
            self._say_once(line, f" ({question.refusal.reason})")
        if question.reading is not None and (doubt := question.reading.unknown_mark) is not None:
            self._say_once(doubt)
        if reply.unusual_end is not None:
            end = self._keys.hide(reply.unusual_end)
            self._say_once(f"treating finish_reason {end!r} as {reply.finish_reason!r}")

    async def _is_to_be_asked_differently(self, question: Asked, fault: AttemptError) -> bool:
        """Whether to ask again in another form, as it may be the form that was refused and not the question."""
        if fault.busy or fault.too_long or fault.fate is Fate.KEY_SPENT:
            return False
        if fault.fate is Fate.NOT_ITS_OWN:
            question.attempts += 1
            self._repeats += 1
            if self._repeats > 1:  # a server whose ids do not differ is only suspected once
                self._say_once("the server sends replies twice; asking again over other connections")
            return True
        if self._modes.has_changed(question):
            return True
        if fault.fate is Fate.UNANSWERED or (fault.fate is Fate.AGAIN and fault.status):
            if question.version != self._body.version:
                return True  # meanwhile the parameters have been adapted
            if (change := self._body.adapt(fault, streams=question.streams)) is not None:
                self._say(f"the server refuses a parameter: {change} ({fault.reason})")
                return True
        return await self._modes.turns(question, fault)

    async def _prepare_retry(self, question: Asked, key: Key, fault: AttemptError) -> None:
        """Wait as long as a fault demands.

        Raises NoReplyError if the question is not to be asked again; RefusedError if no question is.
        """
        fault = self._patience.bounded(self._modes.blamed(question, fault))
        if key.is_useless_after(fault):
            self._drop(key, fault)
            return  # another key is left, and that this one is refused is not the question's fault
        if (fault.busy or fault.outage) and await self._is_waited_out(question, key, fault):
            question.attempts += 1
            if fault.busy and key.pause.in_vain == 0:
                question.refusals += 1
                await asyncio.sleep(pause_s(min(question.refusals, _LONGEST_BY_CHANCE), busy=False))
            return
        question.tries += 1
        if fault.fate is not Fate.AGAIN or question.tries > self._settings.retries:
            if not self._heard:
                raise self._refused(fault)
            latency_s = asyncio.get_running_loop().time() - question.sent_at
            if fault.too_long:
                self._say_once("some prompts are too long for the server", f" ({fault.reason})")
            transient = fault.fate is Fate.AGAIN
            raise NoReplyError(fault.reason, question.attempts, latency_s, transient=transient, too_long=fault.too_long)
        await asyncio.sleep(fault.pause_s if fault.pause_s is not None else pause_s(question.tries, busy=fault.busy))
        question.attempts += 1

    async def _is_waited_out(self, question: Asked, key: Key, fault: AttemptError) -> bool:
        """Pause all requests if it is the server's fault alone: a rate limit, or an outage without any reply.

        A server that refuses some at random, and says neither when to come back nor shows a rate, has no such limit:
        only this question waits. One that replies to something else is not away. Raises RefusedError if that has lasted
        too long.
        """
        pause = key.pause if fault.busy else self._outage
        left_s = 0.0
        if fault.fate is Fate.AGAIN and (fault.busy or question.sent_at >= self._patience.last_reply_at):
            left_s = self._patience.left_s(fault, asyncio.get_running_loop().time())
            if left_s <= 0 and self._patience.is_used_up(fault):
                raise self._refused(fault, waited_s=self._patience.with_fault(fault))
        if left_s <= 0:
            pause.end()
            return False
        if fault.busy:
            key.refused()
            is_limit = fault.pause_s is not None or self.learned_qps is not None or key.share_refused > _MOST_BY_CHANCE
            if not is_limit and not pause.in_vain:
                return True
        is_new = pause.begin(question.sent_at, None if fault.pause_s is None else min(fault.pause_s, left_s))
        if fault.busy:
            self._limiter.learned.refused(asyncio.get_running_loop().time())
        if is_new and fault.pause_s is not None and fault.pause_s >= _WORTH_A_TIME_S:
            until = time_in(fault.pause_s)
            self._say(f"the server asks to wait {duration(fault.pause_s)}, until {until} ({fault.reason})")
        elif fault.busy:
            self._say_once("the server limits the rate of requests; slowing down", f" ({fault.reason})")
        elif pause.in_vain == _WORTH_SAYING:
            waiting = duration(self._patience.with_fault(fault))
            self._say_once(f"no replies at present; retrying for up to {waiting}", f" ({fault.reason})")
        if is_new and fault.outage and pause.in_vain >= _WORTH_SAYING:
            return not await self._replies_to_anything(question, key)
        return True

    async def _replies_to_anything(self, like: Asked, key: Key) -> bool:
        """Ask what every model can reply to, as the last question may be the only one that fails."""
        easy = Asked(like.url, trivial(like.messages), min(like.max_out_len, _LEAST_LENGTH), {}, None, lambda: None)
        try:
            await self._limiter.turn()
            await self._attempt(easy, key)
        except AttemptError:
            return False
        self._patience.replied(asyncio.get_running_loop().time())
        self._outage.end()
        return True

    def _say_once(self, line: str, details: str = "") -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line + details)

    def _drop(self, key: Key, fault: AttemptError) -> None:
        """Use a key no more, and say so; raise if none is left."""
        was_in_use = self._keys.drop(key)
        if not self._keys:
            raise self._refused(fault, key)
        if was_in_use:
            self._say(f"dropped {self._keys.name(key)}, {len(self._keys)} left: {fault.reason}")

    def _refused(self, fault: AttemptError, key: Key | None = None, *, waited_s: float = 0.0) -> RefusedError:
        """What ends the run, for this question and all that follow."""
        reason = fault.reason.rstrip(".。")
        if waited_s:
            message = f"{self._base_url} has not replied for {duration(waited_s)}: {reason}."
        elif key is None:
            message = f"{self._base_url} cannot be used: {reason}."
        elif self._keys.total == 1:
            message = f"{self._base_url} refuses every request: {reason}."
        else:
            message = (
                f"{self._base_url} refuses all {self._keys.total} keys; the last, {self._keys.name(key)}: {reason}."
            )
        remedy = self._keys.hide(key_remedy(fault, sends_a_key=self._keys.sends_a_key))
        if waited_s:
            first = "" if fault.busy else f"{remedy} "
            remedy = f"{first}Continue later with `bundle resume`; --patience TIME waits longer."
        self._refusal = RefusedError(message, remedy=remedy, no_model=fault.no_model)
        return self._refusal
