"""A model behind any endpoint that speaks OpenAI's embeddings API: OpenAI, TEI, vLLM, Infinity, Ollama and
others.

They agree on little but the shape of the request, so limits are learnt and not configured: batches are halved
when they are refused and grown while they pass, the pace follows the rate-limit headers, and vectors are
taken in base64 or as lists. What comes back is checked before it is used.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from pointsman import access
from pointsman.api.conditions import Reason
from pointsman.embedders import answers, pacing, vectors
from pointsman.embedders.connection import Answer, Connection
from pointsman.errors import Retryable, Terminal, TextsRefused
from pointsman.ports import Finished, Identity, Spent, Vectors, nobody

_TOO_LARGE: Final = (400, 413, 422)
"""How servers refuse a batch: 413 and 422 from TEI, 400 from OpenAI and DashScope."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of texts, and how often it failed."""

    start: int
    stop: int
    failures: int = 0


class _Run:
    """One call of `embed`: what is left to send, what came back, or why it ended."""

    def __init__(self, texts: Sequence[str], dimensions: int, finished: Finished) -> None:
        self.texts = texts
        self.tokens = [pacing.estimated_tokens(text) for text in texts]
        self.vectors: Vectors = np.empty((len(texts), dimensions), dtype=np.float32)
        self._finished = finished
        self._error: BaseException | None = None
        self._is_over = False
        self._refused: list[int] = []
        self._refusal = ""
        self._left = len(texts)
        self._sending = 0
        self._todo = deque([_Part(0, len(texts))])
        self._changed = threading.Condition()

    def take(self, most_texts: int, most_tokens: int) -> _Part | None:
        """Return the next texts to send, one at least; None where there are none or the run has ended."""
        with self._changed:
            if self._is_over or not self._todo:
                return None
            part = self._todo.popleft()
            stop, tokens = part.start, 0
            while stop < min(part.stop, part.start + most_texts):
                tokens += self.tokens[stop]
                if tokens > most_tokens and stop > part.start:
                    break
                stop += 1
            if stop < part.stop:
                self._todo.appendleft(_Part(stop, part.stop, part.failures))
            return _Part(part.start, stop, part.failures)

    @contextlib.contextmanager
    def sending(self) -> Iterator[bool]:
        """Say whether a request may still go; who waits for the run waits for its answer."""
        with self._changed:
            may_go = not self._is_over
            self._sending += 1
        try:
            yield may_go
        finally:
            with self._changed:
                self._sending -= 1
                self._changed.notify_all()

    def put_back(self, part: _Part, failures: int = 0) -> None:
        with self._changed:
            self._todo.appendleft(_Part(part.start, part.stop, part.failures + failures))

    def put(self, part: _Part, found: Vectors) -> None:
        self.vectors[part.start : part.stop] = found
        self._finished(part.start, found)
        with self._changed:
            self._left -= part.stop - part.start
            self._changed.notify_all()

    def refuse(self, part: _Part, answer: str) -> None:
        """Leave a single text out and go on with the others, while there are not too many of its kind."""
        with self._changed:
            self._refused.append(part.start)
            self._refusal = answer
            self._left -= 1
            self._is_over |= len(self._refused) >= vectors.MOST_REFUSED
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            if not self._is_over:
                self._error, self._is_over = error, True
            self._changed.notify_all()

    def wait(self) -> None:
        """Return once all is finished; raise why it is not, but not before what is under way was answered."""
        with self._changed:
            self._changed.wait_for(lambda: (self._is_over or not self._left) and not self._sending)
        if self._error is not None:
            raise self._error
        if self._refused:
            raise TextsRefused(sorted(self._refused), self._refusal)

    def end(self) -> None:
        """Let no further request go."""
        with self._changed:
            self._is_over = True


class OpenAI:
    """An embedder over HTTP. Safe to use from many threads, which then share limits and pace."""

    def __init__(
        self,
        base_url: str,
        model: str,
        dimensions: int,
        allowed: access.Access,
        *,
        revision: str = "",
        send_dimensions: bool = False,
        api_key: str | None = None,
        concurrency: int = 4,
        patience: float = 600.0,
        attempts: int = 6,
        read_seconds: float = 120.0,
        first_backoff: float = 0.5,
    ) -> None:
        """Seconds are floats. Raises Terminal(ENDPOINT_NOT_ALLOWED, MODEL_UNAUTHORIZED) or
        Retryable(HOST_NOT_FOUND).

        `patience` is how long an endpoint may ask for patience and let nothing through; `attempts` how often
        one batch is sent before a failing endpoint is given up.
        """
        self._model, self._revision, self._dimensions = model, revision, dimensions
        self._request = {"model": model, **({"dimensions": dimensions} if send_dimensions else {})}
        self._attempts, self._first_backoff = attempts, first_backoff
        self._concurrency = concurrency
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._size = pacing.BatchSize()
        self._pace = pacing.Pace(self._wait, patience=patience)
        self._encoding: dict[str, str] = {"encoding_format": "base64"}
        self._has_answered = False
        self._name: str | None = None
        self._spent = Spent()
        self._runs: set[_Run] = set()
        self._connection = Connection(
            base_url.rstrip("/") + "/embeddings", _authorization(api_key), allowed, read_seconds
        )
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="embed")

    def identity(self) -> Identity:
        """Return the model's name as its last answer stated it, or before that as it was declared."""
        return Identity(self._name or self._model, self._revision, self._dimensions)

    def spent(self) -> Spent:
        """Return the tokens of what was answered: as the endpoint has stated them, otherwise as estimated."""
        return self._spent

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        """Embed texts, in order, as unit vectors of shape (len(texts), dimensions); a part is one request.

        Raises TextsRefused for texts that are refused alone; Terminal: MODEL_INVALID, MODEL_CHANGED,
        MODEL_UNAUTHORIZED, MODEL_REJECTED, ENDPOINT_NOT_ALLOWED; Retryable: MODEL_UNREACHABLE,
        MODEL_RATE_LIMITED, HOST_NOT_FOUND.
        """
        vectors.check_texts(texts)
        run = _Run(texts, self._dimensions, finished)
        if not texts:
            return run.vectors
        with self._lock:
            if self._closed.is_set():
                raise _closed()
            self._runs.add(run)
            workers = min(self._concurrency, -(-len(texts) // self._size.texts))
            if workers > 1:
                for _ in range(workers):
                    # Each in a context of its own: what is passed on is the caller's.
                    self._pool.submit(contextvars.copy_context().run, self._work, run)
        try:
            if workers == 1:
                # A query, or the rest of a batch: no other thread has to wake up for it.
                self._work(run)
            run.wait()
        finally:
            run.end()
            with self._lock:
                self._runs.discard(run)
        return run.vectors

    def close(self) -> None:
        """Give connections back. Calls under way end at once with Retryable(MODEL_UNREACHABLE)."""
        with self._lock:
            self._closed.set()
            runs = list(self._runs)
        for run in runs:
            run.fail(_closed())
        self._connection.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise _closed()

    def _work(self, run: _Run) -> None:
        # Whoever puts a part back goes on itself, so no thread needs to wait for the others' parts.
        try:
            while (part := self._take(run)) is not None:
                self._send(run, part)
        except BaseException as error:
            # A thread of the pool has nobody to tell: the caller raises it.
            run.fail(error)

    def _take(self, run: _Run) -> _Part | None:
        with self._lock:
            most = self._size.texts
        return run.take(most, self._pace.token_budget())

    def _send(self, run: _Run, part: _Part) -> None:
        texts = part.stop - part.start
        tokens = sum(run.tokens[part.start : part.stop])
        encoding = self._encoding
        content = self._body(run.texts[part.start : part.stop], encoding)
        self._pace.acquire(tokens)
        with run.sending() as may_go:
            if not may_go:
                self._pace.release(tokens)
                return
            answer = self._answer(content, texts, tokens)
            if isinstance(answer, Answer) and answer.status == 200:
                self._accept(run, part, answer)
                return
        if isinstance(answer, Answer):
            self._refuse(run, part, answer, encoding)
        else:
            self._again(run, part, answer)

    def _answer(self, content: bytes, texts: int, tokens: int) -> Answer | Retryable:
        """Post a body and return the answer, or why there is none; any other error is raised."""
        headers: Mapping[str, str] | None = None
        try:
            answer = self._connection.post(content, answers.most_bytes(texts, self._dimensions))
            headers = answer.headers
            return answer
        except Retryable as error:
            return error
        finally:
            self._pace.release(tokens, headers)

    def _body(self, texts: Sequence[str], encoding: Mapping[str, str]) -> bytes:
        try:
            return orjson.dumps({**self._request, **encoding, "input": list(texts)})
        except orjson.JSONEncodeError:
            raise Terminal(Reason.MODEL_INVALID, "a text is no valid Unicode, wanted no lone surrogates") from None

    def _accept(self, run: _Run, part: _Part, answer: Answer) -> None:
        texts = part.stop - part.start
        found = answers.read(answer.body, texts, self._dimensions)
        name, stated = found.model, found.tokens or 0
        tokens = stated or sum(run.tokens[part.start : part.stop])
        with self._lock:
            self._spent = Spent(self._spent.tokens + tokens, self._spent.stated + stated)
            before = self._name
            if name is not None:
                self._name = before or name
            self._has_answered = True
            self._size.accepted(texts)
        if before is not None and name is not None and name != before:
            raise Terminal(
                Reason.MODEL_CHANGED,
                f"the endpoint answers as {name}, before as {before}; declare a new version for the new model",
            )
        self._pace.answered()
        run.put(part, found.vectors)

    def _refuse(self, run: _Run, part: _Part, answer: Answer, encoding: Mapping[str, str]) -> None:
        status = answer.status
        asked = pacing.asked_wait(answer.headers)
        if status == 429 or (status == 503 and asked is not None):
            if answers.error_code(answer.body) == "insufficient_quota":
                raise Retryable(Reason.MODEL_RATE_LIMITED, "the account's quota is used up; raise it")
            self._pace.pause(asked, random.random())
            run.put_back(part)
        elif status in _TOO_LARGE:
            self._halve(run, part, status, encoding)
        elif status in (408, 425) or status >= 500:
            self._again(
                run, part, Retryable(Reason.MODEL_UNREACHABLE, f"the endpoint fails with HTTP {status}"), status
            )
        elif status in (401, 403):
            raise Terminal(
                Reason.MODEL_UNAUTHORIZED, f"the endpoint refuses the key with HTTP {status}; check the Secret"
            )
        elif 300 <= status < 400:
            raise Terminal(
                Reason.ENDPOINT_NOT_ALLOWED,
                f"the endpoint redirects with HTTP {status}, which is not followed; set baseURL to where it leads",
            )
        else:
            raise Terminal(
                Reason.MODEL_REJECTED, f"the endpoint answers with HTTP {status}; check baseURL and the model's name"
            )

    def _halve(self, run: _Run, part: _Part, status: int, encoding: Mapping[str, str]) -> None:
        texts = part.stop - part.start
        with self._lock:
            is_known = self._has_answered
            if encoding is not self._encoding:
                # Sent before another thread found that the encoding was the trouble: says nothing about size.
                may_pass = True
            elif texts > 1:
                self._size.refused(texts)
                may_pass = True
            elif may_pass := not is_known and bool(encoding):
                # Some servers refuse a field that they do not know; the size was not the trouble then.
                self._encoding = {}
                self._size = pacing.BatchSize()
        if may_pass:
            return run.put_back(part)
        if is_known:
            # Halving has led to the one text that the endpoint does not take.
            with self._lock:
                self._size.acquitted()
            return run.refuse(part, f"HTTP {status}")
        raise Terminal(
            Reason.MODEL_REJECTED,
            f"the endpoint refuses even one text with HTTP {status}; check model, dimensions and sendDimensions",
        )

    def _again(self, run: _Run, part: _Part, error: Retryable, status: int = 0) -> None:
        """Try a failed part again after a while, in smaller batches, or raise the error where it failed too
        often."""
        texts = part.stop - part.start
        # Some servers answer 500 to a batch that is too large, so only single texts count as failures of
        # theirs.
        failures = 0 if status == 500 and texts > 1 else 1
        if self._closed.is_set() or part.failures + failures >= self._attempts:
            raise error
        with self._lock:
            self._size.failed(texts)
        self._wait(pacing.backoff(part.failures + 1, random.random(), self._first_backoff))
        run.put_back(part, failures)


def _authorization(api_key: str | None) -> dict[str, str]:
    key = (api_key or "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        # The HTTP library's own complaint would quote it.
        raise Terminal(Reason.MODEL_UNAUTHORIZED, "the key has characters that a header may not have; check the Secret")
    return {"Authorization": f"Bearer {key}"}


def _closed() -> Retryable:
    return Retryable(Reason.MODEL_UNREACHABLE, "the model was closed while it was used; open it again")
