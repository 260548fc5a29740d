"""What the settings of the operator allow to tenants, and what they never do: the Kubernetes API."""

from __future__ import annotations

import pytest

from pointsman import settings
from pointsman.api.conditions import Reason
from pointsman.cli.operator import access_of, paced, pods_of
from pointsman.cluster.resources import Identity
from pointsman.controller import handlers
from pointsman.errors import Terminal

ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "fd00:10::1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.mark.parametrize(
    ("host", "port"),
    [
        pytest.param("fd00::1", 6443, id="of the kubeconfig"),
        pytest.param("[fd00::1]", 6443, id="of the kubeconfig, as a URL has it"),
        pytest.param("fd00:10::1", 443, id="of the Service"),
        pytest.param("10.1.2.3", 6443, id="behind the Service"),
        pytest.param("api.example.com", 6443, id="by its name"),
    ],
)
def test_no_address_of_the_api_server_may_be_reached_though_all_hosts_are_allowed(host: str, port: int) -> None:
    servers = [("fd00::1", 6443), ("10.1.2.3", 6443), ("api.example.com", 6443)]
    allowed = access_of(settings.load(allowed_hosts=("*",)), servers, ENVIRONMENT)

    with pytest.raises(Terminal) as error:
        allowed.check_host(host, port)

    assert error.value.reason is Reason.ENDPOINT_NOT_ALLOWED
    assert "the Kubernetes API" in error.value.message


def test_another_port_of_such_a_host_may_be_reached() -> None:
    allowed = access_of(settings.load(allowed_hosts=("*",)), [("fd00::1", 6443)], {})

    assert allowed.check_host("fd00::1", 6333) == "fd00::1"


@pytest.mark.parametrize(
    ("resources", "wanted", "seconds"),
    [(0, 60.0, 60.0), (1_800, 60.0, 60.0), (6_000, 60.0, 200.0), (6_000, 600.0, 600.0)],
)
def test_thousands_are_looked_at_no_faster_than_leaves_time_for_edits(
    resources: int, wanted: float, seconds: float
) -> None:
    assert paced(resources, wanted) == seconds


@pytest.mark.parametrize(
    ("authorization", "wanted"),
    [("Bearer abc", ("Bearer", "abc")), ("abc", (None, "abc")), (None, (None, None))],
)
def test_watches_are_made_as_the_same_identity_as_all_other_calls(
    authorization: str | None, wanted: tuple[str | None, str | None]
) -> None:
    identity = Identity("https://api:6443", "/ca.crt", True, authorization, "/tls.crt", "/tls.key", None)

    found = handlers.connection(identity)

    assert (found.scheme, found.token) == wanted
    assert (found.server, found.ca_path, found.insecure) == ("https://api:6443", "/ca.crt", False)
    assert (found.certificate_path, found.private_key_path) == ("/tls.crt", "/tls.key")


def test_no_priority_may_be_named_but_those_that_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pods_of(settings.load()).priority_classes == ()

    monkeypatch.setenv("POINTSMAN_JOB_PRIORITY_CLASSES", "low, batch")

    assert pods_of(settings.load()).priority_classes == ("low", "batch")
