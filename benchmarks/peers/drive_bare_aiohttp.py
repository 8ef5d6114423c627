"""The least that can be spent on the requests: prepared bodies, a bare aiohttp loop, nothing written down."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import uvloop

CONCURRENCY = 128


async def _work(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], replies: list[str]) -> None:
    for body in bodies:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            replies.append((await response.json())["choices"][0]["message"]["content"])


async def _ask(base_url: str, bodies: list[bytes]) -> list[str]:
    replies: list[str] = []
    queue = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        workers = [_work(session, f"{base_url}/chat/completions", queue, replies) for _ in range(CONCURRENCY)]
        await asyncio.gather(*workers)
    return replies


def main(base_url: str, data: Path) -> None:
    """Ask everything."""
    with (data / "prompts.jsonl").open(encoding="utf-8") as file:
        bodies = [
            json.dumps({"model": "simulated", "messages": json.loads(line)["messages"], "max_tokens": 2048}).encode()
            for line in file
        ]
    print(len(uvloop.run(_ask(base_url, bodies))), "replies")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
