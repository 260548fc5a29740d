"""What a line of the log looks like, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.errors import Retryable
from pointsman.logs import Event


class Log(io.StringIO):
    """A stream that hands back what was written as objects."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def last(self) -> dict[str, Any]:
        return self.records()[-1]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = Log()
    logs.configure("debug", stream)
    yield stream
    root.setLevel(level)
    root.handlers = handlers
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json_with_its_data_in_keys(log: Log) -> None:
    logs.logger(deployment="search/papers").info(Event.ACTION_APPLIED, version="v8", weight=100)

    (record,) = log.records()
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "action_applied",
        "level": "info",
        "deployment": "search/papers",
        "version": "v8",
        "weight": 100,
    }


def test_events_below_the_level_are_not_written(log: Log) -> None:
    logs.configure("warning", log)

    logs.logger().info(Event.STORE_PROBED)
    logs.logger().warning(Event.RECONCILE_FAILED)

    assert [record["event"] for record in log.records()] == ["reconcile_failed"]


def test_configuring_twice_writes_each_record_once(log: Log) -> None:
    logs.configure("info", log)

    logs.logger().info(Event.OPERATOR_STARTED)
    logging.getLogger("somebody").warning("else")

    assert [record["event"] for record in log.records()] == ["operator_started", "library_spoke"]


def test_what_a_library_logs_gets_a_constant_event_and_its_words_under_message(log: Log) -> None:
    logging.getLogger("kopf.objects").warning("Handler %r took %d s", "wake", 3)

    record = log.last()
    assert record["event"] == "library_spoke"
    assert record["logger"] == "kopf.objects"
    assert record["level"] == "warning"
    assert record["message"] == "Handler 'wake' took 3 s"


def test_the_kubernetes_client_cannot_log_the_answers_that_it_reads(log: Log) -> None:
    logging.getLogger("kubernetes.client.rest").debug("response body: %s", '{"kind": "Secret"}')

    assert log.records() == []


@pytest.mark.parametrize(
    "key",
    [
        *("password", "apiKey", "api_key", "secretAccessKey", "token", "Authorization", "credentials", "store_options"),
        *("text", "texts", "query", "vector", "metadata", "fields"),
    ],
)
def test_a_value_under_a_telling_key_is_redacted_at_any_depth(log: Log, key: str) -> None:
    logs.logger().info(Event.WORK_STARTED, **{key: "hunter2"}, inner=[{key: {"deeper": "hunter2"}}])

    assert "hunter2" not in log.getvalue()
    assert log.last()[key] == "[redacted]"


def test_a_count_of_tokens_is_no_secret(log: Log) -> None:
    logs.logger().info(Event.WORK_FINISHED, tokens=1200)

    assert log.last()["tokens"] == 1200


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("connect to postgres://ana:hunter2@db:5432/x", "connect to postgres://[redacted]@db:5432/x"),
        ("sent Authorization: Bearer hunter2hunter2", "sent Authorization: Bearer [redacted]"),
        ("host=db password=hunter2 user=ana", "host=db password=[redacted] user=ana"),
        ('{"apiKey": "hunter2", "n": 1}', '{"apiKey": "[redacted]", "n": 1}'),
        ("GET /o?X-Amz-Signature=hunter2&n=1", "GET /o?X-Amz-Signature=[redacted]&n=1"),
        ("SecretNotFound: Secret corpus is not there", "SecretNotFound: Secret corpus is not there"),
        ("secret: hunter2", "secret: [redacted]"),
        ("key sk-hunter2hunter2hunter2 refused", "key [redacted] refused"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2", "[redacted]"),
        ("the Secret has no key token; wanted one", "the Secret has no key token; wanted one"),
    ],
    ids=[
        "a URL",
        "a header",
        "a connection string",
        "JSON",
        "a signed address",
        "a reason of ours",
        "a secret",
        "an API key",
        "a private key",
        "a sentence",
    ],
)
def test_what_looks_like_a_credential_is_cut_out_of_any_text(log: Log, said: str, kept: str) -> None:
    logging.getLogger("library").warning(said)
    logs.logger().info(Event.WORK_FAILED, reason=said)

    assert log.records()[0]["message"] == kept
    assert log.records()[1]["reason"] == kept


def test_arrays_bytes_and_long_lists_are_named_by_their_size(log: Log) -> None:
    logs.logger().info(Event.WORK_STARTED, a=np.zeros((2, 3)), b=b"hunter2", c=list(range(99)), d=object(), e=[1, 2])

    record = log.last()
    assert record["a"] == "[ndarray of shape (2, 3)]"
    assert record["b"] == "[7 bytes]"
    assert record["c"] == "[99 items]"
    assert record["d"] == "[object]"
    assert record["e"] == [1, 2]


def test_a_long_text_is_cut(log: Log) -> None:
    logging.getLogger("library").warning("x" * 5_000)

    assert log.last()["message"] == "x" * 2_000 + "… (5000 characters)"


def test_an_exception_is_told_by_types_and_places_without_the_words_of_libraries(log: Log) -> None:
    try:
        try:
            raise ValueError("cannot convert 'the text of a document'")
        except ValueError as cause:
            raise Retryable(Reason.SOURCE_UNREACHABLE, "the source did not answer") from cause
    except Retryable:
        logs.logger().error(Event.RECONCILE_FAILED, exc_info=True)

    ours, theirs = log.last()["exception"]
    assert ours.startswith("Retryable: the source did not answer at test_logs.py:")
    assert theirs.startswith("ValueError at test_logs.py:")
    assert "the text of a document" not in log.getvalue()


def test_the_exceptions_that_libraries_log_are_told_the_same_way(log: Log) -> None:
    try:
        raise ValueError("the text of a document")
    except ValueError:
        logging.getLogger("library").exception("failed")

    assert log.last()["message"] == "failed"
    assert log.last()["exception"][0].startswith("ValueError at test_logs.py:")
    assert "the text of a document" not in log.getvalue()


def test_an_error_of_ours_may_be_passed_as_data(log: Log) -> None:
    logs.logger().warning(Event.WORK_FAILED, error=Retryable(Reason.MODEL_UNREACHABLE, "no answer within 30s"))

    assert log.last()["error"] == "ModelUnreachable: no answer within 30s"


def test_events_are_constant_snake_case() -> None:
    assert [event for event in Event if not event.replace("_", "").isalpha() or event != event.lower()] == []


def test_every_event_of_the_list_is_logged_somewhere() -> None:
    package = Path(logs.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    assert [event.name for event in logs.Event if f"Event.{event.name}" not in source] == []
