"""What tests of every kind share: one control plane for the whole run, and a namespace of its own for each test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from pointsman.controlplane import binaries, plane

LONGEST = (
    *("test_sigkill", "test_pods_load", "test_takeover", "test_delivery", "test_delivery_disturbed"),
    "test_delivery_way_back",
    *("test_crash_anywhere", "test_operator", "test_delivery_under_load", "test_bad_input", "test_pods"),
    *("test_gateway", "test_lasting", "test_control_plane", "test_backends", "test_properties"),
    *("test_embedders", "test_gateways_poller"),
)
"""Files that take long. Begun first, none of them is what everybody waits for at the end."""

# A machine that is busy with something else is no failure; and the same tree has the same result: `make explore` is
# where new examples are looked for.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("exploring", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what a test, or a command that it calls, has configured of logging: the next one reads logs too."""
    root, config = logging.getLogger(), structlog.get_config()
    loggers = [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]
    levels, handlers = [each.level for each in loggers], list(root.handlers)
    yield
    known = dict(zip(loggers, levels, strict=True))
    for each in [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]:
        each.setLevel(known.get(each, logging.NOTSET))
    root.handlers = handlers
    structlog.configure(**config)


def pytest_configure(config: pytest.Config) -> None:
    """Let processes be forked: those that the tests fork become a server at once, and touch nothing of Lance's."""
    config.addinivalue_line("filterwarnings", "ignore:lance is not fork-safe:UserWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the control plane, so that `-m "not controlplane"` never starts one.

    Where several processes share the tests, begin with the longest.
    """
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.controlplane)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    rank = {name: position for position, name in enumerate(LONGEST)}
    # What starts servers waits more than the rest, which fills the gaps at the end.
    items.sort(key=lambda item: (rank.get(item.path.stem, len(rank)), "integration" not in item.path.parts))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the binaries ready before the first test.

    The first time on a machine this takes minutes, which are no test's own, and which nobody should spend in front of
    a silent screen.
    """
    finder = binaries.Finder()
    is_needed = any(item.get_closest_marker("controlplane") for item in session.items)
    if is_needed and not session.config.option.collectonly and finder.missing():
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            finder.find()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[plane.ControlPlane]:
    """An API server of our own, empty, for the whole run. Its `kubeconfig` is an administrator's."""
    with plane.start() as started:
        yield started


@pytest.fixture
def namespace(control_plane: plane.ControlPlane) -> Iterator[str]:
    """A namespace that no other test sees. Its deletion is asked for at the end and not waited for."""
    administrator = control_plane.admin()
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}
    name = administrator.create("/api/v1/namespaces", body)["metadata"]["name"]
    yield name
    administrator.delete(f"/api/v1/namespaces/{name}")
