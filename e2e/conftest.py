"""What the stories share: Pointsman installed, the example Ready, queries asked from then on, none of them failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e import stage
from e2e.stage import Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the stories, which run by `make e2e` alone."""
    for item in items:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(1200))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what became of the queries, story by story."""
    here = config.stash.get(stage.KEY, None)
    for story, answers in here.told.items() if here is not None else ():
        by = ", ".join(f"{count:,} by {version}" for version, count in sorted(answers.versions.items()))
        failed = sum(answers.failed.values())
        asked = f"{answers.count:,} queries, {failed} failed, {answers.lost} asked again"
        terminalreporter.write_line(f"{story.split('_')[1]}: {asked}, {answers.slowest:.1f} s at most; {by}")


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
    served.begun = served.answers().until
    yield served
    served.told[request.node.name] = served.answers()


@pytest.fixture
def live(watched: Stage) -> Iterator[Stage]:
    """The same for a story in which every query has to be answered."""
    yield watched
    answers = watched.answers()
    assert answers.count > 0, "nobody asked anything"
    assert not answers.failed, f"of {answers.count} queries some failed: {dict(answers.failed)}"
