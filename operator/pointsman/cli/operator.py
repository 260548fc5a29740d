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
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from pointsman import logs, settings
from pointsman.backends import registry as backends
from pointsman.backends.memory import Memory
from pointsman.cli.reach import access_of as access_of
from pointsman.cli.worker import doors
from pointsman.cluster import kube
from pointsman.cluster.resources import PLURALS, Cluster
from pointsman.controller import gateways, handlers, lease
from pointsman.controller.queue import Queue
from pointsman.controller.reconcile import reconcile
from pointsman.controller.world import Databases, World
from pointsman.plan.tasks import Key
from pointsman.store.root import Store
from pointsman.work import fence
from pointsman.work.processes import Either, InProcess, Processes
from pointsman.work.runners import PooledRunner

THREADS = 16
"""Of the loop. They wait for the API server, the store and databases most of the time."""
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
    run(chosen, kube.connect(kubeconfig))


def run(chosen: settings.Settings, cluster: kube.Kube) -> None:
    """Wait until no other operator acts, then look after everything until told to stop."""
    # A kind that the cluster learns of later would not be watched.
    cluster.check_definitions()
    store = Store(chosen.store_uri, chosen.store_options)
    store.probe()
    log.info(logs.Event.STORE_PROBED)
    deadline = fence.Deadline()
    workers = Processes(chosen.work_timeout, deadline=deadline)
    # In a pod nothing ends a process that has not said what it does at SIGTERM. kopf says so once it watches.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with _holding(chosen, cluster, store, deadline, functools.partial(_lost, workers)) as (term, fenced):
            _operate(chosen, cluster, store, workers, term, fenced)
    finally:
        log.info(logs.Event.OPERATOR_STOPPED)


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
    term, done = candidate.acquire(time.sleep), threading.Event()
    renewing = threading.Thread(target=candidate.keep, args=(done, lost), name="lease", daemon=True)
    renewing.start()
    try:
        yield term, fence.Fenced(deadline, lost)
    finally:
        done.set()
        renewing.join()
        candidate.release()


def _operate(
    chosen: settings.Settings,
    cluster: kube.Kube,
    store: Store,
    workers: Processes,
    term: lease.Term,
    fenced: fence.Fence,
) -> None:
    """Put the parts together, run them, and take them apart again in the opposite order."""
    stop = threading.Event()
    access = access_of(chosen, [cluster.address, *cluster.endpoints()], os.environ)
    open_backend = functools.partial(backends.open_backend, shared_memory=Memory())
    here = InProcess(dataclasses.replace(doors(), backend=open_backend), _now)
    runner = PooledRunner(Either(workers, here), _now, lambda key: queue.add(key), chosen.workers)
    databases = Databases(open_backend, access)
    asked = gateways.Gateways(functools.partial(_gateways, chosen, cluster), lambda key: queue.add(key))
    world = World(
        cluster=cluster,
        store=store,
        store_uri=chosen.store_uri,
        store_options=chosen.store_options,
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
    )
    queue = Queue(lambda key: reconcile(key, world, _now()), THREADS, on_error=_failed)
    resync = threading.Thread(target=_resync, args=(queue, cluster, chosen, stop), daemon=True)
    asked.start()
    queue.start()
    resync.start()
    log.info(logs.Event.OPERATOR_STARTED, namespaces=list(chosen.namespaces))
    try:
        handlers.run(handlers.registry(queue.add), chosen.namespaces, cluster.identity)
    finally:
        stop.set()
        queue.stop()
        asked.stop()
        runner.close()
        databases.close()


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


def _resync(queue: Queue, cluster: Cluster, chosen: settings.Settings, stop: threading.Event) -> None:
    """Wake everything from time to time: a lost event costs one period, never more."""
    while not stop.wait(chosen.resync_seconds):
        for kind in PLURALS:
            for namespace in chosen.namespaces or (None,):
                try:
                    found = cluster.list(kind, namespace)
                except Exception as error:
                    log.warning(logs.Event.RECONCILE_FAILED, error=error)
                    continue
                for resource in found:
                    meta = resource["metadata"]
                    queue.add(Key(kind, meta["namespace"], meta["name"]))


def _failed(key: Key, error: BaseException) -> None:
    log.error(logs.Event.RECONCILE_FAILED, resource=f"{key.kind} {key}", exc_info=error)


def _now() -> datetime:
    return datetime.now(UTC)
