"""The engine of the simulated server, in a time that a test hands in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.batching import Engine, Request, State
from benchmarks.ideal import duration_s, ideal
from benchmarks.parameters import Batching, Parameters, Replying, read_parameters
from benchmarks.prefix_cache import PrefixCache, block_keys

TWO_SLOTS = Batching(slots=2, prefill_ms=30, ms_per_token=10)


def engine_for(batching: Batching, blocks: int = 100) -> Engine:
    return Engine(batching, PrefixCache(blocks))


def request(steps: int, prompt_tokens: int = 100, blocks: tuple[int, ...] = ()) -> Request:
    return Request(prompt_tokens, blocks, steps)


def run_to_the_end(engine: Engine) -> float:
    now = 0.0
    while (at := engine.next_event()) is not None:
        now = at
        engine.advance(now)
    return now


def test_a_reply_takes_its_prefill_and_a_step_for_every_token() -> None:
    engine = engine_for(TWO_SLOTS)
    one = request(steps=3)
    engine.submit(one, 0.0)

    assert engine.advance(0.039) == {}
    assert list(engine.advance(0.041)) == [one]
    assert one.generated == 1
    assert run_to_the_end(engine) == pytest.approx(0.060)
    assert one.state is State.FINISHED


def test_a_request_without_a_slot_waits_for_one() -> None:
    engine = engine_for(TWO_SLOTS)
    for _ in range(3):
        engine.submit(request(steps=1), 0.0)

    assert (engine.running, engine.waiting) == (2, 1)
    assert run_to_the_end(engine) == pytest.approx(2 * 0.040)
    assert engine.counters.most_running == 2
    assert engine.counters.slot_seconds == pytest.approx(3 * 0.040)


def test_who_becomes_ready_during_a_step_joins_with_the_next_one() -> None:
    engine = engine_for(TWO_SLOTS)
    early, late = request(steps=3), request(steps=1)
    engine.submit(early, 0.0)
    engine.advance(0.005)
    engine.submit(late, 0.005)  # ready at 35 ms, between the steps that end at 40 and 50 ms

    engine.advance(0.0451)
    assert late.generated == 0
    engine.advance(0.0501)
    assert late.state is State.FINISHED


def test_a_larger_batch_makes_steps_longer_where_the_parameters_say_so() -> None:
    batching = Batching(slots=4, ms_per_token=10, ms_per_token_per_request=1)
    assert duration_s(Parameters(description="", batching=batching), [request(1)] * 1) == pytest.approx(0.011)
    engine = engine_for(batching)
    for _ in range(4):
        engine.submit(request(steps=1), 0.0)
    assert run_to_the_end(engine) == pytest.approx(0.014)


def test_cancelling_frees_the_slot_after_the_step_under_way_and_counts_what_was_not_generated() -> None:
    engine = engine_for(TWO_SLOTS)
    long, other, waiting = request(steps=100), request(steps=100), request(steps=1)
    for one in (long, other, waiting):
        engine.submit(one, 0.0)
    engine.advance(0.055)
    engine.cancel(long, 0.055)

    assert (engine.running, engine.waiting) == (2, 1)
    engine.advance(0.0601)
    assert (engine.running, engine.waiting) == (2, 0)
    assert engine.counters.tokens_cancelled == 100 - long.generated == 97
    engine.advance(0.1001)  # ready at 90 ms, where a step begins
    assert waiting.state is State.FINISHED


def test_cancelling_during_the_prefill_leaves_nothing_in_the_prefix_cache() -> None:
    cache = PrefixCache(100)
    engine = Engine(TWO_SLOTS, cache)
    one = request(steps=1, blocks=(1, 2))
    engine.submit(one, 0.0)
    engine.cancel(one, 0.01)
    assert run_to_the_end(engine) == 0.0
    assert len(cache) == 0


def test_only_what_is_not_in_the_prefix_cache_is_computed() -> None:
    engine = engine_for(Batching(slots=1, prefill_ms=10, prefill_ms_per_1000_tokens=100, ms_per_token=1))
    shared = block_keys("x" * 300, 50)
    for _ in range(2):
        engine.submit(request(steps=1, prompt_tokens=400, blocks=shared), 0.0)

    # 10 + 40 + 1 ms for the first; of the second, six blocks of 64 tokens are cached.
    assert run_to_the_end(engine) == pytest.approx(0.051 + 0.0126)
    assert engine.counters.cached_tokens == 384


def test_prompts_asked_at_the_same_time_cannot_use_each_other() -> None:
    engine = engine_for(Batching(slots=2, prefill_ms=10, prefill_ms_per_1000_tokens=100))
    for _ in range(2):
        engine.submit(request(steps=1, prompt_tokens=400, blocks=(1, 2, 3)), 0.0)
    run_to_the_end(engine)
    assert engine.counters.cached_tokens == 0


def test_prompts_are_computed_no_more_at_once_than_the_parameters_say() -> None:
    engine = engine_for(Batching(slots=8, prefill_ms=10, prefills_at_once=2))
    for _ in range(4):
        engine.submit(request(steps=1), 0.0)
    assert run_to_the_end(engine) == pytest.approx(0.020)


def test_the_least_recently_used_block_is_the_first_to_go() -> None:
    cache = PrefixCache(3)
    cache.insert((1, 2))
    cache.insert((3,))
    assert cache.look_up((1,)) == 1
    cache.insert((4,))
    assert cache.look_up((1, 2)) == 1
    assert cache.look_up((3,)) == 1
    assert (cache.hits, cache.misses, cache.distinct) == (3, 1, 3)


def test_equal_blocks_after_different_beginnings_are_different() -> None:
    assert block_keys("aaaabbbb", 4)[1] != block_keys("ccccbbbb", 4)[1]
    assert block_keys("aaaabbbb", 4)[:1] == block_keys("aaaacccc+", 4)[:1]


def test_the_ideal_of_the_small_model_is_eleven_rounds() -> None:
    best = ideal(read_parameters("small_model"), 1346)
    assert best.whole_s == pytest.approx(11 * (0.030 + 5 * 0.008))
    assert best.cut_s == pytest.approx(11 * (0.030 + 3 * 0.008))


def test_a_reply_that_begins_with_the_letter_is_cheap_to_cut_and_one_that_ends_with_it_is_not() -> None:
    early, late = (ideal(read_parameters(name), 1346) for name in ("explaining", "explaining_late"))
    assert early.whole_s == late.whole_s == pytest.approx(11 * (0.030 + 121 * 0.008))
    assert early.cut_s == pytest.approx(11 * 0.038)
    assert late.cut_s == pytest.approx(11 * (0.030 + 119 * 0.008))


def test_the_ideal_counts_prompts_where_they_are_costly() -> None:
    batching = Batching(slots=100, prefill_ms_per_1000_tokens=10, prefills_at_once=1)
    parameters = Parameters(description="", batching=batching, replying=Replying(style="letter"))
    assert ideal(parameters, 50, computed_tokens=50_000).whole_s == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40), st.booleans()), min_size=1, max_size=30), st.data())
def test_whenever_clients_go_every_request_and_token_is_accounted_for(
    plan: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, 4))
    engine = engine_for(
        Batching(slots=slots, prefill_ms=3, ms_per_token=2, prefills_at_once=data.draw(st.integers(0, 2)))
    )
    requests = []
    now = 0.0
    for steps, pause_ms, goes in plan:
        now += pause_ms / 1000
        engine.advance(now)
        requests.append(request(steps))
        engine.submit(requests[-1], now)
        if goes:
            engine.cancel(data.draw(st.sampled_from(requests)), now)
        assert engine.running <= slots
    run_to_the_end(engine)

    done = engine.counters
    assert (engine.running, engine.waiting) == (0, 0)
    assert done.requests == done.finished + done.cancelled == len(plan)
    assert done.tokens_generated == sum(one.generated for one in requests)
    assert done.tokens_generated + done.tokens_cancelled == sum(one.steps for one in requests)
    assert all(one.generated == one.steps or one.state is State.CANCELLED for one in requests)
