"""How long many servers take for many questions, on a simulated clock: the table in ``docs/scale.md``.

    python -m benchmarks.leases

The leases are those of a run, a server has 256 requests in flight, and a token takes 10 ms.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

from bundle.evaluation._leases import Pool
from bundle.tasks.catalog import Question
from bundle.tasks.scores import Key
from tests.evaluation.simulated_clock import run_simulated
from tests.evaluation.test_leases import questions

_WIDTH = 256
_TOKEN_S = 0.01
_SUBJECT = 200
"""Questions."""


async def ask_all(asked: Sequence[Question], reply_s: Mapping[Key, float], slowness: Sequence[float]) -> float:
    """Seconds until the last reply, of servers that are so many times slower."""
    pool = Pool(len(slowness))
    pool.add(asked)

    async def ask(server: int) -> None:
        while (question := await pool.next(server, _WIDTH)) is not None:
            pool.read(server, question.key)
            await asyncio.sleep(reply_s[question.key] * slowness[server])
            pool.ended(server, question.key)

    for server in range(len(slowness)):
        pool.when_called_off(server, lambda key: None)
    async with asyncio.TaskGroup() as group:
        for server in range(len(slowness)):
            for _ in range(_WIDTH):
                group.create_task(ask(server))
    return asyncio.get_running_loop().time()


def main() -> None:
    """Print the table."""
    lot = random.Random(1)  # noqa: S311 - nothing is secret
    short = {one.key: one for one in questions(*[_SUBJECT] * 120)}
    thinking = {one.key: one for one in questions(*[_SUBJECT] * 125)}
    tokens = {
        "short": dict.fromkeys(short, 52.0),
        "with thinking": {key: min(2048.0, lot.lognormvariate(5.6, 0.8)) for key in thinking},
    }
    for name, asked in (("short", short), ("with thinking", thinking)):
        reply_s = {key: _TOKEN_S * count for key, count in tokens[name].items()}
        for servers in (1, 8, 64):
            for slowest in (1.0, 3.0) if servers > 1 else (1.0,):
                slowness = [slowest, *[1.0] * (servers - 1)]
                took_s = run_simulated(ask_all(list(asked.values()), reply_s, slowness))
                print(
                    f"{len(asked):,} {name}, {servers} servers, one {slowest:g} times slower: {took_s:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
