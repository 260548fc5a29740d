"""The commands of a release: seeing where it is, answering it, steering it, going back; their names and options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

commands = typer.Typer()

Deployment = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Such as papers or idx/papers.")]
Version = Annotated[
    str | None, typer.Argument(metavar="VERSION", help="By default what the spec wants.", show_default=False)
]
Question = Annotated[
    str | None, typer.Argument(metavar="STEP-OR-GATE", help="By default what is asked now.", show_default=False)
]
Output = Annotated[
    Literal["text", "patch"], typer.Option("--output", "-o", help="Do it, or print what to commit instead.")
]
Expires = Annotated[str, typer.Option("--expires", help="How long the decision counts, such as 30m or 24h.")]
Comment = Annotated[str, typer.Option("--comment", help="Why, for whoever reads it later.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for what comes of it, or only ask.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait, such as 90s, 5m or 1h.")]


@commands.command(short_help="Say what a deployment waits for, and how to answer.")
def why(
    context: typer.Context,
    deployment: Deployment,
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print it.")] = "text",
) -> None:
    """Say what a deployment waits for, since when, until when, what happens then, and how to answer."""
    from pointsman.cli import why as command

    raise typer.Exit(command.run(context.obj, deployment, output == "json"))


@commands.command(short_help="Show the last verdicts with their numbers.")
def explain(
    context: typer.Context,
    deployment: Deployment,
    output: Annotated[
        Literal["text", "json", "yaml"], typer.Option("--output", "-o", help="How to print it.")
    ] = "text",
) -> None:
    """Show what the gates said last with their numbers, who answers which queries, and what was rejected and why."""
    from pointsman.cli import explain as command

    raise typer.Exit(command.run(context.obj, deployment, output))


@commands.command(short_help="Let a step or a gate pass that asks.")
def approve(
    context: typer.Context,
    deployment: Deployment,
    name: Question = None,
    expires: Expires = "24h",
    comment: Comment = "",
    output: Output = "text",
) -> None:
    """Create an Approval that lets a step or an undecided gate pass, once, for the plan as it is now."""
    from pointsman.cli import approve as command

    raise typer.Exit(command.run(context.obj, deployment, name, "Approve", expires, comment, output == "patch"))


@commands.command(short_help="Refuse the version where a step or a gate asks.")
def reject(
    context: typer.Context,
    deployment: Deployment,
    name: Question = None,
    expires: Expires = "24h",
    comment: Comment = "",
    output: Output = "text",
) -> None:
    """Create an Approval that refuses the version: all queries go back, until spec.retry changes."""
    from pointsman.cli import approve as command

    raise typer.Exit(command.run(context.obj, deployment, name, "Reject", expires, comment, output == "patch"))


@commands.command(short_help="Keep queries off a version, whatever the spec says.")
def abort(
    context: typer.Context,
    deployment: Deployment,
    version: Version = None,
    lasts: Annotated[str, typer.Option("--for", help="How long it is kept off, such as 24h.")] = "168h",
    comment: Comment = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it back.")] = False,
    output: Output = "text",
) -> None:
    """Create an Approval that keeps queries off a version, whatever the spec says; Git does not undo it."""
    from pointsman.cli import abort as command

    if withdraw:
        raise typer.Exit(command.withdraw(context.obj, deployment, version, output == "patch"))
    raise typer.Exit(command.run(context.obj, deployment, version, lasts, comment, output == "patch"))


@commands.command("accept-lag", short_help="Let a version take over without the newest documents.")
def accept_lag(
    context: typer.Context,
    deployment: Deployment,
    version: Version = None,
    expires: Expires = "24h",
    comment: Comment = "",
    output: Output = "text",
) -> None:
    """Create an Approval that lets a version take over though it lacks the newest documents, and say which."""
    from pointsman.cli import lag as command

    raise typer.Exit(command.run(context.obj, deployment, version, expires, comment, output == "patch"))


@commands.command(short_help="Go back to what served before.")
def rollback(
    context: typer.Context,
    deployment: Deployment,
    to: Annotated[str | None, typer.Option("--to", help="The version; by default what served before.")] = None,
    output: Output = "text",
) -> None:
    """Edit spec.version to what serves, in a migration, or else to what served before."""
    from pointsman.cli import rollback as command

    raise typer.Exit(command.run(context.obj, deployment, to, output == "patch"))


@commands.command(short_help="Want another version.")
def promote(
    context: typer.Context,
    deployment: Deployment,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="One that the dataset declares.")],
    output: Output = "text",
) -> None:
    """Edit spec.version, so that a version is built and goes through the gates and steps."""
    from pointsman.cli import steer as command

    raise typer.Exit(command.promote(context.obj, deployment, version, output == "patch"))


@commands.command(short_help="Freeze forward motion.")
def pause(context: typer.Context, deployment: Deployment, output: Output = "text") -> None:
    """Edit spec.suspend to true: no step goes on; a rollback does all the same."""
    from pointsman.cli import steer as command

    raise typer.Exit(command.suspend(context.obj, deployment, True, output == "patch"))


@commands.command(short_help="Go on after a pause.")
def resume(context: typer.Context, deployment: Deployment, output: Output = "text") -> None:
    """Edit spec.suspend to false."""
    from pointsman.cli import steer as command

    raise typer.Exit(command.suspend(context.obj, deployment, False, output == "patch"))


@commands.command(short_help="Try a rejected version again.")
def retry(
    context: typer.Context,
    deployment: Deployment,
    value: Annotated[str | None, typer.Option("--value", help="By default the time.", show_default=False)] = None,
    output: Output = "text",
) -> None:
    """Edit spec.retry to a new value: a rejected version starts again from the first step."""
    from pointsman.cli import steer as command

    raise typer.Exit(command.retry(context.obj, deployment, value, output == "patch"))


@commands.command(short_help="Have judged queries answered now.")
def evaluate(
    context: typer.Context,
    deployment: Deployment,
    wait: Wait = True,
    timeout: Timeout = "10m",
    output: Output = "text",
) -> None:
    """Have judged queries answered now, and show what the gates say."""
    from pointsman.cli import evaluate as command

    raise typer.Exit(command.run(context.obj, deployment, wait, timeout, output == "patch"))


@commands.command(short_help="Practise going back on real queries.")
def drill(
    context: typer.Context,
    deployment: Deployment,
    wait: Wait = True,
    timeout: Timeout = "5m",
    output: Output = "text",
) -> None:
    """Send a sliver of the real queries to the retained index as well, and report what came of it."""
    from pointsman.cli import drill as command

    raise typer.Exit(command.run(context.obj, deployment, wait, timeout, output == "patch"))
