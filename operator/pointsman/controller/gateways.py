"""What do the gateways serve? Asked all the time in the background, so that the loop never waits for one.

A gateway is believed for as long as it answers: one that is silent counts as being there, and as serving nobody knows
what. What has changed for a deployment wakes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from pointsman.cluster.resources import DEPLOYMENT
from pointsman.core.guards import Arm
from pointsman.errors import PointsmanError
from pointsman.plan.observed import Gateway, Minute, Shadowed
from pointsman.plan.tasks import Key

EVERY, HURRIED = 2.0, 0.05
"""Seconds between two rounds: at rest, and while a route waits to be served."""
HURRY = 10.0
"""Seconds for which a new route is asked after in a hurry."""
TIMEOUT = 2.0
"""Seconds that a gateway has to answer."""
AT_ONCE = 16
"""How many gateways are asked at a time."""


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
    deployments: Mapping[str, Mapping[str, Any]] | None = None


class Nobody:
    """No gateways: direct clients read the ConfigMap."""

    def of(self, deployment: Key) -> tuple[Gateway, ...]:
        """Return what every gateway said last of one deployment."""
        return ()

    def hurry(self) -> None:
        """Ask nobody."""


class Gateways:
    """The gateways, as they reported last."""

    def __init__(self, find: Find, wake: Callable[[Key], None], client: httpx.Client | None = None) -> None:
        self._find, self._wake = find, wake
        self._client = client or httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)
        self._lock = threading.Lock()
        self._reports: tuple[Report, ...] = ()
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
        return tuple(_seen(report, deployment) for report in self.reports())

    def ask(self) -> None:
        """Ask every gateway once, and wake the deployments of which one says something new."""
        unfound: tuple[Report, ...] = ()
        try:
            addresses = self._find()
        except PointsmanError as error:
            # Whoever was there is taken to be there still, and where nobody was, somebody is taken to be there: a
            # gateway that nobody knows of would else be no reason to keep an index.
            addresses = [report.address for report in self.reports() if report.address != UNKNOWN]
            unfound = () if addresses else (Report(UNKNOWN, f"cannot be listed: {error.message}"),)
        with ThreadPoolExecutor(min(AT_ONCE, max(1, len(addresses)))) as pool:
            reports = (*_distinct(pool.map(self._ask, dict.fromkeys(addresses))), *unfound)
        with self._lock:
            before, self._reports = self._reports, reports
        for key in _changed(before, reports):
            self._wake(key)

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                is_hurried = time.monotonic() < self._hurry_until
            self._nudged.wait(HURRIED if is_hurried else EVERY)
            if self._stopped.is_set():
                return
            self._nudged.clear()
            self.ask()
            if is_hurried:
                # A nudge is no reason to ask without any pause.
                self._stopped.wait(HURRIED)

    def _ask(self, address: Address) -> Report:
        try:
            answer = self._client.get(f"{address.url.rstrip('/')}/report")
            answer.raise_for_status()
            said = answer.json()
            ready = bool(said["ready"]) and not said.get("draining")
            report = Report(address, "", str(said["gateway"]), ready, said["deployments"])
            for key in _keys([report]):
                # What cannot be read is no report, and must not come out only where one deployment is looked at.
                _seen(report, key)
            return report
        except httpx.TimeoutException:
            return Report(address, f"does not answer within {TIMEOUT:g} s")
        except httpx.HTTPStatusError as error:
            return Report(address, f"answers HTTP {error.response.status_code} to GET /report")
        except httpx.HTTPError as error:
            return Report(address, f"cannot be reached ({type(error).__name__})")
        except (ValueError, KeyError, TypeError, AttributeError):
            return Report(address, "answers GET /report with something else than a report")


def _distinct(reports: Iterable[Report]) -> Iterator[Report]:
    """Yield each process once, though a cluster may list it under several addresses: its counts are its own."""
    known: set[str] = set()
    for report in reports:
        if not report.gateway or report.gateway not in known:
            yield report
        known.add(report.gateway)


def _seen(report: Report, deployment: Key) -> Gateway:
    said = (report.deployments or {}).get(str(deployment), {})
    # The gateway knows best; where it is silent, whoever sends it queries does; where nobody does, it may get some.
    ready = report.is_ready if not report.problem else True
    if report.address.is_ready is not None:
        ready = report.address.is_ready and (ready or bool(report.problem))
    totals = {index: int(total.get("queries", 0)) for index, total in said.get("totals", {}).items()}
    return Gateway(
        name=report.address.url,
        is_ready=ready,
        epoch=int(said.get("epoch", 0)),
        revision=int(said.get("revision", 0)),
        answered={index: int(count) for index, count in said.get("answered", {}).items()},
        totals=totals,
        process=report.gateway,
        minutes=tuple(_minute(minute) for minute in said.get("minutes", ())),
        shadowed=_shadowed(said.get("shadow")),
        mispaired=int(said.get("mispaired", 0)),
        problem=report.problem or str(said.get("problem", "")),
    )


def _minute(said: Mapping[str, Any]) -> Minute:
    latency = {int(bucket): count for bucket, count in said.get("latency", {}).items()}
    arm = Arm(said["queries"], said["errors"], said["empty"], latency)
    return Minute(datetime.fromisoformat(said["at"]), said["index"], arm)


def _shadowed(said: Mapping[str, Any] | None) -> Shadowed | None:
    if not said:
        return None
    sent, dropped, compared = (int(said.get(name, 0)) for name in ("sent", "dropped", "compared"))
    return Shadowed(said["index"], sent, dropped, compared, said.get("overlap"), said.get("correlation"))


def _changed(before: Sequence[Report], after: Sequence[Report]) -> set[Key]:
    """Return the deployments of which some gateway says something else than before, but for counts."""
    return {key for key in _keys(before) | _keys(after) if _gist(before, key) != _gist(after, key)}


def _keys(reports: Sequence[Report]) -> set[Key]:
    names = {name for report in reports for name in report.deployments or {}}
    return {Key(DEPLOYMENT, *name.split("/", 1)) for name in names if "/" in name}


def _gist(reports: Sequence[Report], key: Key) -> list[tuple[str, bool, int, int, str]]:
    seen = (_seen(report, key) for report in reports)
    return sorted((g.name, g.is_ready, g.epoch, g.revision, g.problem) for g in seen)
