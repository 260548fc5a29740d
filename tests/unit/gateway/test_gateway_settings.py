"""The gateway's settings: read from variables of their own, and refused by name without their value."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pointsman import settings
from pointsman.errors import Terminal


def test_variables_of_the_gateway_begin_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_GATEWAY_AUTH", "tokens")
    monkeypatch.setenv("POINTSMAN_GATEWAY_TOKENS_FILE", "/run/tokens")
    monkeypatch.setenv("POINTSMAN_GATEWAY_TIMEOUT", "3s")
    monkeypatch.setenv("POINTSMAN_GATEWAY_DRAIN", "1m")

    found = settings.load_gateway()

    assert (found.auth, found.tokens_file) == ("tokens", Path("/run/tokens"))
    assert (found.timeout, found.drain) == (timedelta(seconds=3), timedelta(minutes=1))
    assert (found.most_hits, found.port, found.admin_port) == (1_000, 8080, 8081)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param("PORT", "70000", "POINTSMAN_GATEWAY_PORT is not usable: ", id="a port"),
        pytest.param("AUTH", "s3cret", "POINTSMAN_GATEWAY_AUTH is not usable: ", id="a way to authenticate"),
        pytest.param("TIMEOUT", "soon", "POINTSMAN_GATEWAY_TIMEOUT is not usable: wanted hours", id="a time"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"POINTSMAN_GATEWAY_{name}", value)

    with pytest.raises(Terminal) as error:
        settings.load_gateway()

    assert error.value.message.startswith(message)
    assert value not in error.value.message
