"""The port of whoever runs the gateway: what it serves, what it measured, and whether it is well."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from pointsman.gateway import app, metrics, telemetry
from pointsman.gateway.directory import Directory

AT_ONCE_SECONDS: Final = 0.001
"""How long a report may keep queries waiting."""


async def report(gateway: app.Gateway, directory: Directory, state: app.State) -> dict[str, Any]:
    """Return what the operator polls: the revision that serves each deployment, and its counts.

    Each deployment's numbers are of one moment; between two, queries go on.
    """
    found, since = {}, time.perf_counter()
    for name, deployment in list(directory.deployments.items()):
        found["/".join(name)] = deployment.report()
        if time.perf_counter() - since > AT_ONCE_SECONDS:
            await asyncio.sleep(0)
            since = time.perf_counter()
    return {
        "gateway": state.gateway,
        "namespaces": list(state.namespaces),
        "startedAt": telemetry.iso(state.started),
        "ready": gateway.is_ready,
        "draining": state.is_draining,
        "deployments": {name: each for name, each in found.items() if each is not None},
    }


def application(gateway: app.Gateway, directory: Directory, state: app.State) -> Starlette:
    """Return the application of the admin port."""
    registry = metrics.registry(directory, state)

    async def reported(request: Request) -> Response:
        return Response(orjson.dumps(await report(gateway, directory, state)), media_type=app.JSON)

    async def measured(request: Request) -> Response:
        # The counts are taken here, where nothing moves meanwhile; writing them is the longer part.
        families = list(registry.collect())
        text = await asyncio.to_thread(metrics.text, families)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return Starlette(
        routes=[
            Path("/report", reported, methods=["GET"]),
            Path("/metrics", measured, methods=["GET"]),
            *gateway.probes(),
        ]
    )
