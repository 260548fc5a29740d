"""The port of whoever runs the gateway: what it serves, what it measured, and whether it is well."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from pointsman.gateway import app, metrics, telemetry
from pointsman.gateway.directory import Directory


def report(gateway: app.Gateway, directory: Directory, state: app.State) -> dict[str, Any]:
    """Return what the operator polls: the revision that serves each deployment, and its counts."""
    found = {"/".join(name): deployment.report() for name, deployment in directory.deployments.items()}
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
        return Response(orjson.dumps(report(gateway, directory, state)), media_type=app.JSON)

    async def measured(request: Request) -> Response:
        return Response(metrics.text(registry), media_type=metrics.CONTENT_TYPE)

    return Starlette(
        routes=[
            Path("/report", reported, methods=["GET"]),
            Path("/metrics", measured, methods=["GET"]),
            *gateway.probes(),
        ]
    )
