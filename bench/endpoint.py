"""How fast is our client of embedding endpoints, against a server that costs nothing?

A null server in a process of its own answers every batch with vectors made beforehand. Our client and OpenAI's
official one take turns over the same texts in batches of the same size, one request at a time, and end with the
same array; what is left is the cost of the clients. Run: `python bench/endpoint.py [DIMENSIONS ...]`.
"""

from __future__ import annotations

import base64
import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

import numpy as np
import openai as official
import orjson

from pointsman.access import Access
from pointsman.embedders import pacing
from pointsman.embedders.openai import OpenAI

BATCH = pacing.FIRST_TEXTS
TEXTS, ROUNDS = 4096, 7


@functools.cache
def answer(texts: int, dimensions: int, is_base64: bool) -> bytes:
    vectors = np.random.default_rng(1).standard_normal((texts, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.tobytes()).decode() if is_base64 else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    return orjson.dumps({"object": "list", "data": data, "model": "null", "usage": {"total_tokens": 1}})


def serve(dimensions: int, ready: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            body = answer(len(request["input"]), dimensions, request.get("encoding_format") == "base64")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def measure(texts: list[str], dimensions: int, rounds: int, url: str) -> None:
    client = official.OpenAI(base_url=url, api_key="none", max_retries=0)
    ours = OpenAI(url, "null", dimensions, Access(allow_loopback=True), concurrency=1)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]

    def by_ours() -> np.ndarray:
        return np.concatenate([ours.embed(batch) for batch in batches])

    def by_official() -> np.ndarray:
        found = [client.embeddings.create(model="null", input=batch) for batch in batches]
        return np.concatenate([np.array([item.embedding for item in each.data], dtype=np.float32) for each in found])

    assert np.abs(by_ours() - by_official()).max() < 1e-6
    rates: dict[str, list[float]] = {"ours": [], "official": []}
    for _ in range(rounds):
        rates["ours"].append(len(texts) / seconds(by_ours))
        rates["official"].append(len(texts) / seconds(by_official))
    ours.close()
    client.close()
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["official"], strict=True))
    mine, theirs = (f"{statistics.median(rates[name]):,.0f}" for name in ("ours", "official"))
    print(f"| {dimensions:,} | {len(texts):,} in batches of {BATCH} | {mine} | {theirs} | {ratio:.1f} |", flush=True)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [512, 1536]
    texts = [f"Document {number}. " + "Words follow words. " * 15 for number in range(TEXTS)]
    print("| dimensions | texts | our client, texts/s | official client | ratio |\n|---:|---|---:|---:|---:|")
    context = multiprocessing.get_context("spawn")
    for dimensions in sizes:
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(dimensions, there), daemon=True)
        server.start()
        try:
            measure(texts, dimensions, ROUNDS, f"http://127.0.0.1:{here.recv()}/v1")
        finally:
            server.terminate()
            server.join()


if __name__ == "__main__":
    main()
