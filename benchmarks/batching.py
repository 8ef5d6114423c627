"""Continuous batching as an inference engine does it, in a time that is handed in.

Nothing here waits. The server moves the time on with the clock, the computation of the ideal as fast as it can; so both
follow the same rules.

The rules: requests get slots in the order they came. One with a slot has its prompt computed, and then takes part in
decoding. A decoding step brings every request in the batch one token; who becomes ready during a step joins with the
next one. A request that has all its tokens frees its slot at once. So does one whose client has gone, but for the
decoding step that is under way: it is not broken off, and its token counts (vLLM: none to two tokens per request).
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from benchmarks.parameters import Batching
from benchmarks.prefix_cache import PrefixCache


class State(Enum):
    """Where a request is."""

    WAITING = auto()
    PREFILL_WAITING = auto()
    PREFILLING = auto()
    DECODING = auto()
    FINISHED = auto()
    CANCELLED = auto()


@dataclass(slots=True, eq=False)
class Request:
    """One request in the engine.

    Attributes:
        prompt_tokens: Length of the prompt.
        blocks: Keys of its blocks, for the prefix cache.
        steps: Decoding steps it takes.
        generated: Steps done, which is tokens.
        cached_tokens: Prompt tokens found in the prefix cache.
        slot_since: When it got its slot.
    """

    prompt_tokens: int
    blocks: Sequence[int]
    steps: int
    state: State = State.WAITING
    generated: int = 0
    cached_tokens: int = 0
    slot_since: float = 0.0


@dataclass(slots=True)
class Counters:
    """What an engine has done.

    Attributes:
        requests: Requests that came.
        finished: Of these, those that got all their tokens.
        cancelled: Of these, those whose client went before.
        prompt_tokens: Tokens of prompts that were computed or found in the cache.
        cached_tokens: Of these, those found in the cache.
        tokens_generated: Tokens brought by decoding steps.
        tokens_cancelled: Tokens that were never generated because the client went.
        slot_seconds: Time during which slots were taken, for requests that have left theirs.
        most_running: Most slots taken at once.
    """

    requests: int = 0
    finished: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens_generated: int = 0
    tokens_cancelled: int = 0
    slot_seconds: float = 0.0
    most_running: int = 0


class Engine:
    """The engine.

    Args:
        batching: What it costs.
        cache: Its prefix cache.
    """

    def __init__(self, batching: Batching, cache: PrefixCache) -> None:
        self._batching = batching
        self._cache = cache
        self._lanes = batching.prefills_at_once or batching.slots
        self._waiting: deque[Request] = deque()
        self._prefill_waiting: deque[Request] = deque()
        self._prefilling: list[tuple[float, int, Request]] = []
        self._prefills_started = 0
        self._prefills_running = 0
        self._decoding: dict[Request, None] = {}
        self._joining: list[Request] = []
        self._step_end: float | None = None
        self.running = 0
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return sum(request.state is State.WAITING for request in self._waiting)

    def submit(self, request: Request, now: float) -> None:
        """A request comes. The engine must have been brought up to ``now``."""
        self.counters.requests += 1
        self._waiting.append(request)
        self._admit(now)

    def cancel(self, request: Request, now: float) -> None:
        """A request's client has gone: its slot is free as soon as the decoding step that it is part of is over.

        The engine must have been brought up to ``now``.
        """
        if request.state in (State.FINISHED, State.CANCELLED):
            return
        state, request.state = request.state, State.CANCELLED
        self.counters.cancelled += 1
        if request in self._decoding:
            return  # until the end of the step
        self.counters.tokens_cancelled += request.steps - request.generated
        if state is State.WAITING:
            return  # it is passed over when its turn comes
        if state is State.PREFILLING:
            self._prefills_running -= 1
        self._leave(request, now)
        self._admit(now)

    def next_event(self) -> float | None:
        """When something happens next; None while there is nothing to do."""
        while self._prefilling and self._prefilling[0][2].state is State.CANCELLED:
            heapq.heappop(self._prefilling)
        if not self._prefilling:
            return self._step_end
        ready = self._prefilling[0][0]
        return ready if self._step_end is None else min(ready, self._step_end)

    def advance(self, now: float) -> dict[Request, None]:
        """Bring the engine up to ``now``; return the requests that got tokens, in the order they did."""
        progressed: dict[Request, None] = {}
        while (at := self.next_event()) is not None and at <= now:
            while self._prefilling and self._prefilling[0][0] <= at:
                self._end_prefill(heapq.heappop(self._prefilling)[2])
            if self._step_end is not None and self._step_end <= at:
                self._step_end = None
                progressed |= self._decoding
                self._end_step(at)
            self._start_prefills(at)
            self._admit(at)
            self._start_step(at)
        return progressed

    def _admit(self, now: float) -> None:
        while self._waiting and self.running < self._batching.slots:
            request = self._waiting.popleft()
            if request.state is State.CANCELLED:
                continue
            request.state = State.PREFILL_WAITING
            request.slot_since = now
            self.running += 1
            self.counters.most_running = max(self.counters.most_running, self.running)
            self._prefill_waiting.append(request)
        self._start_prefills(now)

    def _start_prefills(self, now: float) -> None:
        while self._prefill_waiting and self._prefills_running < self._lanes:
            request = self._prefill_waiting.popleft()
            if request.state is State.CANCELLED:
                continue
            request.state = State.PREFILLING
            self._prefills_running += 1
            self._prefills_started += 1
            found = self._cache.look_up(request.blocks)
            # The last token is always computed: the first one of the reply follows from it.
            request.cached_tokens = min(found * self._cache.tokens_per_block, request.prompt_tokens - 1)
            self.counters.prompt_tokens += request.prompt_tokens
            self.counters.cached_tokens += request.cached_tokens
            computed = request.prompt_tokens - request.cached_tokens
            cost_ms = self._batching.prefill_ms + self._batching.prefill_ms_per_1000_tokens * computed / 1000
            heapq.heappush(self._prefilling, (now + cost_ms / 1000, self._prefills_started, request))

    def _end_prefill(self, request: Request) -> None:
        if request.state is State.CANCELLED:
            return
        self._prefills_running -= 1
        self._cache.insert(request.blocks)
        request.state = State.DECODING
        self._joining.append(request)

    def _start_step(self, now: float) -> None:
        if self._step_end is not None:
            return
        self._decoding |= dict.fromkeys(one for one in self._joining if one.state is State.DECODING)
        self._joining.clear()
        if self._decoding:
            cost_ms = self._batching.ms_per_token + self._batching.ms_per_token_per_request * len(self._decoding)
            self._step_end = now + cost_ms / 1000

    def _end_step(self, now: float) -> None:
        self.counters.tokens_generated += len(self._decoding)
        ended = []
        for request in self._decoding:
            request.generated += 1
            if request.generated == request.steps or request.state is State.CANCELLED:
                ended.append(request)
        for request in ended:
            del self._decoding[request]
            if request.state is State.CANCELLED:
                self.counters.tokens_cancelled += request.steps - request.generated
            else:
                request.state = State.FINISHED
                self.counters.finished += 1
            self._leave(request, now)

    def _leave(self, request: Request, now: float) -> None:
        self.running -= 1
        self.counters.slot_seconds += now - request.slot_since
