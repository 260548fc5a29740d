"""The edge: kopf watches, and whatever it sees only wakes the loop.

No handler here looks at what has changed, keeps state or waits. kopf writes nothing: there is no handler of the
kinds that make it leave annotations or finalizers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from pointsman.api import base
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, PLURALS, QUERY_SET, Identity
from pointsman.plan.tasks import Key

Wake = Callable[[Key], None]
BEAT_EVERY = 1.0
"""Seconds between two signs of life of the event loop that watches."""


def registry(wake: Wake) -> kopf.OperatorRegistry:
    """Return the handlers: each turns what it saw into keys and hands them over."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.inactivity_timeout = 70
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.networking.connect_timeout = 10
        settings.networking.request_timeout = 60
        settings.persistence.finalizer = f"{base.GROUP}/kopf-unused"

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[DATASET], registry=handlers)
    async def dataset(namespace: str | None, name: str | None, **_: Any) -> None:
        wake(Key(DATASET, namespace or "", name or ""))

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[DEPLOYMENT], registry=handlers)
    async def deployment(namespace: str | None, name: str | None, spec: kopf.Spec, **_: Any) -> None:
        wake(Key(DEPLOYMENT, namespace or "", name or ""))
        # What a deployment wants decides what its dataset keeps and embeds first.
        dataset = spec.get("datasetRef", {}).get("name")
        if dataset:
            wake(Key(DATASET, namespace or "", dataset))

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[QUERY_SET], registry=handlers)
    async def query_set(namespace: str | None, name: str | None, **_: Any) -> None:
        wake(Key(QUERY_SET, namespace or "", name or ""))

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[APPROVAL], registry=handlers)
    async def approval(namespace: str | None, name: str | None, spec: kopf.Spec, **_: Any) -> None:
        wake(Key(APPROVAL, namespace or "", name or ""))
        target = spec.get("target", {}).get("name")
        if target:
            wake(Key(DEPLOYMENT, namespace or "", target))

    return handlers


def run(
    handlers: kopf.OperatorRegistry,
    namespaces: Sequence[str],
    identity: Callable[[], Identity],
    beat: Callable[[], None],
) -> None:
    """Watch, as whoever `identity` says, until SIGTERM or SIGINT; call `beat` for as long as the event loop goes on.

    Returns, or raises, when a watch has died: the process ends and starts again.
    """

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        # kopf's own ways look for an identity by themselves, and in a pod they would pass over a chosen kubeconfig.
        # A token may have to be fetched by another program, which the event loop must not wait for.
        return connection(await asyncio.to_thread(identity))

    async def watch() -> None:
        task = asyncio.create_task(beating(beat))
        try:
            # It listens to the signals itself; beside that, a flag to stop by would be a thread that outwaits the end.
            await kopf.operator(
                registry=handlers,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=list(namespaces),
            )
        finally:
            task.cancel()

    asyncio.run(watch())


async def beating(beat: Callable[[], None]) -> None:
    """Call `beat` from time to time, for as long as the event loop goes on."""
    while True:
        beat()
        await asyncio.sleep(BEAT_EVERY)


def connection(identity: Identity) -> kopf.ConnectionInfo:
    """Return an identity as kopf knows it."""
    scheme, _, token = (identity.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=identity.server,
        ca_path=identity.ca_path,
        insecure=not identity.is_verified,
        scheme=scheme or None,
        token=token or None,
        certificate_path=identity.certificate_path,
        private_key_path=identity.key_path,
        proxy_url=identity.proxy_url,
    )
