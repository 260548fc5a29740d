"""The command line: what the commands are called and take. What they do is imported when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

import pointsman
from pointsman.cli import release

UNKNOWN = 3
"""The exit code where a command could not find out or do what it was asked for."""
INTERRUPTED = 130
UNFORESEEN = 70
"""EX_SOFTWARE of sysexits.h."""
USAGE = 64
"""EX_USAGE of sysexits.h: 2 would be mistaken for a timeout."""

EPILOG = """Global options may stand anywhere. Exit codes: 0 done, 1 rejected, stalled or degraded, 2 timeout, 3 could
not be done or found out, 64 wrong usage."""

app = typer.Typer(
    name="pointsman",
    help="See and steer datasets and index deployments. Also installed as kubectl-pointsman.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help does not import rich, which would be a third of its time.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print the result.")]
Store = Annotated[
    str | None, typer.Option("--store", help="Where the store is; by default POINTSMAN_STORE.", show_default=False)
]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait, such as 90s, 5m or 1h.")]
Reference = Annotated[str, typer.Argument(metavar="[KIND/]NAME", help="Such as idx/papers or eds/papers.")]
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pointsman {pointsman.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    context: typer.Context,
    kubeconfig: Annotated[
        str | None, typer.Option(help="The kubeconfig to use; by default KUBECONFIG or ~/.kube/config.")
    ] = None,
    kube_context: Annotated[str | None, typer.Option("--context", help="The kubeconfig's context to use.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="The namespace; by default that of the context.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """See and steer datasets and index deployments. Also installed as kubectl-pointsman."""
    from pointsman.cli import session

    context.obj = session.Session(context.obj or session.real(), kubeconfig, kube_context, namespace)


@app.command(short_help="Show datasets and deployments as a tree.")
def get(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[KIND/]NAME", show_default=False)] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look into all namespaces.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing until interrupted.")] = False,
) -> None:
    """Show datasets with their versions and deployments with their indexes, as a tree."""
    from pointsman.cli import get as command

    raise typer.Exit(command.run(context.obj, name, all_namespaces, watch))


@app.command(short_help="Wait until a resource is Ready, Stalled or Degraded.")
def status(
    context: typer.Context,
    name: Reference,
    timeout: Timeout = "5m",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Wait, or look once.")] = True,
    output: Output = "text",
) -> None:
    """Wait until a resource is Ready (exit 0), rejected, stalled or degraded (1), or the time is up (2)."""
    from pointsman.cli import status as command

    raise typer.Exit(command.run(context.obj, name, timeout, watch, output == "json"))


@app.command(short_help="Count what differs between two versions.")
def diff(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    old: Annotated[str, typer.Argument(metavar="A", help="v7@12, v7 for its newest, or @12 for content alone.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The same for the other side.")],
    ids: Annotated[
        str | None, typer.Option("--ids", metavar="CAUSE", help="List the documents that changed for one cause.")
    ] = None,
    output: Output = "text",
    store: Store = None,
) -> None:
    """Count what differs between two versions or two snapshots, by cause."""
    from pointsman.cli import diff as command

    raise typer.Exit(command.run(context.obj, dataset, old, new, ids, output == "json", store))


@app.command(short_help="Show what served when.")
def history(context: typer.Context, name: Reference, store: Store = None) -> None:
    """Show what a deployment served when, or the snapshots of a dataset."""
    from pointsman.cli import history as command

    raise typer.Exit(command.run(context.obj, name, store))


@app.command(short_help="Have a dataset's source read again now.")
def refresh(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the source was read.")] = False,
    timeout: Timeout = "5m",
) -> None:
    """Have a dataset's source read again now."""
    from pointsman.cli import refresh as command

    raise typer.Exit(command.run(context.obj, dataset, wait, timeout))


@app.command(short_help="Write an embedded snapshot to Parquet.")
def export(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    point: Annotated[str, typer.Argument(metavar="VERSION[@SNAPSHOT]", help="Such as v7@12; v7 is its newest.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The Parquet file to write.", dir_okay=False)],
    store: Store = None,
) -> None:
    """Write ids, texts, vectors, metadata and provenance of an embedded snapshot to a Parquet file."""
    from pointsman.cli import export as command

    raise typer.Exit(command.run(context.obj, dataset, point, to, store))


@app.command(short_help="List what people should judge next.")
def judge(
    context: typer.Context,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT")],
    most: Annotated[int, typer.Option("--most", help="How many to list.", min=1)] = 200,
    output: Annotated[Literal["csv", "jsonl"], typer.Option("--output", "-o", help="How to print them.")] = "csv",
    store: Store = None,
) -> None:
    """List the queries and documents that would tell two versions apart and that nobody has judged, to be filled in."""
    from pointsman.cli import judge as command

    raise typer.Exit(command.run(context.obj, deployment, most, output, store))


# Those of a release stand in a file of their own, and in the help between asking and running.
app.registered_commands += release.commands.registered_commands


@app.command("control-plane", short_help="Start or end an API server of one's own.", context_settings=_PASSED_ON)
def control_plane(context: typer.Context) -> None:
    """Start or end a Kubernetes API server of one's own: up, down."""
    raise typer.Exit(_hand_over("controlplane", context, context.args))


@app.command(short_help="Run the operator.", context_settings=_PASSED_ON)
def operator(context: typer.Context) -> None:
    """Look after datasets and deployments until told to stop."""
    arguments = list(context.args)
    if context.obj.kubeconfig:
        arguments = ["--kubeconfig", context.obj.kubeconfig, *arguments]
    raise typer.Exit(_hand_over("operator", context, arguments))


@app.command(short_help="Run a gateway.", context_settings=_PASSED_ON)
def gateway(context: typer.Context) -> None:
    """Answer queries by the versions that are served, until told to stop."""
    arguments = list(context.args)
    if context.obj.kubeconfig:
        arguments = ["--kubeconfig", context.obj.kubeconfig, *arguments]
    raise typer.Exit(_hand_over("gateway", context, arguments))


@app.command(context_settings=_PASSED_ON, hidden=True)
def worker(context: typer.Context) -> None:
    """Carry out one piece of long work; the operator starts these itself."""
    raise typer.Exit(_hand_over("worker", context, context.args))


@app.command(context_settings=_PASSED_ON, hidden=True)
def shard(context: typer.Context) -> None:
    """Embed one share of a snapshot; the pods of a Kubernetes Job start it."""
    raise typer.Exit(_hand_over("shard", context, context.args))


def run(arguments: Sequence[str], world: object = None) -> int:
    """Run one command line and return its exit code. What goes wrong is one line on standard error."""
    name = Path(sys.argv[0]).name
    program = name if name in _PROGRAMS else "pointsman"
    command = typer.main.get_command(app)
    try:
        code = command.main(_gathered(arguments), prog_name=program, standalone_mode=False, obj=world)
    except typer.TyperException as error:
        return _refused(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _failed(error)
    return int(code or 0)


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def _hand_over(module: str, context: typer.Context, arguments: Sequence[str]) -> int:
    """Run the application of another module with the arguments that were not ours to read."""
    other = importlib.import_module(f"pointsman.cli.{module}")
    command = typer.main.get_command(other.app)
    return int(command.main(list(arguments), prog_name=context.command_path, standalone_mode=False) or 0)


def _gathered(arguments: Sequence[str]) -> list[str]:
    """Move global options to the front, so that they may stand after the command, as kubectl's may."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        is_command = not any(not each.startswith("-") for each in rest)
        if argument == "--" or (is_command and argument in _PASSED_ON_COMMANDS):
            return [*front, *rest, argument, *left]
        if argument.partition("=")[0] in _GLOBAL:
            front.append(argument)
            if "=" in argument:
                continue
            value = next(left, None)
            if value is None:
                return front
            front.append(value)
        elif argument.startswith("-n") and len(argument) > 2:
            front.append(argument)
        else:
            rest.append(argument)
    return [*front, *rest]


_PROGRAMS = frozenset({"pointsman", "kubectl-pointsman"})
_GLOBAL = frozenset({"--kubeconfig", "--context", "--namespace", "-n"})
_PASSED_ON_COMMANDS = frozenset({"control-plane", "operator", "gateway", "worker", "shard"})


def _refused(error: typer.TyperException) -> int:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(f"{message}\n")
        return 0
    sys.stderr.write(f"error: {message.rstrip('.')}; see --help\n")
    return USAGE


def _failed(error: Exception) -> int:
    from pointsman import errors, logs

    if isinstance(error, errors.PointsmanError):
        sys.stderr.write(f"error: {error.message}\n")
        return UNKNOWN
    for line in logs.told(error):
        sys.stderr.write(f"error: unforeseen {line}\n")
    return UNFORESEEN


if __name__ == "__main__":
    # The operator starts its workers with the interpreter that it runs on itself.
    main()
