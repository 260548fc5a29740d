"""One way to one endpoint: posts bytes to the address that was checked, and brings back status, headers and
bytes.

Knows nothing of embeddings. The host is resolved and judged by `access`, and the connection goes to the
resolved address with the host's name in the `Host` header and in TLS, so that no second resolution can lead
elsewhere. Proxies and credentials of the operator's own environment are not used; redirects are not followed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from pointsman import access, hosts
from pointsman.api.conditions import Reason
from pointsman.errors import Retryable, Terminal

_CONNECT_SECONDS: Final = 10.0
_KEEP_SECONDS: Final = 30.0
_OPENED: Final = ("connection.connect_tcp.complete", "connection.start_tls.complete")


_PASSED_ON: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("passed_on", default=None)


@contextlib.contextmanager
def passing_on(headers: Mapping[str, str]) -> Iterator[None]:
    """Send headers along with all that is posted meanwhile in this context."""
    token = _PASSED_ON.set(headers)
    try:
        yield
    finally:
        _PASSED_ON.reset(token)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. The body is for parsing only: it never goes into a message."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Keeps connections to one URL. Safe to use from many threads."""

    def __init__(
        self, url: str, headers: Mapping[str, str], allowed: access.Access, read_seconds: float = 120.0
    ) -> None:
        """Raises Terminal(ENDPOINT_NOT_ALLOWED), or Retryable(HOST_NOT_FOUND).

        `read_seconds` bounds the silence between two parts of an answer; thrice as much bounds all of it.
        """
        self._scheme, self._host, self._port = hosts.split_url(url)
        self._path = urlsplit(url).path
        self._access = allowed
        self._deadline = 3 * read_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._addresses = allowed.addresses(self._host, self._port)
        self._client = httpx.Client(
            # The context heeds SSL_CERT_FILE. Proxies and netrc are not read from the environment: a proxy
            # would resolve the name again.
            verify=httpx.create_ssl_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(read_seconds, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=_KEEP_SECONDS),
            headers={
                **headers,
                "Host": urlsplit(url).netloc,
                "User-Agent": "pointsman",
                # A compressed answer could be a thousand times larger than it looks.
                "Accept-Encoding": "identity",
            },
        )

    def post(self, content: bytes, most_bytes: int) -> Answer:
        """Send a JSON body and return the answer.

        Raises Retryable(MODEL_UNREACHABLE) where none came in time, the connection broke or was closed;
        Terminal(MODEL_INVALID) for an answer of more than `most_bytes`.
        """
        address = self._addresses[0]
        literal = f"[{address}]" if ":" in address else address
        try:
            with self._client.stream(
                "POST",
                f"{self._scheme}://{literal}:{self._port}{self._path}",
                content=content,
                headers={"Content-Type": "application/json", **(_PASSED_ON.get() or {})},
                extensions={"sni_hostname": self._host, "trace": self._trace},
            ) as response:
                return Answer(response.status_code, response.headers, self._read(response, most_bytes))
        # The causes are cut off: they carry the request, and with it texts and the key.
        except httpx.TimeoutException:
            raise self._unreachable("did not answer in time") from None
        except httpx.TransportError as error:
            self._look_up_again(address)
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._unreachable("shows a certificate that is not trusted for it") from None
            raise self._unreachable(f"cannot be reached or hung up ({type(error).__name__})") from None
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, OSError) as error:
            # A client that is closed while it works fails in many ways.
            raise self._unreachable(f"cannot be reached ({type(error).__name__})") from None

    def close(self) -> None:
        """End all connections; requests under way fail at once."""
        self._closed.set()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            _hang_up(stream)
        self._client.close()

    def _read(self, response: httpx.Response, most_bytes: int) -> bytes:
        deadline = time.monotonic() + self._deadline
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > most_bytes:
                raise Terminal(
                    Reason.MODEL_INVALID,
                    f"{self._host} answers with more than {most_bytes} bytes, wanted fewer for the declared "
                    "dimensions; check them",
                )
            if time.monotonic() > deadline:
                raise self._unreachable("answers too slowly")
            parts.append(part)
        return b"".join(parts)

    def _unreachable(self, what: str) -> Retryable:
        if self._closed.is_set():
            return Retryable(Reason.MODEL_UNREACHABLE, f"the connection to {self._host} was closed")
        return Retryable(Reason.MODEL_UNREACHABLE, f"{self._host}:{self._port} {what}; check the endpoint")

    def _look_up_again(self, failed: str) -> None:
        """Put another address first: a server may have moved, or one of several be down."""
        with contextlib.suppress(Retryable):
            found = list(self._access.addresses(self._host, self._port))
            if failed in found:
                at = found.index(failed) + 1
                found = found[at:] + found[:at]
            self._addresses = tuple(found)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event not in _OPENED:
            return
        stream = info["return_value"]
        with self._lock:
            self._streams.add(stream)
        if self._closed.is_set():
            _hang_up(stream)


def _hang_up(stream: Any) -> None:
    # Closing a socket does not wake a thread that reads from it; shutting it down does.
    found = stream.get_extra_info("socket")
    with contextlib.suppress(OSError):
        socket.socket.shutdown(found, socket.SHUT_RDWR)
