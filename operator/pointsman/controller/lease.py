"""Which process may act? Of all operators one at a time holds the Lease.

The rules are those of client-go's leader election: whoever stands by takes the Lease over once it has not moved for as
long as it lasts, by their own clock, so that no two machines' clocks are ever compared; whoever holds it gives up well
before that. What is added is a number, the epoch, that grows with every holder and is kept in the store as well: a
cluster that was restored from a backup, or a Lease that somebody removed, neither lowers it nor lets two act at once.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pointsman import logs
from pointsman.cluster.resources import Cluster, Lease
from pointsman.errors import Conflict, PointsmanError, Retryable
from pointsman.store.log import RecordLog
from pointsman.work.fence import Deadline, Lost

EPOCHS = ("operator", "epochs")
"""Where the epochs are in the store."""
RENEWED_WITHIN, TRIED_EVERY = 2 / 3, 2 / 15
"""Parts of what a Lease lasts: when its holder gives up, and how often the API is asked. As client-go's 15, 10, 2 s."""

log = logs.logger()


@dataclass(frozen=True, slots=True)
class Term:
    """What one process holds the Lease under."""

    epoch: int
    holder: str
    taken_over: datetime | None
    """When the Lease was last taken from somebody who had not given it back, by this process or an earlier one: what
    theirs had sent to a database by then may have arrived later. None where that never happened."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the store knows of the terms so far."""

    epoch: int
    seconds: int
    taken_over: datetime | None
    revision: int


class Candidate:
    """One process that wants to hold a Lease, or does."""

    def __init__(
        self,
        cluster: Cluster,
        epochs: RecordLog,
        place: tuple[str, str],
        holder: str,
        seconds: int,
        deadline: Deadline,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`place` is namespace and name of the Lease, `seconds` how long it lasts; no two processes share a `holder`.

        `clock` is that of the deadline. What `now` says is only written down.
        """
        self._cluster, self._epochs, self._place, self._holder = cluster, epochs, place, holder
        self._seconds, self._deadline, self._clock, self._now = seconds, deadline, clock, now
        self._within, self._pause = seconds * RENEWED_WITHIN, seconds * TRIED_EVERY
        self._seen: Lease | None = None
        self._since = clock()
        self._taken_over: datetime | None = None
        self._held: Lease | None = None

    def acquire(self, sleep: Callable[[float], None]) -> Term:
        """Return once this process holds the Lease; until then stand by."""
        told: str | None = None
        while True:
            problem: Retryable | None = None
            try:
                term = self.attempt()
                said = "nobody that is known" if self._seen is None else self._seen.holder or "nobody"
            except Retryable as error:
                problem, term, said = error, None, error.message
            if term is not None:
                log.info(logs.Event.LEASE_TAKEN, holder=term.holder, epoch=term.epoch)
                return term
            if said != told and problem is not None:
                log.warning(logs.Event.LEASE_AWAITED, error=problem)
            elif said != told:
                log.info(logs.Event.LEASE_AWAITED, holder=said)
            told = said
            sleep(self._pause)

    def attempt(self) -> Term | None:
        """Take the Lease if nobody holds it, and write the new epoch down; return None while somebody does."""
        found = self._cluster.lease(*self._place, within=self._within / 2)
        if found != self._seen:
            self._seen, self._since = found, self._clock()
        is_given_back = found is None or found.holder in ("", self._holder)
        if found is not None and not is_given_back and not self._has_stood_still(found.seconds or self._seconds):
            return None
        stored = self._stored()
        transitions = 0 if found is None else found.transitions
        # One that was removed, or restored from a backup, does not tell who holds it: whoever does may not know yet.
        is_told = is_given_back and transitions >= stored.epoch
        if not is_told and not self._has_stood_still(max(stored.seconds, found.seconds if found is not None else 0)):
            return None
        epoch, sent, now = max(transitions, stored.epoch) + 1, self._clock(), self._now()
        if not is_told:
            self._taken_over = now
        taken_over = self._taken_over or stored.taken_over
        version = "" if found is None else found.version
        try:
            self._held = self._write(Lease(self._holder, epoch, self._seconds, now, now, version))
            self._epochs.write(_record(epoch, self._held, taken_over), after=stored.revision)
        except Conflict:
            # Another was faster.
            return None
        self._deadline.move(sent + self._within)
        return Term(epoch, self._holder, taken_over)

    def keep(self, stop: threading.Event, lost: Lost) -> None:
        """Renew the Lease until told to stop. Where that fails for too long, the process is ended."""
        try:
            while not stop.wait(max(0.0, min(self._pause, self._deadline.left))):
                self.renew(lost)
        except Exception as error:
            # Without a Lease that is renewed the process must not stay, whatever went wrong here.
            log.error(logs.Event.LEASE_RENEWAL_FAILED, exc_info=error)
            lost("renewing it failed in a way that nobody foresaw")

    def renew(self, lost: Lost) -> None:
        """Renew the Lease once."""
        assert self._held is not None, "nothing is renewed that was not taken"
        if self._deadline.left <= 0:
            lost(f"it was not renewed within {self._within:.1f} s")
        sent = self._clock()
        try:
            self._held = self._write(dataclasses.replace(self._held, renewed=self._now()))
        except Conflict:
            self._look_again(self._held, lost)
        except PointsmanError as error:
            log.warning(logs.Event.LEASE_RENEWAL_FAILED, error=error)
        else:
            self._deadline.move(sent + self._within)

    def release(self) -> None:
        """Give the Lease back, so that another need not wait for it. Best effort: it runs out by itself."""
        if self._held is None or self._deadline.left <= 0:
            return
        self._deadline.move(0.0)
        try:
            self._write(dataclasses.replace(self._held, holder="", renewed=self._now()))
        except PointsmanError as error:
            log.warning(logs.Event.LEASE_RENEWAL_FAILED, error=error)
        else:
            log.info(logs.Event.LEASE_GIVEN_BACK, holder=self._holder, epoch=self._held.transitions)

    def _look_again(self, held: Lease, lost: Lost) -> None:
        """Somebody else has written the Lease: end, unless it is still ours, and is renewed as it is now."""
        try:
            found = self._cluster.lease(*self._place, within=self._within / 2)
        except PointsmanError as error:
            log.warning(logs.Event.LEASE_RENEWAL_FAILED, error=error)
            return
        if found is not None and (found.holder, found.transitions) != (held.holder, held.transitions):
            lost(f"{found.holder or 'nobody'} holds it by now")
        self._held = dataclasses.replace(held, version="" if found is None else found.version)

    def _has_stood_still(self, seconds: float) -> bool:
        return self._clock() - self._since >= seconds

    def _write(self, lease: Lease) -> Lease:
        return self._cluster.write_lease(*self._place, lease, within=self._within / 2)

    def _stored(self) -> _Stored:
        record = self._epochs.read()
        value: Mapping[str, Any] = {} if record is None else record.value
        revision = 0 if record is None else record.revision
        taken_over = value.get("takenOver")
        since = None if taken_over is None else datetime.fromisoformat(taken_over)
        return _Stored(value.get("epoch", 0), value.get("seconds", 0), since, revision)


def _record(epoch: int, held: Lease, taken_over: datetime | None) -> dict[str, Any]:
    since = None if taken_over is None else taken_over.isoformat()
    return {"epoch": epoch, "holder": held.holder, "seconds": held.seconds, "takenOver": since}
