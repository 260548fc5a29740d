"""A door before a server: a loopback port that leads to it while the door is open, and refuses while it is shut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


class Door:
    """One port for as long as the test wants it, open or shut. Shutting it breaks what goes through."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.passed = 0
        """Bytes that were let through to the server."""
        self.left: int | None = None
        """How many more will be."""
        # Bound and not listened to, a port refuses, and nobody else gets it meanwhile.
        self._reserved = _bound(0)
        self.port = int(self._reserved.getsockname()[1])

    def open(self) -> None:
        """Let connections through."""
        self._listener = _bound(self.port)
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections and break those that are there."""
        with self._lock:
            listener, self._listener = self._listener, None
            gone, self._open = self._open, set()
        for each in (*gone, *([listener] if listener is not None else [])):
            # A thread that waits on it wakes up by this, and not by its closing.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def let_through(self, count: int | None) -> None:
        """Let so many bytes more through to the server, and break off what is under way then; None: all."""
        with self._lock:
            self.left = count

    def close(self) -> None:
        """Shut the door for good."""
        self.shut()
        self._reserved.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                front, _ = listener.accept()
            except OSError:
                return
            try:
                back = socket.create_connection(self._behind)
            except OSError:
                front.close()
                continue
            with self._lock:
                self._open |= {front, back}
                is_shut = self._listener is not listener
            if is_shut:
                self.shut()
                return
            threading.Thread(target=_carry, args=(front, back, self._part), daemon=True).start()
            threading.Thread(target=_carry, args=(back, front, bytes), daemon=True).start()

    def _part(self, data: bytes) -> bytes:
        """Return as much as goes through."""
        with self._lock:
            let = data if self.left is None else data[: self.left]
            self.passed += len(let)
            if self.left is not None:
                self.left -= len(let)
        return let


@contextlib.contextmanager
def before(host: str, port: int) -> Iterator[Door]:
    """Put a door, open, before a server."""
    door = Door(host, port)
    door.open()
    try:
        yield door
    finally:
        door.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _carry(one: socket.socket, other: socket.socket, let_through: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            let = let_through(data)
            other.sendall(let)
            if len(let) < len(data):
                break
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
