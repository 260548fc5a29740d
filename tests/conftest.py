"""What tests of every kind share: one control plane for the whole run, and a namespace of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pointsman.controlplane import binaries, plane


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the control plane, so that `-m "not controlplane"` never starts one."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[plane.ControlPlane]:
    """An API server of our own, empty, for the whole run. Its `kubeconfig` is an administrator's."""
    finder = binaries.Finder()
    if finder.missing():
        # The first time on a machine this takes minutes, which nobody should spend in front of a silent screen.
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            finder.find()
    with plane.start(finder.find()) as started:
        yield started


@pytest.fixture
def namespace(control_plane: plane.ControlPlane) -> Iterator[str]:
    """A namespace that no other test sees. Its deletion is asked for at the end and not waited for."""
    administrator = control_plane.admin()
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}
    name = administrator.create("/api/v1/namespaces", body)["metadata"]["name"]
    yield name
    administrator.delete(f"/api/v1/namespaces/{name}")
