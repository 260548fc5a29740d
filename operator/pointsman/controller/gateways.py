"""What do the gateways serve? Asked all the time in the background, so that the loop never waits for one.

A gateway is believed for as long as it answers: one that is silent counts as being there, and as serving nobody knows
what. What has changed for a deployment wakes it.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

import httpx
import orjson

from pointsman import logs
from pointsman.cluster.resources import DEPLOYMENT
from pointsman.core import shifts
from pointsman.core.guards import Arm
from pointsman.errors import PointsmanError, unforeseen
from pointsman.plan.reported import Day, Gateway, Minute, Shadowed
from pointsman.plan.tasks import Key

EVERY, HURRIED = 2.0, 0.05
"""Seconds between two rounds: at rest, and while a route waits to be served."""
HURRY = 10.0
"""Seconds for which a new route is asked after in a hurry."""
TIMEOUT = 2.0
"""Seconds that a gateway has to begin to answer, and to go on."""
WHOLE = 10.0
"""Seconds that a whole answer may take."""
IMPATIENT = 0.2
"""Seconds that a round waits, in a hurry, before it goes on with what those said last who are late."""
MOST_BYTES: Final = 256 << 20
"""Of a report."""
REMEMBERED = 7_200.0
"""Seconds for which it is remembered what a process told last that has ended or is silent: until it is written down."""
MOST_REMEMBERED = 256
AT_ONCE = 16
"""How many gateways are asked at a time."""

log = logs.logger()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway's admin port is."""

    url: str
    is_ready: bool | None = None
    """Whether the cluster sends queries there; None where only the gateway itself knows."""


UNKNOWN = Address("gateways")
"""Stands for gateways that nobody could be asked for."""
Find = Callable[[], Sequence[Address]]
"""Finds every gateway that there is, ready or not."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one gateway said last."""

    address: Address
    problem: str = ""
    gateway: str = ""
    """The process that answered: another one counts from zero."""
    is_ready: bool = False
    namespaces: frozenset[str] = frozenset()
    """What it watches, all where there are none: of deployments elsewhere it knows nothing, and need not."""
    said: Mapping[str, bytes] = field(default_factory=dict)
    """A digest of what it said of each deployment: of thousands, most say what they said before."""
    deployments: Mapping[str, Gateway] = field(default_factory=dict)
    """What it said of each, as it was read."""

    def of(self, deployment: Key) -> Gateway | None:
        """Return what it said of a deployment; None where that is none of its business."""
        if self.namespaces and deployment.namespace not in self.namespaces:
            return None
        # The gateway knows best; where it is silent, whoever sends it queries does; where nobody does, it may get some.
        ready = self.is_ready if not self.problem else True
        if self.address.is_ready is not None:
            ready = self.address.is_ready and ready
        found = self.deployments.get(str(deployment))
        if found is None:
            return Gateway(self.address.url, ready, process=self.gateway, problem=self.problem)
        return replace(found, name=self.address.url, is_ready=ready)


@dataclass(frozen=True, slots=True)
class _Gone:
    """What a process told last that tells nothing now."""

    since: float
    days: Mapping[str, tuple[Day, ...]]
    """By deployment."""


class Nobody:
    """No gateways: direct clients read the ConfigMap."""

    def of(self, deployment: Key) -> tuple[Gateway, ...]:
        """Return what every gateway said last of one deployment."""
        return ()

    def days(self, deployment: Key) -> Mapping[str, tuple[Day, ...]]:
        """Return what each process told last of the scores of a deployment."""
        return {}

    def hurry(self) -> None:
        """Ask nobody."""


class Gateways:
    """The gateways, as they reported last."""

    def __init__(self, find: Find, wake: Callable[[Key], None], client: httpx.Client | None = None) -> None:
        self._find, self._wake = find, wake
        self._client = client or httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)
        self._lock = threading.Lock()
        self._reports: tuple[Report, ...] = ()
        self._gone: dict[str, _Gone] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gateways")
        self._asking: dict[str, Future[Report]] = {}
        self._hurry_until = 0.0
        self._nudged, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateways", daemon=True)

    def start(self) -> None:
        """Ask once, so that nothing is decided before anybody was asked, and go on asking."""
        self.ask()
        self._thread.start()

    def stop(self) -> None:
        """End the asking."""
        self._stopped.set()
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def hurry(self) -> None:
        """Ask often for a while: a route was written and waits to be served."""
        with self._lock:
            self._hurry_until = time.monotonic() + HURRY
        self._nudged.set()

    def reports(self) -> tuple[Report, ...]:
        """Return what every gateway said last."""
        with self._lock:
            return self._reports

    def of(self, deployment: Key) -> tuple[Gateway, ...]:
        """Return what every gateway said last of one deployment."""
        found = (report.of(deployment) for report in self.reports())
        return tuple(gateway for gateway in found if gateway is not None)

    def days(self, deployment: Key) -> Mapping[str, tuple[Day, ...]]:
        """Return what each process told last of the scores of a deployment, of those too that have ended since."""
        with self._lock:
            reports, gone = self._reports, dict(self._gone)
        told = {process: each.days.get(str(deployment), ()) for process, each in gone.items()}
        for report in reports:
            if (found := report.deployments.get(str(deployment))) is not None:
                told[report.gateway] = found.days
        return {process: days for process, days in told.items() if days}

    def ask(self, patience: float = 2 * WHOLE) -> None:
        """Ask every gateway once, and wake the deployments of which one says something new.

        Whoever has not answered within `patience` seconds is taken at their last word until they have, or have failed
        to: one that is slow keeps nobody from hearing of the others. Asked by one thread at a time.
        """
        unfound: tuple[Report, ...] = ()
        try:
            addresses = self._find()
        except PointsmanError as error:
            # Whoever was there is taken to be there still, and where nobody was, somebody is taken to be there: a
            # gateway that nobody knows of would else be no reason to keep an index.
            addresses = [report.address for report in self.reports() if report.address != UNKNOWN]
            unfound = () if addresses else (Report(UNKNOWN, f"cannot be listed: {error.message}"),)
        known = {report.address.url: report for report in self.reports()}
        wanted = {address.url: address for address in reversed(addresses)}
        for url, address in reversed(wanted.items()):
            if url not in self._asking:
                self._asking[url] = self._pool.submit(self._ask, address, known.get(url))
        concurrent.futures.wait([self._asking[url] for url in wanted], patience)
        heard = {url: asking.result() for url, asking in self._asking.items() if asking.done()}
        for url in heard:
            del self._asking[url]
        said = (
            replace(heard.get(url) or known.get(url) or Report(address, "has not answered yet"), address=address)
            for url, address in reversed(wanted.items())
        )
        reports = (*_distinct(said), *unfound)
        with self._lock:
            before, self._reports = self._reports, reports
            self._gone = _remembered(self._gone, before, reports)
        for key in _changed(before, reports):
            self._wake(key)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                is_hurried = time.monotonic() < self._hurry_until
            self._nudged.wait(HURRIED if is_hurried else EVERY)
            if self._stopped.is_set():
                return
            is_hurried = is_hurried or self._nudged.is_set()
            self._nudged.clear()
            try:
                self.ask(IMPATIENT if is_hurried else TIMEOUT)
            except Exception as error:
                # Without anybody who asks, what was said last would be believed for ever.
                log.error(logs.Event.WATCH_FAILED, kind="gateways", exc_info=error)
            if is_hurried:
                # A nudge is no reason to ask without any pause.
                self._stopped.wait(HURRIED)

    def _ask(self, address: Address, before: Report | None) -> Report:
        namespaces = frozenset[str]() if before is None else before.namespaces
        try:
            return _read(address, orjson.loads(self._get(f"{address.url.rstrip('/')}/report")), before)
        except httpx.TimeoutException:
            problem = f"does not answer within {TIMEOUT:g} s"
        except httpx.HTTPStatusError as error:
            problem = f"answers HTTP {error.response.status_code} to GET /report"
        except httpx.HTTPError as error:
            problem = f"cannot be reached ({type(error).__name__})"
        except (ValueError, KeyError, TypeError, AttributeError):
            problem = "answers GET /report with something else than a report"
        except Exception as error:
            # An address that is none, for one. Whatever it is, it is that gateway's trouble alone.
            problem = unforeseen(error).message
        return Report(address, problem, namespaces=namespaces)

    def _get(self, url: str) -> bytes:
        until, parts, size = time.monotonic() + WHOLE, [], 0
        with self._client.stream("GET", url) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise ValueError("that is no report")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer does not end")
        return b"".join(parts)


def _read(address: Address, said: Any, before: Report | None) -> Report:
    """Read a report; what it says of most deployments is what it said before, and was read then."""
    process, deployments = str(said["gateway"]), dict(said["deployments"])
    known = before if before is not None and before.gateway == process else None
    digests = {name: hashlib.sha256(orjson.dumps(each)).digest() for name, each in deployments.items()}
    found = {}
    for name, each in deployments.items():
        is_same = known is not None and known.said.get(name) == digests[name]
        found[name] = known.deployments[name] if known is not None and is_same else _seen(process, each)
    return Report(
        address,
        gateway=process,
        is_ready=bool(said["ready"]) and not said.get("draining"),
        namespaces=frozenset(map(str, said.get("namespaces") or ())),
        said=digests,
        deployments=found,
    )


def _remembered(gone: Mapping[str, _Gone], before: Iterable[Report], after: Iterable[Report]) -> dict[str, _Gone]:
    """Return whose last words are kept: theirs who have ended or fallen silent since a while ago."""
    now, there = time.monotonic(), {report.gateway for report in after}
    kept = {name: each for name, each in gone.items() if name not in there and now - each.since < REMEMBERED}
    for report in before:
        if report.gateway and report.gateway not in there:
            days = {name: found.days for name, found in report.deployments.items() if found.days}
            kept[report.gateway] = _Gone(now, days)
    return dict(list(kept.items())[-MOST_REMEMBERED:])


def _distinct(reports: Iterable[Report]) -> Iterator[Report]:
    """Yield each process once, though a cluster may list it under several addresses: its counts are its own."""
    known: set[str] = set()
    for report in reports:
        if not report.gateway or report.gateway not in known:
            yield report
        known.add(report.gateway)


def _seen(process: str, said: Mapping[str, Any]) -> Gateway:
    """Read what a gateway says of a deployment; its name and whether it is ready are for the report to say."""
    # A query that failed was answered by nobody.
    counts = said.get("totals", {}).items()
    totals = {index: int(total.get("queries", 0)) - int(total.get("errors", 0)) for index, total in counts}
    return Gateway(
        name="",
        is_ready=False,
        epoch=int(said.get("epoch", 0)),
        revision=int(said.get("revision", 0)),
        answered={index: int(count) for index, count in said.get("answered", {}).items()},
        totals=totals,
        process=process,
        minutes=tuple(_minute(minute) for minute in said.get("minutes", ())),
        days=tuple(_day(day) for day in said.get("days", ())),
        shadowed=_shadowed(said.get("shadow")),
        held=tuple(str(index) for index in said.get("held", ())),
        mispaired=int(said.get("mispaired", 0)),
        problem=str(said.get("problem", "")),
        problems={str(index): str(why) for index, why in (said.get("problems") or {}).items()},
    )


def _minute(said: Mapping[str, Any]) -> Minute:
    latency = {int(bucket): count for bucket, count in said.get("latency", {}).items()}
    arm = Arm(said["queries"], said["errors"], said["empty"], latency)
    return Minute(datetime.fromisoformat(said["at"]), said["index"], arm)


def _day(said: Mapping[str, Any]) -> Day:
    scores = {int(score): int(count) for score, count in said["scores"].items()}
    if any(not 0 <= score < shifts.BINS or count < 0 for score, count in scores.items()):
        raise ValueError("that is no histogram")
    # As it is compared: anything but a date is no report.
    return Day(date.fromisoformat(said["date"]).isoformat(), str(said["index"]), int(said["sessions"]), scores)


def _shadowed(said: Mapping[str, Any] | None) -> Shadowed | None:
    if not said:
        return None
    sent, dropped, compared = (int(said.get(name, 0)) for name in ("sent", "dropped", "compared"))
    return Shadowed(said["index"], sent, dropped, compared, said.get("overlap"), said.get("correlation"))


def _changed(before: Sequence[Report], after: Sequence[Report]) -> set[Key]:
    """Return the deployments of which some gateway says something else than before, but for counts."""
    names = {name for report in (*before, *after) for name in report.deployments}
    if [_stance(report) for report in before] == [_stance(report) for report in after]:
        # Of thousands, most are the very objects that they were.
        pairs = [(old.deployments, new.deployments) for old, new in zip(before, after, strict=True)]
        names = {name for name in names if any(old.get(name) is not new.get(name) for old, new in pairs)}
    keys = {Key(DEPLOYMENT, *name.split("/", 1)) for name in names if "/" in name}
    return {key for key in keys if _gist(before, key) != _gist(after, key)}


def _stance(report: Report) -> tuple[Address, str, bool, frozenset[str]]:
    return report.address, report.problem, report.is_ready, report.namespaces


def _gist(reports: Sequence[Report], key: Key) -> list[tuple[str, bool, int, int, str, tuple[str, ...]]]:
    seen = (found for report in reports if (found := report.of(key)) is not None)
    return sorted((g.name, g.is_ready, g.epoch, g.revision, g.problem, g.held) for g in seen)
