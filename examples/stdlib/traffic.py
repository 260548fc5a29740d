"""Live queries: the corpus's judged queries, sent to the gateway at a steady rate, whatever becomes of the answers.

    python examples/stdlib/traffic.py URL QUERIES LOG --rate 60 --sessions 400 [--token-file PATH] [--retries 1]

Open-loop: a query is sent when its time has come, not when the one before was answered. Each answer becomes one line of
the log, as it was given. Ends at SIGTERM, once what is under way was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

TOP = 10
FIRST_PAUSE = 0.1
"""Seconds before a query whose connection broke is asked again; twice as many each time."""


class Traffic:
    """One stream of queries."""

    def __init__(
        self, url: str, queries: list[dict[str, str]], log: Path, sessions: int, token: Path | None, retries: int
    ) -> None:
        self._url, self._queries, self._sessions, self._token, self._retries = url, queries, sessions, token, retries
        # Behind a Service a connection stays with one gateway: where another one may answer, each query has its own.
        self._keeps_connections = retries == 0
        self._log = log.open("w", buffering=1)
        self._stopped = asyncio.Event()
        self._seed = random.Random(7)

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()

    async def run(self, rate: float) -> None:
        """Send `rate` queries a second until stopped."""
        # No limit on connections: a query that waits for one would not be sent when its time has come.
        connector = aiohttp.TCPConnector(limit=0, force_close=not self._keeps_connections)
        options = {"connector": connector, "timeout": aiohttp.ClientTimeout(30)}
        async with aiohttp.ClientSession(**options) as client:
            begun, under_way = time.monotonic(), set[asyncio.Task[None]]()
            number = 0
            while not self._stopped.is_set():
                due = begun + number / rate
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.create_task(self._send(client, number, due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
            if under_way:
                await asyncio.wait(under_way)
        self._log.close()

    async def _send(self, client: aiohttp.ClientSession, number: int, due: float) -> None:
        query = self._queries[number % len(self._queries)]
        session = f"session-{self._seed.randrange(self._sessions)}"
        sent = time.monotonic()
        said: dict[str, Any] = {"number": number, "query": query["id"], "session": session, "due": due, "sent": sent}
        body = {"query": query["text"], "topK": TOP, "session": session}
        # Read anew, since the cluster replaces it.
        headers = {"Authorization": f"Bearer {self._token.read_text()}"} if self._token else {}
        for tried in range(self._retries + 1):
            try:
                async with client.post(self._url, json=body, headers=headers) as answer:
                    said["status"] = answer.status
                    if answer.status == 200:
                        found = await answer.json()
                        said |= {name: found[name] for name in ("version", "snapshot", "space", "index", "route")}
                        said["hits"] = [[hit["document"], hit["score"]] for hit in found["results"]]
                    else:
                        said["error"] = (await answer.text())[:300]
                break
            except (aiohttp.ClientError, TimeoutError) as error:
                # No answer at all: whoever was asked has gone, and another one can be asked the same.
                said |= {"status": 0, "error": type(error).__name__, "lost": tried + 1}
                await asyncio.sleep(FIRST_PAUSE * 2**tried)
        said["done"] = time.monotonic()
        self._log.write(json.dumps(said) + "\n")


async def main() -> None:
    """Send queries until SIGTERM."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url")
    arguments.add_argument("queries", type=Path)
    arguments.add_argument("log", type=Path)
    arguments.add_argument("--rate", type=float, default=60.0)
    arguments.add_argument("--sessions", type=int, default=400)
    arguments.add_argument("--token-file", type=Path)
    arguments.add_argument("--retries", type=int, default=0, help="how often to ask again where a connection broke")
    given = arguments.parse_args()
    queries = [json.loads(line) for line in given.queries.read_text().splitlines()]
    traffic = Traffic(given.url, queries, given.log, given.sessions, given.token_file, given.retries)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, traffic.stop)
    await traffic.run(given.rate)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
