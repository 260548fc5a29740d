"""`pointsman control-plane`: a Kubernetes API server on this machine, for a first look and for development."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from pointsman.controlplane import binaries, daemon, plane

app = typer.Typer(
    name="control-plane",
    help="A Kubernetes control plane on this machine, without containers or root.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready; `control-plane down` ends it.")
    ] = False,
) -> None:
    """Start an API server, etcd and a controller manager on loopback.

    They run until Ctrl-C, or with --detach until `control-plane down`. The kubeconfig lies in a folder of its own;
    yours is neither read nor changed.
    """
    finder = binaries.Finder()
    began = time.monotonic()
    found = finder.find()
    if detach:
        state = daemon.up(daemon.Place(finder.home()))
        _explain(state.kubeconfig, began, "pointsman control-plane down")
    else:
        _run_until_interrupted(found, began)


@app.command()
def down() -> None:
    """End the control plane that `up --detach` started."""
    ended = daemon.down(daemon.Place(binaries.Finder().home()))
    typer.echo("no control plane runs in the background" if ended is None else f"ended {ended.server}")


def _run_until_interrupted(found: binaries.Binaries, began: float) -> None:
    # SIGTERM ends it as Ctrl-C does, with everything put away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with plane.start(found) as cluster:
            _explain(cluster.kubeconfig, began, "Ctrl-C")
            while True:
                time.sleep(0.5)
                cluster.check()
    except KeyboardInterrupt:
        typer.echo("ended")


def _explain(kubeconfig: Path, began: float, end: str) -> None:
    typer.echo(f"The control plane is ready after {time.monotonic() - began:.1f} s. Use it with\n")
    typer.echo(f"  export KUBECONFIG={kubeconfig}\n")
    typer.echo(f"and end it with {end}.")
