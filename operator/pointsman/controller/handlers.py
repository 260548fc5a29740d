"""The edge: kopf watches, and whatever it sees only wakes the loop.

No handler here looks at what has changed, keeps state or waits. kopf writes nothing: there is no handler of the
kinds that make it leave annotations or finalizers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from pointsman.api import base
from pointsman.controller.cluster import DATASET, DEPLOYMENT, PLURALS, QUERY_SET
from pointsman.plan.tasks import Key

Wake = Callable[[Key], None]


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

    return handlers


def run(handlers: kopf.OperatorRegistry, namespaces: Sequence[str], kubeconfig: str | None) -> None:
    """Watch until SIGTERM or SIGINT. Returns, or raises, when a watch has died: the process ends and starts again."""

    @kopf.on.login(registry=handlers)
    async def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is not None:
            os.environ["KUBECONFIG"] = kubeconfig
        return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)

    # kopf listens to the signals itself; beside that, a flag to stop by would be a thread that outwaits the end.
    asyncio.run(
        kopf.operator(
            registry=handlers,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
        )
    )
