"""What serves a route: each index with its model, opened and kept open for as long as a route or a request needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Terminal, unforeseen
from pointsman.gateway import routing, serving
from pointsman.gateway.serving import Doors, Opened, Pairing, Serving

LOOK_SECONDS: Final = 15.0
"""How often an open index is looked at, whether or not it is asked."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 15.0
"""Seconds between two attempts to open an index."""

log = logs.logger()


class Adopted:
    """A route with all that serves it. Whoever enters it ends on it, however many routes follow meanwhile."""

    def __init__(
        self,
        route: routing.Route,
        servings: Mapping[str, Opening],
        at: float,
        metadata_fields: Mapping[str, frozenset[str]],
        missing: Mapping[str, PointsmanError],
    ) -> None:
        """`missing` says of each index that nothing serves why that is."""
        self.route, self.at, self.metadata_fields = route, at, metadata_fields
        self._servings, self._missing = servings, missing
        self._users = 1
        for opening in servings.values():
            opening.users += 1

    async def hold(self, index: str) -> Opened:
        """Return an open index, to be closed after use, waiting where it is just being opened; raises why it is not."""
        opening = self._servings.get(index)
        if opening is None:
            raise self._missing[index].with_traceback(None)
        if not opening.is_tried:
            await opening.tried.wait()
        return opening.hold()

    def opening(self, index: str) -> Opening | None:
        """Return what serves an index, open or not."""
        return self._servings.get(index)

    def lacks(self, index: str) -> bool:
        """Return whether queries are to go to an index that cannot be asked."""
        entry, opening = self.route.entry(index), self._servings.get(index)
        return entry is not None and entry.weight > 0 and (opening is None or not opening.is_open)

    def is_of(self, servings: Mapping[str, Opening]) -> bool:
        """Return whether it is served by just these."""
        return self._servings == servings

    def enter(self) -> None:
        """Keep it whole until `leave`."""
        self._users += 1

    def leave(self) -> None:
        """Say that a request, or the directory, is done with it."""
        self._users -= 1
        if not self._users:
            for opening in self._servings.values():
                opening.users -= 1
                opening.close_unused()


class Opening:
    """One pairing: being opened, open, or failing to. It tries until nobody wants it."""

    def __init__(self, pairing: Pairing, doors: Doors, changed: Callable[[], None]) -> None:
        self.users = 0
        """Routes that name it, and the directory while it wants it."""
        self.error: PointsmanError | None = None
        self.tried = asyncio.Event()
        """Set once it is open, or was tried in vain."""
        self._pairing, self._doors, self._changed = pairing, doors, changed
        self._opened: Opened | None = None
        self._task = asyncio.get_running_loop().create_task(self._keep_open())

    @property
    def index(self) -> str:
        """The collection or table."""
        return self._pairing.index

    @property
    def is_open(self) -> bool:
        """Whether it can be searched."""
        return self._opened is not None

    @property
    def is_tried(self) -> bool:
        """Whether it is open, or was tried in vain."""
        return self.tried.is_set()

    def hold(self) -> Opened:
        """Return the open pair, to be closed after use; raises why there is none."""
        if self._opened is None:
            error = self.error or Terminal(Reason.INDEX_LOST, f"{self._pairing.index} is being opened")
            raise error.with_traceback(None)
        self._opened.enter()
        return self._opened

    def problem(self) -> str:
        """Return what keeps it from answering, as a clause; empty where nothing does."""
        if self._opened is not None:
            return self._opened.serving.problem()
        return f"{self._pairing.index}: {self.error.message}" if self.error is not None else ""

    def close_unused(self) -> None:
        """Close it unless a route still names it."""
        if not self.users:
            self._task.cancel()
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    async def _keep_open(self) -> None:
        wait, pause, loop = FIRST_WAIT, 0.0, asyncio.get_running_loop()
        while True:
            try:
                found = await serving.opened(self._pairing, self._doors)
            except PointsmanError as error:
                self._failed(error)
            except Exception as error:
                log.error(logs.Event.INDEX_NOT_OPENED, index=self._pairing.index, exc_info=error)
                self._failed(unforeseen(error))
            else:
                # Without a pause between the two, so that what was opened is always closed.
                before, self._opened, self.error, wait = self._opened, found, None, FIRST_WAIT
                if before is not None:
                    before.close()
                self.tried.set()
                self._changed()
                began = loop.time()
                await self._look(found.serving)
                # Credentials that are refused at once again and again are not tried without a pause.
                pause = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * pause)) if loop.time() - began < LOOK_SECONDS else 0.0
                await asyncio.sleep(pause)
                continue
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, 2 * wait)

    async def _look(self, found: Serving) -> None:
        """Look at the index now and then; return when it is to be opened anew."""
        while not found.refused.is_set():
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await found.refused.wait()
            except TimeoutError:
                await found.look()
        # What is open goes on serving until the new one is there; closing it takes nothing from that one.
        if self._opened is not None:
            self._opened.forget()

    def _failed(self, error: PointsmanError) -> None:
        if self.error is None or self.error.message != error.message:
            log.warning(logs.Event.INDEX_NOT_OPENED, index=self._pairing.index, error=error)
        self.error = error
        self.tried.set()
        self._changed()
