"""What the stories share: Pointsman installed, the example Ready, queries asked from then on, none of them failed."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from e2e import changing, stage
from e2e import earlier as release
from e2e.stage import Stage

ENDED_WELL = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the stories, which run by `make e2e` alone."""
    for item in items:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(1200))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep whether a story came to a good end: what comes after it waits for nothing otherwise."""
    report = yield
    item.stash[ENDED_WELL] = report.when == "call" and report.passed
    return report


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
    for note in here.notes:
        terminalreporter.write_line(note)


@pytest.fixture(scope="session")
def here(pytestconfig: pytest.Config) -> Stage:
    """The cluster, with all that Pointsman needs and does not bring."""
    found = pytestconfig.stash.get(stage.KEY, None)
    if found is None:
        pytest.skip("stories are told on a cluster that `make e2e` brings up")
    return found


@pytest.fixture(scope="session")
def served(here: Stage) -> Stage:
    """The stage with the chart installed, the example Ready with v7, asked and changed from then on."""
    here.install()
    here.declare()
    here.wait(lambda: here.is_ready("v7"), "the example to be Ready")
    here.ask()
    return here


@pytest.fixture
def watched(served: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The same at rest, for one story, which looks at what became of the queries by itself.

    After it a search finds what the source has meanwhile come to have, and nothing that it has no more.
    """
    served.settle()
    begun = changing.mark(served)
    served.begun = served.answers().until
    yield served
    over = served.answers().until
    try:
        if request.node.stash.get(ENDED_WELL, False):
            changing.follow(served, begun)
    finally:
        served.told[request.node.name] = served.answers()
    served.answers(over).check()


@pytest.fixture
def live(watched: Stage) -> Iterator[Stage]:
    """The same for a story in which every query has to be answered, and at the first time of asking."""
    yield watched
    assert watched.answers().count > 0, "nobody asked anything"
    watched.answers().check()


@pytest.fixture
def earlier(here: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The stage with an earlier release installed on a cluster that has seen none, and the example served by it.

    Every query has to be answered from then on, and the source changes as in all others.
    """
    tree = release.tree(here.folder)
    if tree is None:
        pytest.skip(f"commit {release.COMMIT[:7]} is not in this clone: `git fetch --unshallow` brings it")
    image = here.bring(tree, release.TAG)
    here.clear()
    here.provide()
    here.install(tree=tree, image=image)
    here.declare()
    # It begins to ask indexes just when they begin to follow, and where they do so more often comes to no end with it.
    here.patch(stage.DATASET, {"spec": {"refresh": {"every": "45s"}}})
    here.wait(lambda: here.is_ready("v7"), "the example to be Ready")
    here.ask()
    begun = changing.mark(here)
    yield here
    try:
        if request.node.stash.get(ENDED_WELL, False):
            changing.follow(here, begun)
    finally:
        here.told[request.node.name] = here.answers()
    here.answers().check()
