"""How is an index loaded by several processes: divided into portions, and known to be written to by none of them?

Both ends are for one process; what lies between is in `load`, for any number. What may be loaded so is an index that
was never complete, and therefore answers nobody: what a late pod writes there is found when the whole is compared.
Before it is compared, and may begin to serve and to follow, no pod of any run may write to it any more. A pod that
ended in good order has said so; of one that was killed, or that nobody reaches, only time tells.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable
from pointsman.plan.indexes import IN_FLIGHT, TRIES
from pointsman.plan.observed import Begun
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Ledger, Run
from pointsman.work import permits
from pointsman.work.indexing import Content, Index

PORTION_ROWS = 16_384
"""How many points a portion has at most: few enough that a killed pod writes little anew."""
MOST_PORTIONS = 8_192
"""Of a run: each is one small object."""
PER_SHARD = 4
"""Portions that each shard has at least, where there are points enough, so that none waits long for the last."""
LEAST_ROWS = 16
SETTLES = timedelta(seconds=permits.SECONDS) + IN_FLIGHT
"""How long after the end of a run something that a process of it has sent may still arrive."""
_ELSEWHERE = (Reason.BACKEND_UNREACHABLE, Reason.WORK_LOST)
"""Why a pod gives up though nothing is wrong with what it loads."""


def begin(index: Index, snapshot: int, shards: int) -> Run:
    """Make the index and divide what it is to hold, unless both was done, and return how it is divided.

    Runs of other snapshots are ended and given up; what they have left in the index is found when the whole is
    compared. One of an index that is gone from the database, or that somebody ended before all was loaded, begins anew.
    """
    content, dataset = Content(index, snapshot), index.dataset
    is_there = index.backend.find(index.name) is not None
    ledger = dataset.load(index.name, snapshot)
    for other in _ledgers(dataset, index.name, besides=snapshot):
        other.writers.end(index.now)
        other.give_up()
    found = ledger.run()
    if found is not None:
        if is_there and not _is_cut_short(ledger, ledger.left(found)):
            return found
        ledger.writers.end(index.now)
        ledger.give_up()
    index.backend.create(index.spec)
    embedded = content.embedded
    by_shards = embedded.rows // (shards * PER_SHARD)
    run = Run(
        snapshot=snapshot,
        sequence=embedded.sequence,
        corpus_version=embedded.chunks_version,
        base=None,
        documents=embedded.rows,
        per_portion=max(LEAST_ROWS, min(PORTION_ROWS, by_shards), -(-embedded.rows // MOST_PORTIONS)),
        is_whole=True,
        id=uuid.uuid4().hex,
    )
    return ledger.begin(run, None)


def begun(dataset: DatasetStore, index: str) -> Begun | None:
    """Return which snapshot of an index `begin` would go on loading from where it was left; None where nothing is."""
    for number in sorted((number for name, number in dataset.loads() if name == index), reverse=True):
        ledger = dataset.load(index, number)
        run = ledger.run()
        left = () if run is None else ledger.left(run)
        if run is None or len(left) == run.portions or _is_cut_short(ledger, left):
            continue
        return Begun(number, _fruitless(ledger, left))
    return None


def _is_cut_short(ledger: Ledger, left: tuple[int, ...]) -> bool:
    """Return whether somebody has ended a run before all was loaded: nobody may go on with it."""
    return bool(left) and ledger.writers.is_over()


def _fruitless(ledger: Ledger, left: tuple[int, ...]) -> int:
    """Return how many of the last attempts, TRIES at most, finished nothing though the database was there."""
    if not left:
        return 0
    attempt = ledger.attempt()
    for count in range(TRIES):
        if attempt is None or attempt.left != left:
            return count
        if not any(error.reason not in _ELSEWHERE for error in ledger.failures(attempt.number)):
            return count
        attempt = ledger.attempt(attempt.number - 1)
    return TRIES


def settles_at(dataset: DatasetStore, index: str, now: datetime) -> datetime | None:
    """Return until when something that pods have sent to an index may still arrive; None where nothing may.

    Of runs that were ended; one that goes on has no end, and nor has one that this machine has not called ended too.
    """
    found = max((_settles(ledger, now) for ledger in _ledgers(dataset, index)), default=now)
    return found if found > now else None


def end(dataset: DatasetStore, index: str, now: Callable[[], datetime]) -> None:
    """End all runs that load an index."""
    for ledger in _ledgers(dataset, index):
        ledger.writers.end(now)


def stop(index: Index) -> None:
    """End all runs, so that one process may load the index; raises Retryable(JOB_FAILED) while pods may still write."""
    end(index.dataset, index.name, index.now)
    now = index.now()
    until = settles_at(index.dataset, index.name, now)
    if until is not None:
        raise Retryable(Reason.JOB_FAILED, waiting(index.name, until), (until - now).total_seconds())


def waiting(index: str, until: datetime) -> str:
    """Return what is waited for, as a clause."""
    return f"what pods that ended without a word have sent to {index} may arrive until {until:%H:%M:%SZ}; going on then"


def is_doubted(dataset: DatasetStore, index: str) -> bool:
    """Return whether pods ended without a word: one that was frozen, not killed, may write once more when it wakes."""
    return any(ledger.writers.names() for ledger in _ledgers(dataset, index))


def forget(dataset: DatasetStore, index: str) -> None:
    """Remove the ledgers of an index."""
    for name, number in dataset.loads():
        if name == index:
            _forget(dataset.load(name, number))


def clean(dataset: DatasetStore, keep: Collection[int], now: Callable[[], datetime]) -> None:
    """Remove the ledgers of snapshots that go, since nobody loads those any more; not while something may arrive."""
    for name, number in dataset.loads():
        if number in keep:
            continue
        ledger = dataset.load(name, number)
        for run in ledger.runs():
            run.writers.end(now)
        if all(_settles(run, now()) <= now() for run in ledger.runs()):
            _forget(ledger)


def _forget(ledger: Ledger) -> None:
    # First: while what ended it goes, no run may seem to be under way to a pod that wakes.
    ledger.give_up()
    ledger.forget()


def _settles(ledger: Ledger, now: datetime) -> datetime:
    """Return until when something of a run's processes may arrive; `now` at the earliest."""
    return (ledger.writers.ended_at() or now) + SETTLES if ledger.writers.names() else now


def _ledgers(dataset: DatasetStore, index: str, besides: int | None = None) -> Iterator[Ledger]:
    for name, number in dataset.loads():
        if name == index and number != besides:
            yield from dataset.load(name, number).runs()
