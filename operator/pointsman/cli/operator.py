"""`pointsman operator`: the loop, its workers and its watches, put together and run until told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn

import typer

from pointsman import logs, settings
from pointsman.api.conditions import Reason
from pointsman.backends import registry as backends
from pointsman.backends.memory import Memory
from pointsman.cli import reach
from pointsman.cli.reach import access_of as access_of
from pointsman.cli.worker import doors
from pointsman.cluster import kube
from pointsman.cluster.batch import Batch
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.jobs import InPods, Means
from pointsman.cluster.kube_batch import KubeBatch
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import PLURALS, Cluster
from pointsman.controller import footprint, gateways, handlers, lease, listener
from pointsman.controller.exposition import Parts
from pointsman.controller.health import Health, Part
from pointsman.controller.metrics import Metrics
from pointsman.controller.queue import Queue
from pointsman.controller.reconcile import reconcile
from pointsman.controller.world import Databases, World
from pointsman.errors import PointsmanError
from pointsman.plan.tasks import Key
from pointsman.store.root import Store
from pointsman.work import fence
from pointsman.work.processes import Either, InProcess, Processes
from pointsman.work.runners import PooledRunner

THREADS = 16
"""Of the loop. They wait for the API server, the store and databases most of the time."""
WATCHED_EVERY, RESYNC_LATE = 60.0, 120.0
"""Seconds after which silence is ill health: of the watches, and of the resync beyond its own pause, as it lists."""
LOOKS = 30
"""Looks a second that nobody has a reason for, of up to 10 ms of one core each: edits need it too, and it is the only
one that the loop can use."""
UNSEEN_EVERY = 5.0
"""Seconds between two attempts to list everything for the first time."""
LOST = 75
"""The exit code of an operator that has lost its Lease: EX_TEMPFAIL of sysexits.h, start it again."""

app = typer.Typer()
log = logs.logger()


@app.callback(invoke_without_command=True)
def operator(
    kubeconfig: Annotated[str | None, typer.Option(envvar="KUBECONFIG", help="How to reach the cluster.")] = None,
) -> None:
    """Look after datasets and deployments until told to stop. Settings are environment variables: docs/settings.md."""
    chosen = settings.load()
    logs.configure(chosen.log_level)
    footprint.keep_small()
    run(chosen, kube.connect(kubeconfig))


def run(chosen: settings.Settings, cluster: kube.Kube) -> None:
    """Wait until no other operator acts, then look after everything until told to stop."""
    # A kind that the cluster learns of later would not be watched.
    cluster.check_definitions()
    store = Store(chosen.store_uri, reach.store_options(chosen))
    store.probe()
    log.info(logs.Event.STORE_PROBED)
    deadline = fence.Deadline()
    workers = Processes(chosen.work_timeout, deadline=deadline)
    # In a pod nothing ends a process that has not said what it does at SIGTERM. kopf says so once it watches.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parts = Parts(Metrics(), Health(), cluster.requests)
    try:
        with (
            _listening(chosen, parts),
            _holding(chosen, cluster, store, deadline, functools.partial(_lost, workers)) as (term, fenced),
        ):
            _operate(chosen, cluster, store, workers, term, fenced, parts)
    finally:
        log.info(logs.Event.OPERATOR_STOPPED)


@contextlib.contextmanager
def _listening(chosen: settings.Settings, parts: Parts) -> Iterator[None]:
    """Answer with metrics and probes where a port was named, while it stands by too."""
    if chosen.metrics_port is None:
        yield
        return
    found = listener.Listener(chosen.metrics_host, chosen.metrics_port, listener.pages(parts))
    found.start()
    try:
        yield
    finally:
        found.stop()


@contextlib.contextmanager
def _holding(
    chosen: settings.Settings, cluster: Cluster, store: Store, deadline: fence.Deadline, lost: fence.Lost
) -> Iterator[tuple[lease.Term, fence.Fence]]:
    """Stand by for the Lease, renew it while it is needed, and give it back."""
    place = (chosen.lease_namespace or kube.own_namespace(), chosen.lease_name)
    # No two processes are the same, or one that was started anew would believe that its ancestor's Lease is its own.
    holder = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
    epochs = store.log(*lease.EPOCHS)
    candidate = lease.Candidate(cluster, epochs, place, holder, chosen.lease_seconds, deadline, fence.clock, _now)
    done = threading.Event()
    renewing = threading.Thread(target=candidate.keep, args=(done, lost), name="lease", daemon=True)
    try:
        # Whoever is told to end in the moment in which it takes the Lease gives it back as well.
        term = candidate.acquire(time.sleep)
        renewing.start()
        yield term, fence.Fenced(deadline, lost)
    finally:
        done.set()
        if renewing.is_alive():
            renewing.join()
        candidate.release()


def _operate(
    chosen: settings.Settings,
    cluster: kube.Kube,
    store: Store,
    workers: Processes,
    term: lease.Term,
    fenced: fence.Fence,
    parts: Parts,
) -> None:
    """Put the parts together, run them, and take them apart again in the opposite order."""
    stop, mirror = threading.Event(), Mirror()
    access = access_of(chosen, [cluster.address, *cluster.endpoints()], os.environ)
    open_backend = functools.partial(backends.open_backend, shared_memory=Memory())
    here = InProcess(dataclasses.replace(doors(), backend=open_backend), _now)
    # Where no pods may be made, nobody has the right to ask for Jobs.
    batch: Batch = KubeBatch(cluster.call) if chosen.job_image else MemoryBatch()
    means = Means(batch, cluster, pods_of(chosen), Store, _now, fenced)
    carrier = InPods(Either(workers, here), means, chosen.workers)
    runner = PooledRunner(carrier, _now, lambda key: queue.add(key), chosen.workers)
    databases = Databases(open_backend, access)
    asked = gateways.Gateways(functools.partial(_gateways, chosen, cluster), lambda key: queue.add(key))
    world = World(
        cluster=cluster,
        store=store,
        store_uri=chosen.store_uri,
        store_options=reach.store_options(chosen),
        runner=runner,
        databases=databases,
        access=access,
        wake=lambda key: queue.add(key),
        started=_now(),
        fence=fenced,
        holder=term.holder,
        epoch=term.epoch,
        taken_over=term.taken_over,
        gateways=asked,
        batch=means.batch,
        metrics=parts.metrics,
        mirror=mirror,
    )
    queue = Queue(lambda key: _timed(key, world), THREADS, on_error=functools.partial(_failed, parts.metrics))
    resync = threading.Thread(target=_resync, args=(queue, mirror, cluster, chosen, parts.health, stop), daemon=True)
    parts.queue, parts.gateways = queue, asked
    try:
        # It may be told to end from here on, at any moment, and the threads of the loop would outlive that.
        asked.start()
        queue.start()
        _watch_over(parts.health, queue, term, chosen)
        resync.start()
        log.info(logs.Event.OPERATOR_STARTED, namespaces=list(chosen.namespaces))
        beat = functools.partial(parts.health.beat, Part.WATCHES)
        handlers.run(handlers.registry(mirror, queue.add, queue.look), chosen.namespaces, cluster.identity, beat)
    finally:
        stop.set()
        queue.stop()
        asked.stop()
        runner.close()
        databases.close()


def pods_of(chosen: settings.Settings) -> Pods:
    """Return what the settings say of the pods that embed."""
    return Pods(
        image=chosen.job_image,
        service_account=chosen.job_service_account,
        pull_secrets=chosen.job_pull_secrets,
        priority_classes=chosen.job_priority_classes,
        is_store_shared=chosen.job_store_shared,
        store_claim=chosen.job_store_claim,
        store_mount=chosen.job_store_mount,
    )


def _gateways(chosen: settings.Settings, cluster: kube.Kube) -> list[gateways.Address]:
    """Return every gateway that there is: those of the settings, and those behind the Service that they name."""
    found = [gateways.Address(url) for url in chosen.gateways]
    if chosen.gateway_service:
        namespace, _, name = chosen.gateway_service.partition("/")
        found += [gateways.Address(url, is_ready) for url, is_ready in cluster.gateways(namespace, name)]
    return found


def _lost(workers: Processes, why: str) -> NoReturn:
    """End this process and its workers where they stand: another operator acts, or soon will."""
    log.error(logs.Event.LEASE_LOST, why=why)
    workers.kill()
    os._exit(LOST)


def _watch_over(health: Health, queue: Queue, term: lease.Term, chosen: settings.Settings) -> None:
    health.lead(term.epoch)
    health.serve(queue)
    health.expect(Part.WATCHES, WATCHED_EVERY)
    health.expect(Part.RESYNC, chosen.resync_seconds + RESYNC_LATE)


def _resync(
    queue: Queue, mirror: Mirror, cluster: Cluster, chosen: settings.Settings, health: Health, stop: threading.Event
) -> None:
    """Wake everything at the start and from time to time: a lost event costs one period, never more."""
    period = chosen.resync_seconds
    while True:
        # At the start all is due. Later each has its own moment in the period, so that thousands do not come at once.
        found = woken(queue, mirror, cluster, chosen, health, period if health.is_synced else 0.0)
        if found is not None:
            health.sync()
            period = paced(found, chosen.resync_seconds)
            health.expect(Part.RESYNC, period + RESYNC_LATE)
        footprint.give_back()
        if stop.wait(period if health.is_synced else min(period, UNSEEN_EVERY)):
            return


def paced(resources: int, wanted: float) -> float:
    """Return the seconds in which each of so many resources is looked at: longer than wanted with thousands of them."""
    return max(wanted, resources / LOOKS)


def woken(
    queue: Queue, mirror: Mirror, cluster: Cluster, chosen: settings.Settings, health: Health, within: float = 0.0
) -> int | None:
    """List every resource and have it looked at within so many seconds; return how many, None if not all are listed."""
    is_whole, found = True, []
    for kind in PLURALS:
        for namespace in chosen.namespaces or (None,):
            health.beat(Part.RESYNC)
            try:
                with mirror.listing(kind, namespace) as listing:
                    for page in cluster.pages(kind, namespace):
                        found += listing.take(page)
            except Exception as error:
                log.warning(logs.Event.RECONCILE_FAILED, error=error)
                is_whole = False
    if is_whole:
        mirror.complete()
    for key in found:
        queue.look(key, timedelta(seconds=within * zlib.crc32(str(key).encode()) / 2**32))
    return len(found) if is_whole else None


def _timed(key: Key, world: World) -> timedelta | None:
    began = time.monotonic()
    try:
        return reconcile(key, world, _now())
    finally:
        world.metrics.took(key.kind, time.monotonic() - began)


def _failed(metrics: Metrics, key: Key, error: BaseException) -> None:
    metrics.failed(key.kind, error.reason if isinstance(error, PointsmanError) else Reason.INTERNAL_ERROR)
    log.error(logs.Event.RECONCILE_FAILED, resource=f"{key.kind} {key}", exc_info=error)


def _now() -> datetime:
    return datetime.now(UTC)
