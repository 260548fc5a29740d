"""What the operator's environment may say, and that it is documented."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pointsman import settings
from pointsman.errors import Terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"POINTSMAN_{name.upper()}", raising=False)
    yield monkeypatch


def test_without_an_environment_nothing_is_allowed_and_all_namespaces_are_looked_after() -> None:
    loaded = settings.load()

    assert loaded.namespaces == ()
    assert loaded.file_roots == ()
    assert loaded.allow_loopback is False
    assert loaded.allow_ambient_credentials is False
    assert loaded.allow_memory_backend is False
    assert loaded.work_timeout == timedelta(hours=6)


def test_lists_are_separated_by_commas_and_durations_carry_units(bare_environment: pytest.MonkeyPatch) -> None:
    bare_environment.setenv("POINTSMAN_NAMESPACES", "search, catalogue ,")
    bare_environment.setenv("POINTSMAN_FILE_ROOTS", "/data,/more")
    bare_environment.setenv("POINTSMAN_WORK_TIMEOUT", "1h30m")
    bare_environment.setenv("POINTSMAN_STORE_OPTIONS", '{"aws_region": "eu-central-1"}')

    loaded = settings.load()

    assert loaded.namespaces == ("search", "catalogue")
    assert loaded.file_roots == (Path("/data"), Path("/more"))
    assert loaded.work_timeout == timedelta(hours=1, minutes=30)
    assert loaded.store_options == {"aws_region": "eu-central-1"}


def test_an_empty_variable_is_no_variable(bare_environment: pytest.MonkeyPatch) -> None:
    bare_environment.setenv("POINTSMAN_WORKERS", "")

    assert settings.load().workers == 2


def test_what_a_command_line_says_wins_unless_it_says_nothing(bare_environment: pytest.MonkeyPatch) -> None:
    bare_environment.setenv("POINTSMAN_STORE", "/from/environment")

    assert settings.load(store="/from/option").store == "/from/option"
    assert settings.load(store=None).store == "/from/environment"


def test_a_tilde_in_the_store_is_the_home_folder() -> None:
    assert settings.load(store="~/here").store_uri == str(Path.home() / "here")
    assert settings.load(store="s3://bucket/~/there").store_uri == "s3://bucket/~/there"


def test_variables_that_kubernetes_adds_for_a_service_of_the_same_name_do_no_harm(
    bare_environment: pytest.MonkeyPatch,
) -> None:
    bare_environment.setenv("POINTSMAN_PORT", "tcp://10.96.0.7:80")

    settings.load()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "POINTSMAN_WORK_TIMEOUT",
            "hunter2",
            "POINTSMAN_WORK_TIMEOUT is not usable: wanted hours, minutes and seconds, such as 15m or 1h30m",
        ),
        (
            "POINTSMAN_LOG_LEVEL",
            "hunter2",
            "POINTSMAN_LOG_LEVEL is not usable: Input should be 'debug', 'info', 'warning' or 'error'",
        ),
        ("POINTSMAN_STORE_OPTIONS", "hunter2", "POINTSMAN_STORE_OPTIONS is not a JSON object of strings"),
        (
            "POINTSMAN_STORE_OPTIONS",
            '{"secret": ["hunter2"]}',
            "POINTSMAN_STORE_OPTIONS is not usable: Input should be a valid string",
        ),
    ],
    ids=[
        "a duration without a unit",
        "a level that does not exist",
        "options that are not JSON",
        "options that are not text",
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable_and_never_shown(
    bare_environment: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    bare_environment.setenv(variable, value)

    with pytest.raises(Terminal) as refused:
        settings.load()

    assert refused.value.message == message
    assert "hunter2" not in str(refused.value)


def test_the_store_options_are_never_shown() -> None:
    assert "hunter2" not in repr(settings.load(store_options={"aws_secret_access_key": "hunter2"}))


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in settings.Settings.model_fields.items() if not field.description] == []


def test_the_page_about_settings_is_generated_from_them() -> None:
    # To mend it: make generate
    assert (ROOT / "docs" / "settings.md").read_text() == settings.reference()
