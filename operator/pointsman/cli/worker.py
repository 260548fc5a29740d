"""`pointsman worker`: carries out jobs that come in on standard input. Started by the operator, never by hand."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from pointsman import logs
from pointsman.backends import registry as backends
from pointsman.embedders import registry as embedders
from pointsman.sources import registry as sources
from pointsman.store.root import Store
from pointsman.work import processes
from pointsman.work.fence import Deadline, Fenced
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
def worker(deadline: Annotated[int | None, typer.Option(help="Descriptor of the operator's deadline.")] = None) -> None:
    """Carry out jobs from standard input, one JSON object a line, until it ends."""
    logs.configure()
    # Libraries may print: standard output belongs to the protocol, so theirs goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    fence = None if deadline is None else Fenced(Deadline(deadline), _orphaned)
    if fence is not None:
        threading.Thread(target=fence.watch, daemon=True).start()
    processes.serve(sys.stdin.buffer, answers, doors(), lambda: datetime.now(UTC), fence)


def _orphaned(_why: str) -> NoReturn:
    """End at once: the operator says why, or the one that replaced it has gone on by now."""
    os._exit(processes.ORPHANED)
