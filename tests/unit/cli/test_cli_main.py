"""The command line as a whole: its options, its exit codes and how fast it comes up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.bench import Answer, Bench, deployment, goal

from pointsman.cli import main

ROOT = Path(__file__).parents[3]
HEAVY = ("kubernetes", "lance", "pyarrow", "numpy", "pydantic", "rich", "kopf", "structlog", "yaml")


def test_help_imports_nothing_that_it_does_not_show() -> None:
    code = f"import sys; from pointsman.cli import main; main.run(['--help']); print(sys.modules.keys() & {set(HEAVY)})"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.splitlines()[-1] == "set()"


def test_the_module_runs_as_a_program() -> None:
    found = subprocess.run([sys.executable, "-m", "pointsman.cli.main", "frob"], capture_output=True, text=True)

    assert found.returncode == 64
    assert found.stderr == "error: No such command 'frob'; see --help\n"


def test_without_arguments_there_is_help(bench: Bench) -> None:
    answer = bench.run()

    assert answer.code == 0
    assert answer.out.startswith("Usage: pointsman ")


def test_the_version_is_that_of_the_package(bench: Bench) -> None:
    assert bench.run("--version") == Answer(0, "pointsman 0.1.0\n", "")


@pytest.mark.parametrize("where", ["before", "after", "glued"])
def test_global_options_may_stand_before_or_after_the_command(bench: Bench, where: str) -> None:
    bench.apply(deployment(namespace="search"), {"conditions": goal("Ready", "UpToDate", "serving v8@12")})
    options = {
        "before": ["-n", "search", "--kubeconfig", "here", "--context=prod", "status", "papers"],
        "after": ["status", "papers", "--namespace", "search", "--context", "prod", "--kubeconfig=here"],
        "glued": ["status", "-nsearch", "--kubeconfig", "here", "--context", "prod", "papers"],
    }

    answer = bench.run(*options[where])

    assert answer.code == 0
    assert bench.connected == [("here", "prod")]


def test_the_namespace_is_that_of_the_context_unless_one_is_given(bench: Bench, tmp_path: Path) -> None:
    bench.apply(deployment(namespace="search"), {"conditions": goal("Ready", "UpToDate", "serving v8@12")})
    config = tmp_path / "config"
    config.write_text(
        """
        current-context: staging
        contexts:
        - {name: staging, context: {cluster: c, namespace: empty}}
        - {name: prod, context: {cluster: c, namespace: search}}
        """
    )

    assert bench.run("status", "papers", "--kubeconfig", str(config)).code == 3
    assert bench.run("status", "papers", "--kubeconfig", str(config), "--context", "prod").code == 0


def test_a_kubeconfig_that_cannot_be_read_is_an_error(bench: Bench, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("{")

    answer = bench.run("status", "papers", "--kubeconfig", str(config))

    assert answer.code == 3
    assert answer.err == f"error: {config} cannot be read as a kubeconfig\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "Missing argument '[KIND/]NAME'; see --help"),
        (["get", "--frob"], "No such option: --frob; see --help"),
        (["get", "-n"], "Option '-n' requires an argument; see --help"),
    ],
    ids=["an argument is missing", "an option does not exist", "an option lacks its value"],
)
def test_wrong_usage_ends_with_64_which_no_outcome_has(bench: Bench, arguments: list[str], message: str) -> None:
    answer = bench.run(*arguments)

    assert (answer.code, answer.err) == (64, f"error: {message}\n")


def test_a_duration_that_is_none_is_refused(bench: Bench) -> None:
    answer = bench.run("status", "papers", "--timeout", "5")

    assert answer.code == 3
    assert answer.err == ("error: '5' is not a duration; wanted hours, minutes and seconds, such as 15m or 1h30m\n")


def test_what_nobody_foresaw_is_told_by_type_and_place(bench: Bench) -> None:
    bench.wire.failure = KeyError("the text of a document")

    answer = bench.run("status", "papers")

    assert answer.code == 70
    assert answer.err.startswith("error: unforeseen KeyError at bench.py:")
    assert "the text of a document" not in answer.err
    assert "Traceback" not in answer.err


def test_the_control_plane_has_commands_of_its_own(bench: Bench) -> None:
    answer = bench.run("control-plane", "--help")

    assert answer.code == 0
    assert "up" in answer.out


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()

    names = [command.name or command.callback.__name__ for command in main.app.registered_commands if command.callback]

    assert [name for name in names if f"`pointsman {name}" not in page] == []
