"""A local server that speaks OpenAI's embeddings API as its public reference describes it, faults included.

Its vectors are real ones, of the embedded model by default. Each fault is a switch that may be set while it
runs. By hand: `python -m tests.servers.openai_server --port 8080`.
"""

from __future__ import annotations

import argparse
import base64
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np

from pointsman.embedders import wordllama

Embed = Callable[[Sequence[str]], np.ndarray]

MODEL = "text-embedding-local"
_MOST_INPUTS = 2_048
_MOST_TOKENS = 300_000


@dataclass
class Switches:
    """What the server does other than answer well. Counters count down."""

    api_key: str = ""
    model: str = MODEL
    most_inputs: int = _MOST_INPUTS
    too_many_status: int = 400
    most_characters: int = 1_000_000
    limit_requests: int = 0
    """Requests per `reset_seconds`, stated in the rate-limit headers and enforced; 0: no headers, no
    limit."""
    limit_tokens: int = 0
    reset_seconds: float = 60.0
    refuse: int = 0
    """How many requests to answer with `refuse_status`."""
    refuse_status: int = 429
    refuse_headers: dict[str, str] = field(default_factory=dict)
    refuse_code: str = "rate_limit_exceeded"
    answer: int = -1
    """How many requests to answer before all others fail with 503; -1: there is no end."""
    ignore_base64: bool = False
    refuse_base64: bool = False
    spaced_json: bool = False
    shuffle: bool = False
    spoil: Literal["", "dims", "nan", "inf", "zero", "short", "doubled", "text", "html", "huge", "error", "nested"] = ""
    omit: tuple[str, ...] = ()
    """Fields to leave out of the answer: `model`, `usage`, `index`."""
    usage: Any = None
    """What to state in place of the count of tokens."""
    drop: int = 0
    """How many requests to hang up on without an answer."""
    truncate: int = 0
    """How many answers to break off in the middle."""
    redirect_to: str = ""
    hold: threading.Event | None = None
    """Answer only once it is set."""
    swapped: bool = False
    """Whether another model answers under the same name."""


class OpenAIServer:
    """The server as a context manager; `url` is the base URL, `switches` may be changed, `batches` says what
    came."""

    def __init__(self, switches: Switches | None = None, embed: Embed | None = None, port: int = 0) -> None:
        self.switches = switches or Switches()
        self.embed = embed or wordllama.Wordllama().embed
        self.batches: list[int] = []
        self.statuses: list[int] = []
        self.answered = 0
        """How many texts."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.lock = threading.Lock()
        self._at_once = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.switches.hold is not None:
            self.switches.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wrap_tls(self, context: Any) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def enter(self) -> None:
        with self.lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)

    def leave(self) -> None:
        with self.lock:
            self._at_once -= 1

    def take(self, name: str) -> bool:
        """Count a switch down; whether it was on."""
        with self.lock:
            left = getattr(self.switches, name)
            if left > 0:
                setattr(self.switches, name, left - 1)
            return bool(left > 0)

    def budget(self, tokens: int) -> tuple[bool, dict[str, str]]:
        """Charge a request to the sliding window; whether it passes, and the headers that tell."""
        switches = self.switches
        if not switches.limit_requests and not switches.limit_tokens:
            return True, {}
        with self.lock:
            now = time.monotonic()
            while self._recent and self._recent[0][0] <= now - switches.reset_seconds:
                self._recent.popleft()
            passes = True
            if switches.limit_requests and len(self._recent) + 1 > switches.limit_requests:
                passes = False
            if switches.limit_tokens and sum(t for _, t in self._recent) + tokens > switches.limit_tokens:
                passes = False
            if passes:
                self._recent.append((now, tokens))
            reset = f"{1000 * (self._recent[-1][0] + switches.reset_seconds - now):.0f}ms" if self._recent else "0s"
            headers = {}
            for kind, limit, used in (
                ("requests", switches.limit_requests, len(self._recent)),
                ("tokens", switches.limit_tokens, sum(t for _, t in self._recent)),
            ):
                if limit:
                    headers[f"x-ratelimit-limit-{kind}"] = str(limit)
                    headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, limit - used))
                    headers[f"x-ratelimit-reset-{kind}"] = reset
            return passes, headers


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the kernel holds the second packet of an answer back for 40 ms.
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                model = {"id": server.switches.model, "object": "model", "created": 0, "owned_by": "local"}
                self._send(200, {"object": "list", "data": [model]})
            else:
                self._send(404, _Refused(404, "Unknown path").body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.enter()
            try:
                self._post(body)
            except _Refused as refused:
                self._send(refused.status, refused.body)
            except OSError:
                # The client hung up first.
                self.close_connection = True
            finally:
                server.leave()

        def _post(self, body: bytes) -> None:
            switches = server.switches
            if self.path != "/v1/embeddings":
                raise _Refused(404, f"Unknown request URL: POST {self.path}")
            if switches.api_key and self.headers.get("authorization") != f"Bearer {switches.api_key}":
                raise _Refused(401, "Incorrect API key provided", "invalid_api_key")
            request = json.loads(body)
            texts = _texts(request, switches)
            with server.lock:
                server.batches.append(len(texts))
                server.requests.append({k: v for k, v in request.items() if k != "input"})
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
            if switches.hold is not None:
                switches.hold.wait(30)
            if switches.redirect_to:
                self._send(307, {}, {"Location": switches.redirect_to})
                return
            if server.take("drop"):
                self.close_connection = True
                return
            if server.take("refuse"):
                refused = _Refused(switches.refuse_status, "Refused: PRIVATE BODY", switches.refuse_code)
                self._send(refused.status, refused.body, switches.refuse_headers)
                return
            if switches.answer >= 0 and not server.take("answer"):
                raise _Refused(503, "Down")
            tokens = sum(len(text) // 4 + 1 for text in texts)
            passes, headers = server.budget(tokens)
            if not passes:
                self._send(429, _Refused(429, "Rate limit reached", "rate_limit_exceeded").body, headers)
                return
            self._send(200, *_answer(server, request, texts, tokens, headers))
            with server.lock:
                server.answered += len(texts)

        def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            with server.lock:
                server.statuses.append(status)
            separators = (", ", ": ") if server.switches.spaced_json else (",", ":")
            raw = body if isinstance(body, bytes) else json.dumps(body, separators=separators).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if status == 200 and server.take("truncate"):
                self.close_connection = True
                raw = raw[: len(raw) // 2]
            self.wfile.write(raw)

    return Handler


def _texts(request: dict[str, Any], switches: Switches) -> list[str]:
    if request.get("model") != switches.model and not switches.swapped:
        raise _Refused(404, f"The model {request.get('model')!r} does not exist", "model_not_found")
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _Refused(400, "'$.input' is invalid; this server takes a string or strings", param="input")
    if any(text == "" for text in texts):
        raise _Refused(400, "'$.input' is invalid: input cannot be an empty string", param="input")
    if len(texts) > min(switches.most_inputs, _MOST_INPUTS):
        raise _Refused(switches.too_many_status, "'$.input' is too long", param="input")
    if sum(len(text) // 4 + 1 for text in texts) > _MOST_TOKENS:
        raise _Refused(400, f"max {_MOST_TOKENS} tokens per request", "max_tokens_per_request")
    if any(len(text) > switches.most_characters for text in texts):
        raise _Refused(switches.too_many_status, "maximum context length exceeded", "context_length_exceeded")
    if request.get("encoding_format", "float") not in ("float", "base64"):
        raise _Refused(400, "unknown encoding_format", param="encoding_format")
    if switches.refuse_base64 and "encoding_format" in request:
        raise _Refused(422, "extra fields not permitted", param="encoding_format")
    return texts


def _answer(
    server: OpenAIServer, request: dict[str, Any], texts: list[str], tokens: int, headers: dict[str, str]
) -> tuple[Any, dict[str, str]]:
    switches = server.switches
    vectors = np.array(server.embed(texts), dtype=np.float32)
    dimensions = request.get("dimensions", vectors.shape[1])
    if not isinstance(dimensions, int) or not 1 <= dimensions <= vectors.shape[1]:
        raise _Refused(400, "Invalid value for dimensions", param="dimensions")
    if dimensions < vectors.shape[1]:
        vectors = vectors[:, :dimensions]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if switches.swapped:
        vectors = vectors[:, ::-1]
    match switches.spoil:
        case "dims":
            vectors = vectors[:, :-1]
        case "nan":
            vectors[0, 0] = np.nan
        case "inf":
            vectors[0, 0] = np.inf
        case "zero":
            vectors[-1] = 0
        case "html":
            return b"<html>PRIVATE BODY</html>", headers
        case "huge":
            return b'{"data": "' + b"x" * 3_000_000 + b'"}', headers
        case "error":
            return {"error": {"message": "PRIVATE BODY"}}, headers
    is_base64 = request.get("encoding_format") == "base64" and not switches.ignore_base64
    data: list[dict[str, Any]] = []
    for index, vector in enumerate(vectors):
        if is_base64:
            value: Any = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        else:
            value = vector.astype(float).tolist()
        data.append({"object": "embedding", "index": index, "embedding": value})
    match switches.spoil:
        case "short":
            data.pop()
        case "doubled":
            data[-1]["index"] = 0
        case "text":
            data[0]["embedding"] = "PRIVATE!"
        case "nested":
            data[0]["embedding"] = [data[0]["embedding"]]
    if switches.shuffle:
        data.reverse()
    if "index" in switches.omit:
        data = [{k: v for k, v in item.items() if k != "index"} for item in data]
    answer = {
        "object": "list",
        "data": data,
        "model": switches.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens} if switches.usage is None else switches.usage,
    }
    return {k: v for k, v in answer.items() if k not in switches.omit}, headers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--api-key", default="")
    arguments = parser.parse_args()
    with OpenAIServer(Switches(api_key=arguments.api_key), port=arguments.port) as server:
        print(f"serving {MODEL} at {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
