"""Who may search what? Nobody asks, a file of tokens answers, or the cluster does. Tokens are kept as hashes only."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.cluster.resources import Caller, Cluster
from pointsman.errors import PointsmanError, Terminal
from pointsman.gateway.faults import Fault

FRESH_SECONDS: Final = 30.0
"""How long the cluster's answer holds."""
STALE_SECONDS: Final = 600.0
"""How long a yes holds while the cluster does not answer."""
RETRY_SECONDS: Final = 5.0
"""How long a yes is taken for granted once the cluster did not answer: not every query waits for what is away."""
MOST_KEPT: Final = 10_000
"""Answers of the cluster that are remembered."""
_HASH = re.compile(r"sha256:([0-9a-f]{64})")

log = logs.logger()


class Guard(Protocol):
    """Decides whether a request may go on."""

    async def check(self, authorization: str, namespace: str, name: str) -> None:
        """Raise Fault 401 for somebody unknown and 403 for somebody who may not; takes the header's value."""
        ...

    def look_again(self) -> None:
        """Take in what changed outside; called every second or so in a thread, and may read a file."""
        ...


class Open:
    """Lets everybody in: the network alone decides."""

    async def check(self, authorization: str, namespace: str, name: str) -> None:
        """Do nothing."""

    def look_again(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class _Token:
    digest: bytes
    namespaces: frozenset[str]
    """Empty: all."""


class Tokens:
    """Lets in who has a token of a file, to the namespaces that stand beside it."""

    def __init__(self, path: Path) -> None:
        """Raises Terminal(INVALID_SPEC) where the file cannot be read."""
        self._path = path
        self._stamp = _stamp(path)
        self._tokens = _read(path)

    async def check(self, authorization: str, namespace: str, name: str) -> None:
        """Compare with every token, whatever the first one says."""
        digest = hashlib.sha256(_bearer(authorization).encode()).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise _unknown()
        if found.namespaces and namespace not in found.namespaces:
            raise _forbidden(namespace, name)

    def look_again(self) -> None:
        """Read the file again where it is another one by now; where it cannot be read the old tokens hold on."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = _read(self._path)
        except Terminal as error:
            log.error(logs.Event.TOKENS_NOT_READ, error=error)
        else:
            log.info(logs.Event.TOKENS_READ, count=len(self._tokens))


class Kubernetes:
    """Lets in whom the cluster knows, to deployments of which they may create `indexdeployments/search`."""

    def __init__(
        self,
        cluster: Cluster,
        executor: Executor,
        clock: Callable[[], float] = time.monotonic,
        audiences: Sequence[str] = (),
    ) -> None:
        """Tokens have to be meant for one of the audiences; without any, for the cluster."""
        self._cluster, self._executor, self._clock, self._audiences = cluster, executor, clock, audiences
        self._answers: dict[tuple[bytes, str, str], tuple[float, Fault | None]] = {}
        self._asking: dict[tuple[bytes, str, str], asyncio.Future[Fault | None]] = {}
        self._silent_until = float("-inf")

    async def check(self, authorization: str, namespace: str, name: str) -> None:
        """Ask the cluster, unless it was asked the same just now."""
        token = _bearer(authorization)
        key = (hashlib.sha256(token.encode()).digest(), namespace, name)
        at, refusal = self._answers.get(key, (float("-inf"), None))
        now = self._clock()
        may_last = refusal is None and now - at <= STALE_SECONDS
        if now - at > FRESH_SECONDS and not (may_last and now < self._silent_until):
            try:
                refusal = await self._ask(key, token)
            except PointsmanError:
                self._silent_until = self._clock() + RETRY_SECONDS
                if not may_last:
                    raise Fault(
                        503, "access_unknown", "the cluster does not answer who may search; try again", retry_after=5
                    ) from None
        if refusal is not None:
            # One object for many requests: each would add its own places to it.
            raise refusal.with_traceback(None)

    def look_again(self) -> None:
        """Do nothing: what is remembered belongs to the event loop, and is bounded there."""

    async def _ask(self, key: tuple[bytes, str, str], token: str) -> Fault | None:
        asking = self._asking.get(key)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = self._asking[key] = loop.run_in_executor(self._executor, self._answer, token, key[1], key[2])
            asking.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(asking)

    def _answer(self, token: str, namespace: str, name: str) -> Fault | None:
        caller: Caller | None = self._cluster.caller(token, self._audiences)
        if caller is None:
            return _unknown()
        return None if self._cluster.may_search(caller, namespace, name) else _forbidden(namespace, name)

    def _keep(self, key: tuple[bytes, str, str], done: asyncio.Future[Fault | None]) -> None:
        del self._asking[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._silent_until = float("-inf")
        # The one that was answered last stands last.
        self._answers.pop(key, None)
        if len(self._answers) >= MOST_KEPT:
            self._make_room()
        self._answers[key] = (self._clock(), done.result())

    def _make_room(self) -> None:
        """Forget a tenth: refusals first, as whoever tries out tokens must not push out those who have one."""
        refused = (key for key, (_, refusal) in self._answers.items() if refusal is not None)
        oldest = (key for key, (_, refusal) in self._answers.items() if refusal is None)
        for key in list(itertools.islice(itertools.chain(refused, oldest), MOST_KEPT // 10)):
            del self._answers[key]


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unknown()
    return token.strip()


def _unknown() -> Fault:
    return Fault(401, "unauthorized", "a bearer token that is known here is wanted in the header Authorization")


def _forbidden(namespace: str, name: str) -> Fault:
    return Fault(403, "forbidden", f"the token does not allow to search {namespace}/{name}")


def _stamp(path: Path) -> Mapping[str, int]:
    try:
        found = path.stat()
    except OSError:
        return {}
    return {"inode": found.st_ino, "modified": found.st_mtime_ns, "size": found.st_size}


def _read(path: Path) -> tuple[_Token, ...]:
    """Read a file of a token a line, or `sha256:` and its hash, with namespaces behind it, separated by commas."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise Terminal(Reason.INVALID_SPEC, f"{path} cannot be read; wanted a token a line") from None
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            # The line itself is secret.
            message = f"line {number} of {path.name} has {len(words)} words, wanted a token and namespaces a,b"
            raise Terminal(Reason.INVALID_SPEC, message)
        if len(words) == 2 and not words[1].strip(","):
            message = f"line {number} of {path.name} names no namespace between its commas, wanted a,b, or none at all"
            raise Terminal(Reason.INVALID_SPEC, message)
        hashed = _HASH.fullmatch(words[0])
        digest = bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(words[0].encode()).digest()
        found.append(_Token(digest, frozenset(each for each in "".join(words[1:]).split(",") if each)))
    if not found:
        raise Terminal(Reason.INVALID_SPEC, f"{path.name} holds no token; wanted one a line")
    return tuple(found)
