"""Things that several use at once: opened for the first of them, once however many ask, and closed after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What is to be closed after use."""

    def close(self) -> None:
        """Give back what it holds."""
        ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Closable)


class Lent(Generic[T]):
    """One thing, and how many use it."""

    def __init__(self, opening: asyncio.Future[T]) -> None:
        self.opening = opening
        self.users = 0

    @property
    def thing(self) -> T:
        """The thing, once `Shared.borrow` has returned."""
        return self.opening.result()


class Shared(Generic[K, T]):
    """What is open, by what it was opened with. For one event loop; opening and closing happen in threads."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lent: dict[K, Lent[T]] = {}

    async def borrow(self, key: K, opened: Callable[[], T]) -> Lent[T]:
        """Return the thing of a key, opened if nobody uses it yet. Raises what opening raises, for all who wait."""
        lent = self._lent.get(key)
        if lent is None:
            opening = asyncio.get_running_loop().run_in_executor(self._executor, opened)
            lent = self._lent[key] = Lent(opening)
        lent.users += 1
        try:
            # Whoever gives up waiting leaves the opening to the others.
            await asyncio.shield(lent.opening)
        except BaseException:
            self.give_back(key, lent)
            raise
        return lent

    def forget(self, key: K, lent: Lent[T]) -> None:
        """Let the next borrower open anew; who uses the old one goes on with it."""
        if self._lent.get(key) is lent:
            del self._lent[key]

    def give_back(self, key: K, lent: Lent[T]) -> None:
        """Say that one user is done; close the thing after the last."""
        lent.users -= 1
        if lent.users:
            return
        self.forget(key, lent)
        lent.opening.add_done_callback(self._close)

    def _close(self, opening: asyncio.Future[T]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            return
        try:
            self._executor.submit(opening.result().close)
        except RuntimeError:
            # The process ends, and nobody is kept waiting.
            opening.result().close()
