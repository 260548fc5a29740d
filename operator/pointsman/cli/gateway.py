"""`pointsman gateway`: the query router, put together and run until told to stop."""

from __future__ import annotations

import functools
import os
from typing import Annotated

import typer

from pointsman import access, logs, ports, settings
from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.backends import registry as backends
from pointsman.cli.reach import access_of
from pointsman.cluster import kube
from pointsman.core.recipes import Space
from pointsman.embedders import registry as embedders
from pointsman.errors import Terminal
from pointsman.gateway import server, tracing

app = typer.Typer()

PATIENCE = 1.0
"""Seconds that a model may ask for patience while a person waits."""


@app.callback(invoke_without_command=True)
def gateway(
    kubeconfig: Annotated[str | None, typer.Option(envvar="KUBECONFIG", help="How to reach the cluster.")] = None,
) -> None:
    """Answer queries until told to stop. Settings are environment variables: docs/settings.md."""
    shared, chosen = settings.load(), settings.load_gateway()
    logs.configure(shared.log_level)
    cluster = kube.connect(kubeconfig)
    allowed = access_of(shared, [cluster.address, *cluster.endpoints()], os.environ)
    embedder = functools.partial(open_embedder, chosen.timeout.total_seconds())
    tracer = open_tracer if chosen.traces else None
    server.run(chosen, shared.namespaces, cluster, allowed, backends.open_backend, embedder, tracer)


def open_tracer(gateway: str) -> tracing.Tracer:
    """Load OpenTelemetry, which nobody pays for where traces are off, and begin to collect spans.

    Raises Terminal(INVALID_SPEC) where it is not installed, or not to be used as its variables say.
    """
    try:
        from pointsman.gateway import spans
    except ImportError:
        variable = f"{settings.GATEWAY_PREFIX}TRACES"
        what = "is true and OpenTelemetry is not installed; install pointsman[traces]"
        raise Terminal(Reason.INVALID_SPEC, f"{variable} {what}") from None
    return spans.start(os.environ, gateway)


def open_embedder(
    seconds: float,
    space: Space,
    endpoint: dataset_api.Endpoint | None,
    api_key: str | None,
    allowed: access.Access,
    model: dataset_api.ModelChoice,
) -> ports.Embedder:
    """Open a model for somebody who waits: one attempt, whose answer may take so many seconds."""
    patience = embedders.Patience(attempts=1, seconds=PATIENCE, read_seconds=seconds)
    return embedders.open_embedder(space, endpoint, api_key, allowed, model, patience)
