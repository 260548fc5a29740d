"""A model's server that counts what it is asked: which texts, and which of them twice?

    python counting.py PORT MARK SECONDS

It speaks OpenAI's embeddings API. A vector is made of its text's digest, so it means nothing and is always the same.
Counted are texts that hold MARK, which those that are pinned to see whether the model has changed do not. `GET /asked`
says how many came and how many different ones; `GET /forget` begins anew. Each request takes as long as said, and has
to bring the key that is in the environment. It runs in a pod by itself, so it imports the standard library alone.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_TEXTS = 32
"""In one request; more are refused, as some servers do."""
DIMENSIONS = 64
MODEL = "counting"


def vector(text: str) -> list[float]:
    """Return the vector of a text, of unit length."""
    content = hashlib.shake_128(text.encode()).digest(4 * DIMENSIONS)
    numbers = struct.unpack(f"<{DIMENSIONS}i", content)
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


class Counted:
    """The digests of the texts that came, and how often each did."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._times: collections.Counter[bytes] = collections.Counter()

    def count(self, texts: list[str]) -> None:
        """Count the texts of a request."""
        with self._lock:
            self._times.update(hashlib.sha256(text.encode()).digest() for text in texts if self._mark in text)

    def said(self) -> dict[str, int]:
        """Return how many texts came, and how many different ones."""
        with self._lock:
            return {"texts": self._times.total(), "different": len(self._times)}

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._times.clear()


class Server(ThreadingHTTPServer):
    """The server, with what its requests share."""

    def __init__(self, port: int, mark: str, seconds: float) -> None:
        super().__init__(("", port), Request)
        self.counted, self.seconds = Counted(mark), seconds


class Request(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Say what was asked, or forget it."""
        if self.path == "/forget":
            self.server.counted.forget()
        self._answer(200, self.server.counted.said())

    def do_POST(self) -> None:
        """Embed."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['KEY']}":
            self._answer(401, {"error": {"message": "another key is wanted", "type": "invalid_request_error"}})
            return
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        if len(texts) > MOST_TEXTS:
            self._answer(413, {"error": {"message": f"at most {MOST_TEXTS} texts", "type": "invalid_request_error"}})
            return
        # At once, and not when it is answered: whoever has gone meanwhile has asked all the same.
        self.server.counted.count(texts)
        time.sleep(self.server.seconds)
        data = [{"index": index, "embedding": vector(text)} for index, text in enumerate(texts)]
        self._answer(200, {"model": MODEL, "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Server(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])).serve_forever()
