from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
import pytest

from pointsman.api import base, conditions, dataset, deployment, engines, queryset
from pointsman.api.conditions import Condition, ConditionType, Reason, Status

DATASET: dict[str, Any] = {
    "source": {"files": {"uri": "file:///corpus/*.jsonl", "format": "jsonl"}, "idField": "id"},
    "endpoints": [{"name": "main", "baseURL": "https://models.example.com/v1"}],
    "versions": [
        {"name": "v7", "model": {"wordllama": {"dimensions": 64}}},
        {"name": "v8", "model": {"openai": {"endpoint": "main", "model": "small", "dimensions": 512}}},
    ],
    "retention": {"for": "24h"},
}
DEPLOYMENT: dict[str, Any] = {
    "datasetRef": {"name": "papers"},
    "version": "v7",
    "backend": {
        "pgvector": {"host": "db", "database": "vectors", "schema": "search", "credentialsRef": {"name": "db"}}
    },
}
FILES = {"uri": "file:///corpus/q.jsonl", "format": "jsonl"}


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("15m", timedelta(minutes=15)),
        ("336h", timedelta(days=14)),
        ("1h30m", timedelta(minutes=90)),
        ("1h0m5s", timedelta(seconds=3605)),
        ("0s", timedelta()),
        ("999999h", timedelta(hours=999999)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, duration: timedelta) -> None:
    assert base.parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "15", "m", "14d", "1.5h", "-1h", "1m1h", "1h ", "١h", "9999999h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; wanted hours, minutes and seconds"):
        base.parse_duration(text)


def test_a_dataset_is_read_from_yaml_with_its_defaults() -> None:
    spec = dataset.Spec.model_validate(DATASET)

    assert spec.source.files == dataset.FilesSource(uri="file:///corpus/*.jsonl", format="jsonl")
    assert spec.source.id_field == "id"
    assert spec.endpoints[0].base_url == "https://models.example.com/v1"
    assert spec.versions[0].chunking == dataset.Chunking(max_tokens=256, overlap_tokens=0)
    assert spec.versions[0].text.template == "{text}"
    assert spec.retention == dataset.Retention(snapshots=10, for_="24h")
    assert spec.refresh is None


def test_a_deployment_is_read_from_yaml_with_its_defaults() -> None:
    spec = deployment.Spec.model_validate(DEPLOYMENT)

    assert spec.backend.engine == "pgvector"
    assert spec.backend.pgvector is not None
    assert spec.backend.pgvector.schema_ == "search"
    assert spec.backend.pgvector.hnsw == engines.Hnsw(m=16, ef_construct=128)
    assert spec.retire.after == "336h"


@pytest.mark.parametrize(
    ("model", "value", "sentence"),
    [
        (dataset.Source, {"idField": "id"}, "exactly one of files and postgres is wanted"),
        (dataset.ModelChoice, {"queryPrefix": "q"}, "exactly one of wordllama and openai is wanted"),
        (engines.Backend, {}, "exactly one of qdrant, milvus, pgvector and memory is wanted"),
        (
            engines.Backend,
            {"memory": {}, "milvus": {"uri": "http://milvus:19530"}},
            "exactly one of qdrant, milvus, pgvector and memory is wanted",
        ),
        (queryset.Queries, {}, "exactly one of files and inline is wanted"),
        (queryset.Spec, {"queries": {"files": FILES}}, "judgements.files is wanted where queries come from files"),
        (dataset.Chunking, {"maxTokens": 32, "overlapTokens": 17}, "overlapTokens must be at most half of maxTokens"),
        (dataset.Chunking, {"size": 3}, "Extra inputs are not permitted"),
        (dataset.Retention, {"for": "14d"}, "wanted hours, minutes and seconds"),
        (dataset.Endpoint, {"name": "a", "baseURL": "https://user:secret@host/v1"}, "String should match pattern"),
        (engines.PgvectorBackend, {"host": "db,evil", "database": "d"}, "String should match pattern"),
    ],
)
def test_what_the_api_server_refuses_the_types_refuse_too(
    model: type[base.Model], value: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(pydantic.ValidationError, match=sentence):
        model.model_validate(value)


@pytest.mark.parametrize(
    ("backend", "engine"),
    [
        ({"qdrant": {"url": "http://qdrant:6333"}}, "qdrant"),
        ({"milvus": {"uri": "http://milvus:19530"}}, "milvus"),
        ({"memory": {}}, "memory"),
    ],
)
def test_a_backend_says_which_engine_it_is(backend: dict[str, Any], engine: str) -> None:
    assert engines.Backend.model_validate(backend).engine == engine


def test_a_status_names_every_setting_in_force() -> None:
    of_dataset = dataset.effective(dataset.Spec.model_validate(DATASET))
    of_deployment = deployment.effective(deployment.Spec.model_validate(DEPLOYMENT))
    in_memory = deployment.effective(deployment.Spec.model_validate({**DEPLOYMENT, "backend": {"memory": {}}}))
    of_queries = queryset.effective(
        queryset.Spec.model_validate({"queries": {"files": FILES}, "judgements": {"files": FILES}})
    )

    assert of_dataset.dump() == {
        "surprises": {"everythingUpdated": "Hold", "deletedShareAbove": "0.2"},
        "retention": {"snapshots": 10, "for": "24h"},
        "deletionPolicy": "Delete",
    }
    assert of_deployment.dump() == {
        "hnsw": {"m": 16, "efConstruct": 128},
        "strategy": {"steps": [], "progressDeadline": "2h", "onFailure": "RollBack"},
        "burnIn": {"for": "24h", "minQueries": 0},
        "retire": {"after": "336h", "mode": "Automatic"},
        "check": {"every": "1h"},
        "maxLag": "5s",
        "deletionPolicy": "Delete",
    }
    assert "hnsw" not in in_memory.dump()
    assert of_queries.dump() == {"kind": "Complete", "refresh": {"every": "1h"}}


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ONE = timedelta(hours=1)


def ready(status: Status, at: datetime, reason: Reason = Reason.UP_TO_DATE) -> Condition:
    return Condition(
        type=ConditionType.READY,
        status=status,
        observed_generation=1,
        last_transition_time=at,
        reason=reason,
        message="",
    )


def test_a_condition_is_dumped_as_kubernetes_writes_it() -> None:
    assert ready(Status.TRUE, NOON).dump() == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T12:00:00Z",
        "reason": "UpToDate",
        "message": "",
    }


def test_a_condition_that_has_not_moved_keeps_its_time() -> None:
    (merged,) = conditions.merge([ready(Status.TRUE, NOON)], [ready(Status.TRUE, NOON + ONE, Reason.FOLLOWING)])

    assert merged == ready(Status.TRUE, NOON, Reason.FOLLOWING)


def test_a_condition_that_has_moved_takes_the_new_time() -> None:
    (merged,) = conditions.merge([ready(Status.TRUE, NOON)], [ready(Status.FALSE, NOON + ONE)])

    assert merged.last_transition_time == NOON + ONE


def test_a_condition_that_is_new_takes_the_new_time() -> None:
    assert conditions.merge([], [ready(Status.TRUE, NOON)]) == [ready(Status.TRUE, NOON)]
    assert conditions.get([], ConditionType.READY) is None


def test_a_field_of_a_status_that_a_later_release_wrote_is_passed_over() -> None:
    status = deployment.DeploymentStatus.model_validate({"servingVersion": "v7", "burnIn": {"queries": 3}})

    assert status.dump() == deployment.DeploymentStatus(serving_version="v7").dump()


def test_what_is_unset_is_not_dumped() -> None:
    assert dataset.VersionStatus(name="v7", recipe="r", space="s").dump() == {
        "name": "v7",
        "recipe": "r",
        "space": "s",
        "snapshot": 0,
        "documents": 0,
        "chunks": 0,
        "digest": "",
        "embedded": 0,
        "reused": 0,
    }
