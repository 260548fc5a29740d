"""`pointsman worker`: carries out jobs that come in on standard input. Started by the operator, never by hand."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

import typer

from pointsman import logs
from pointsman.backends import registry as backends
from pointsman.embedders import registry as embedders
from pointsman.sources import registry as sources
from pointsman.store.root import Store
from pointsman.work import processes
from pointsman.work.jobs import Doors

app = typer.Typer(hidden=True)


def doors() -> Doors:
    """Return the real doors to the outside world."""
    return Doors(
        store=Store,
        source=sources.open_source,
        embedder=embedders.open_embedder,
        backend=backends.open_backend,
    )


@app.callback(invoke_without_command=True)
def worker() -> None:
    """Carry out jobs from standard input, one JSON object a line, until it ends."""
    logs.configure()
    # Libraries may print: standard output belongs to the protocol, so theirs goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    processes.serve(sys.stdin.buffer, answers, doors(), lambda: datetime.now(UTC))
