"""What the stories share: Pointsman installed, the example Ready, queries asked from then on, none of them failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e import earlier as release
from e2e import stage
from e2e.stage import Answers, Stage

MOST_ASKED_AGAIN = 2 * stage.RATE
"""A gateway that is killed takes with it what it was asked, and is asked until everybody knows: two seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the stories, which run by `make e2e` alone."""
    for item in items:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(1200))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what became of each story, and of the queries in it."""
    here = config.stash.get(stage.KEY, None)
    if here is None:
        return
    ended: dict[str, str] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            # What failed before a story or after it counts more than that it passed.
            ended[report.nodeid.rpartition("::")[2]] = outcome
    for story, outcome in ended.items():
        line = f"{outcome:7} {' '.join(story.split('_')[1:])}"
        if (answers := here.told.get(story)) is not None:
            by = ", ".join(f"{count:,} by {version}" for version, count in sorted(answers.versions.items()))
            failed = sum(answers.failed.values())
            asked = f"{answers.count:,} queries, {failed} failed, {answers.lost} asked again"
            line += f"\n        {asked}, {answers.slowest:.1f} s at most; {by}"
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def here(pytestconfig: pytest.Config) -> Stage:
    """The cluster, with all that Pointsman needs and does not bring."""
    found = pytestconfig.stash.get(stage.KEY, None)
    if found is None:
        pytest.skip("stories are told on a cluster that `make e2e` brings up")
    return found


@pytest.fixture(scope="session")
def served(here: Stage) -> Stage:
    """The stage with the chart installed, the example Ready with v7, and queries asked from then on."""
    here.install()
    here.declare()
    here.wait(lambda: here.is_ready("v7"), "the example to be Ready")
    here.ask()
    return here


@pytest.fixture
def watched(served: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The same at rest, for one story, which looks at what became of the queries by itself."""
    served.settle()
    served.begun = served.answers().until
    yield served
    served.told[request.node.name] = served.answers()


@pytest.fixture
def live(watched: Stage) -> Iterator[Stage]:
    """The same for a story in which every query has to be answered."""
    yield watched
    _check(watched.answers())


@pytest.fixture
def earlier(here: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The stage with an earlier release installed on a cluster that has seen none, and the example served by it.

    Every query has to be answered from then on.
    """
    tree = release.tree(here.folder)
    if tree is None:
        pytest.skip(f"commit {release.COMMIT[:7]} is not in this clone: `git fetch --unshallow` brings it")
    image = here.bring(tree, release.TAG)
    here.clear()
    here.provide()
    here.install(tree=tree, image=image)
    here.declare()
    here.wait(lambda: here.is_ready("v7"), "the example to be Ready")
    here.ask()
    yield here
    here.told[request.node.name] = here.answers()
    _check(here.answers())


def _check(answers: Answers) -> None:
    assert answers.count > 0, "nobody asked anything"
    assert not answers.failed, f"of {answers.count} queries some failed: {dict(answers.failed)}"
    assert answers.lost <= MOST_ASKED_AGAIN, f"the connections of {answers.lost} queries broke"
