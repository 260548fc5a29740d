"""What the API server lets in, and the sentence with which it refuses the rest."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from pointsman import errors
from pointsman.api import kinds
from pointsman.controlplane import admin, plane

Object = dict[str, Any]
CRDS = Path(__file__).parents[2] / "crds"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ABSENT = object()

DATASET = yaml.safe_load("""
apiVersion: pointsman.dev/v1alpha1
kind: EmbeddingDataset
metadata: {name: papers}
spec:
  source:
    files: {uri: "s3://corpus/papers/*.jsonl", format: jsonl, credentialsRef: {name: corpus}}
    idField: id
  refresh: {every: 15m}
  endpoints:
  - {name: main, baseURL: "https://models.example.com/v1", apiKeyRef: {name: models, key: token}}
  versions:
  - name: v7
    model: {wordllama: {dimensions: 64}}
    text: {template: "{title}. {text}", metadataFields: [author]}
    chunking: {maxTokens: 256, overlapTokens: 0}
  - name: v8
    model: {openai: {endpoint: main, model: small, dimensions: 512}, documentPrefix: "passage: "}
""")

DEPLOYMENT = yaml.safe_load("""
apiVersion: pointsman.dev/v1alpha1
kind: IndexDeployment
metadata: {name: papers}
spec:
  datasetRef: {name: papers}
  version: v7
  backend:
    qdrant: {url: "http://qdrant:6333", apiKeyRef: {name: qdrant, key: key}, hnsw: {m: 32}}
""")

QUERIES = yaml.safe_load("""
apiVersion: pointsman.dev/v1alpha1
kind: QuerySet
metadata: {name: papers-eval}
spec:
  queries: {files: {uri: "file:///corpus/queries.jsonl", format: jsonl}}
  judgements: {files: {uri: "file:///corpus/judgements.jsonl", format: jsonl}, kind: KnownItem}
""")

WORDLLAMA: Object = {"wordllama": {}}
OPENAI: Object = {"openai": {"endpoint": "main", "model": "small", "dimensions": 512}}
POSTGRES: Object = {
    "host": "db",
    "database": "papers",
    "query": "select * from papers",
    "credentialsRef": {"name": "db"},
}
PGVECTOR: Object = {"host": "db", "database": "vectors", "credentialsRef": {"name": "db"}}
INLINE = {"inline": [{"id": "q1", "text": "how to fly", "relevant": ["d1", "d2"]}]}


def changed(resource: Object, **edits: Any) -> Object:
    """Return a copy with values put at paths; `__` stands between the parts of a path, ABSENT removes."""
    result = copy.deepcopy(resource)
    for path, value in edits.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        place = result
        for part in parents:
            place = place[part] if isinstance(part, int) else place.setdefault(part, {})
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
    return result


class Cluster:
    """An API server with our definitions, and a namespace of this module's own."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.admin = admin.Admin(kubeconfig)
        self.namespace = "crds"
        self._names = (f"case-{number}" for number in itertools.count())

    def try_to_create(self, resource: Object, query: str = "?fieldValidation=Strict&dryRun=All") -> Object:
        """Create a resource, by default for the answer alone."""
        return self.admin.create(f"{self._collection(resource)}{query}", resource)

    def create(self, resource: Object) -> Object:
        """Create a resource under a name that no other test has."""
        return self.try_to_create(changed(resource, metadata__name=next(self._names)), "?fieldValidation=Strict")

    def edit(self, resource: Object, **edits: Any) -> Object:
        """Replace a resource by an edited copy."""
        return self.replace(changed(resource, **edits))

    def replace(self, resource: Object, subresource: str = "") -> Object:
        """Replace a resource, or its status."""
        path = f"{self._collection(resource)}/{resource['metadata']['name']}{subresource}?fieldValidation=Strict"
        body = yaml.safe_dump(resource).encode()
        answer: Object = yaml.safe_load(self.admin.request("PUT", path, body, "application/yaml"))
        return answer

    def _collection(self, resource: Object) -> str:
        (plural,) = (kind.plural for kind in kinds.KINDS if kind.name == resource["kind"])
        return f"/apis/pointsman.dev/v1alpha1/namespaces/{self.namespace}/{plural}"


@pytest.fixture(scope="module")
def cluster(control_plane: plane.ControlPlane) -> Iterator[Cluster]:
    admin.apply_crds(control_plane.kubeconfig, CRDS)
    cluster = Cluster(control_plane.kubeconfig)
    cluster.admin.create("/api/v1/namespaces", {"metadata": {"name": cluster.namespace}})
    yield cluster
    cluster.admin.delete(f"/api/v1/namespaces/{cluster.namespace}")


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_a_definition_is_accepted_established_and_structural(cluster: Cluster, kind: kinds.Kind) -> None:
    definition = cluster.admin.get(f"{DEFINITIONS}/{kind.crd}")

    conditions = {c["type"]: c["status"] for c in definition["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert definition["status"]["acceptedNames"]["shortNames"] == [kind.short]
    assert definition["status"]["acceptedNames"]["categories"] == ["pointsman"]


ADMITTED = {
    "a dataset as in the design": DATASET,
    "a dataset with the least that there must be": changed(
        DATASET,
        spec={
            "source": {"files": {"uri": "file:///corpus/d.jsonl", "format": "jsonl"}, "idField": "id"},
            "versions": [{"name": "v1", "model": {"wordllama": {}}}],
        },
    ),
    "a dataset from PostgreSQL": changed(
        DATASET,
        spec__source={
            "postgres": POSTGRES | {"port": 5433, "tls": "Require"},
            "idField": "id",
        },
    ),
    "surprises, retention and a policy": changed(
        DATASET,
        spec__surprises={"everythingUpdated": "Allow", "deletedShareAbove": "0.05"},
        spec__retention={"snapshots": 3, "for": "1h30m"},
        spec__deletionPolicy="Orphan",
        spec__suspend=True,
    ),
    "an overlap without a maximum": changed(DATASET, spec__versions__0__chunking={"overlapTokens": 128}),
    "a name of 63 characters": changed(DATASET, metadata__name="a" * 63),
    "a deployment on Qdrant": DEPLOYMENT,
    "a deployment on Milvus": changed(DEPLOYMENT, spec__backend={"milvus": {"uri": "http://milvus:19530"}}),
    "a deployment on pgvector": changed(
        DEPLOYMENT,
        spec__backend={
            "pgvector": PGVECTOR | {"host": "10.0.0.7", "schema": "search", "hnsw": {"m": 100, "efConstruct": 200}}
        },
    ),
    "a deployment in memory": changed(DEPLOYMENT, spec__backend={"memory": {}}),
    "a pinned snapshot, an alias and all durations": changed(
        DEPLOYMENT,
        spec__snapshot=12,
        spec__publish={"alias": "papers"},
        spec__retire={"after": "0s"},
        spec__check={"every": "24h"},
        spec__maxLag="30s",
    ),
    "a query set in files": QUERIES,
    "a query set inline": changed(QUERIES, spec={"queries": INLINE, "refresh": {"every": "10s"}}),
}


@pytest.mark.parametrize("resource", ADMITTED.values(), ids=ADMITTED.keys())
def test_a_valid_resource_is_admitted_and_nothing_is_added_to_its_spec(cluster: Cluster, resource: Object) -> None:
    admitted = cluster.try_to_create(resource)

    assert admitted["spec"] == resource["spec"]


REFUSED: dict[str, tuple[Object, str]] = {
    "no source": (
        changed(DATASET, spec__source__files=ABSENT),
        "exactly one of files and postgres is wanted",
    ),
    "two sources": (
        changed(
            DATASET,
            spec__source__postgres=POSTGRES,
        ),
        "exactly one of files and postgres is wanted",
    ),
    "no id field": (changed(DATASET, spec__source__idField=ABSENT), "spec.source.idField: Required value"),
    "a source on the web": (
        changed(DATASET, spec__source__files__uri="https://example.com/d.jsonl"),
        "must begin with file:/// or with s3:// and a bucket",
    ),
    "a relative file": (
        changed(DATASET, spec__source__files__uri="file://d.jsonl"),
        "must begin with file:/// or with s3:// and a bucket",
    ),
    "a format that nobody reads": (
        changed(DATASET, spec__source__files__format="xml"),
        'supported values: "jsonl", "parquet", "csv"',
    ),
    "two hosts in one": (
        changed(
            DATASET,
            spec__source={
                "postgres": POSTGRES | {"host": "db,evil"},
                "idField": "id",
            },
        ),
        "must be one host name or address, without a scheme and a path",
    ),
    "connection settings in a database's name": (
        changed(
            DATASET,
            spec__source={
                "postgres": POSTGRES | {"database": "papers host=evil"},
                "idField": "id",
            },
        ),
        "must be letters, digits and _ - . $ alone",
    ),
    "a refresh every second": (changed(DATASET, spec__refresh__every="1s"), "every must be 10s or more"),
    "a duration without a unit": (
        changed(DATASET, spec__refresh__every="15"),
        "must be hours, minutes and seconds, such as 15m or 1h30m",
    ),
    "a duration in days": (
        changed(DATASET, spec__retention={"for": "14d"}),
        "must be hours, minutes and seconds, such as 15m or 1h30m",
    ),
    "a secret in a URL": (
        changed(DATASET, spec__endpoints__0__baseURL="https://user:secret@models.example.com/v1"),
        "must be an http or https URL without a user, a query or a fragment; secrets go into a Secret",
    ),
    "no version": (changed(DATASET, spec__versions=[]), "spec.versions in body should have at least 1 items"),
    "two versions of one name": (
        changed(DATASET, spec__versions=[{"name": "v7", "model": WORDLLAMA}, {"name": "v7", "model": WORDLLAMA}]),
        'spec.versions[1]: Duplicate value: {"name":"v7"}',
    ),
    "two endpoints of one name": (
        changed(DATASET, spec__endpoints=[{"name": "main", "baseURL": "https://models.example.com/v1"}] * 2),
        'spec.endpoints[1]: Duplicate value: {"name":"main"}',
    ),
    "a version's name in capitals": (
        changed(DATASET, spec__versions__0__name="V7"),
        "must be lower-case letters, digits and dashes, and begin and end with a letter or digit",
    ),
    "no model": (changed(DATASET, spec__versions__0__model={}), "exactly one of wordllama and openai is wanted"),
    "two models": (
        changed(DATASET, spec__versions__0__model=WORDLLAMA | OPENAI),
        "exactly one of wordllama and openai is wanted",
    ),
    "a length that wordllama does not have": (
        changed(DATASET, spec__versions__0__model__wordllama__dimensions=100),
        'supported values: "64", "128", "256"',
    ),
    "a model without its dimensions": (
        changed(DATASET, spec__versions__1__model__openai__dimensions=ABSENT),
        "spec.versions[1].model.openai.dimensions: Required value",
    ),
    "an endpoint that is not there": (
        changed(DATASET, spec__versions__1__model__openai__endpoint="other"),
        "every endpoint that a version names must stand in spec.endpoints",
    ),
    "no endpoints at all": (
        changed(DATASET, spec__endpoints=ABSENT),
        "every endpoint that a version names must stand in spec.endpoints",
    ),
    "chunks that overlap by more than half": (
        changed(DATASET, spec__versions__0__chunking={"maxTokens": 32, "overlapTokens": 17}),
        "overlapTokens must be at most half of maxTokens",
    ),
    "more overlap than half of the maximum left out": (
        changed(DATASET, spec__versions__0__chunking={"overlapTokens": 129}),
        "overlapTokens must be at most half of maxTokens",
    ),
    "a metadata field twice": (
        changed(DATASET, spec__versions__0__text__metadataFields=["author", "author"]),
        'spec.versions[0].text.metadataFields[1]: Duplicate value: "author"',
    ),
    "a share in percent": (
        changed(DATASET, spec__surprises={"deletedShareAbove": "20%"}),
        'must be a share between "0" and "1", such as "0.2"',
    ),
    "a name of 64 characters": (
        changed(DATASET, metadata__name="a" * 64),
        "metadata.name must be 63 characters or fewer, so that it fits into a label",
    ),
    "a field that nobody knows": (
        changed(DATASET, spec__versions__0__chunking__size=3),
        'unknown field "spec.versions[0].chunking.size"',
    ),
    "no spec": (changed(DATASET, spec=ABSENT), "spec: Required value"),
    "no engine": (
        changed(DEPLOYMENT, spec__backend={}),
        "exactly one of qdrant, milvus, pgvector and memory is wanted",
    ),
    "two engines": (
        changed(DEPLOYMENT, spec__backend__memory={}),
        "exactly one of qdrant, milvus, pgvector and memory is wanted",
    ),
    "no version to serve": (changed(DEPLOYMENT, spec__version=ABSENT), "spec.version: Required value"),
    "snapshot zero": (
        changed(DEPLOYMENT, spec__snapshot=0),
        "spec.snapshot in body should be greater than or equal to 1",
    ),
    "a graph that pgvector does not build": (
        changed(DEPLOYMENT, spec__backend={"pgvector": PGVECTOR | {"hnsw": {"m": 96}}}),
        "pgvector takes m up to 100, and efConstruct up to 1000 and at least twice m",
    ),
    "an alias with a dash": (
        changed(DEPLOYMENT, spec__publish={"alias": "papers-live"}),
        "must be letters, digits and underscores, and not begin with a digit",
    ),
    "a comparison every second": (changed(DEPLOYMENT, spec__check={"every": "1s"}), "every must be 1m or more"),
    "an unknown policy": (
        changed(DEPLOYMENT, spec__deletionPolicy="Keep"),
        'supported values: "Delete", "Orphan"',
    ),
    "queries in two places": (
        changed(QUERIES, spec__queries__inline=INLINE["inline"]),
        "exactly one of files and inline is wanted",
    ),
    "queries in no place": (changed(QUERIES, spec__queries={}), "exactly one of files and inline is wanted"),
    "files of queries without judgements": (
        changed(QUERIES, spec__judgements__files=ABSENT),
        "judgements.files is wanted where queries come from files, and nowhere else",
    ),
    "inline queries with files of judgements": (
        changed(QUERIES, spec__queries=INLINE),
        "judgements.files is wanted where queries come from files, and nowhere else",
    ),
    "an inline query without an answer": (
        changed(QUERIES, spec={"queries": {"inline": [{"id": "q", "text": "t", "relevant": []}]}}),
        "spec.queries.inline[0].relevant in body should have at least 1 items",
    ),
}


@pytest.mark.parametrize(("resource", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_an_invalid_resource_is_refused_with_a_sentence(cluster: Cluster, resource: Object, sentence: str) -> None:
    with pytest.raises(errors.Terminal) as refused:
        cluster.try_to_create(resource)

    assert sentence in refused.value.message


V9 = {"name": "v9", "model": WORDLLAMA}
ALLOWED_EDITS: dict[str, tuple[Object, Object]] = {
    "adding a version": (DATASET, {"spec__versions": [*DATASET["spec"]["versions"], V9]}),
    "adding a version in front": (DATASET, {"spec__versions": [V9, *DATASET["spec"]["versions"]]}),
    "removing a version": (DATASET, {"spec__versions": DATASET["spec"]["versions"][1:]}),
    "reordering versions": (DATASET, {"spec__versions": DATASET["spec"]["versions"][::-1]}),
    "moving an endpoint": (DATASET, {"spec__endpoints__0__baseURL": "https://other.example.com/v1"}),
    "moving the files": (DATASET, {"spec__source__files__uri": "s3://elsewhere/papers/*.jsonl"}),
    "reading no more": (DATASET, {"spec__refresh": ABSENT}),
    "promoting": (DEPLOYMENT, {"spec__version": "v8"}),
    "pinning a snapshot": (DEPLOYMENT, {"spec__snapshot": 12}),
    "moving the database": (DEPLOYMENT, {"spec__backend__qdrant__url": "https://qdrant.example.com"}),
    "editing index parameters": (DEPLOYMENT, {"spec__backend__qdrant__hnsw": {"m": 16, "efConstruct": 256}}),
    "moving the queries inline": (QUERIES, {"spec__queries": INLINE, "spec__judgements": {"kind": "KnownItem"}}),
}


@pytest.mark.parametrize(("resource", "edits"), ALLOWED_EDITS.values(), ids=ALLOWED_EDITS.keys())
def test_an_edit_of_what_may_change_is_admitted(cluster: Cluster, resource: Object, edits: Object) -> None:
    created = cluster.create(resource)

    edited = cluster.edit(created, **edits)

    assert edited["metadata"]["generation"] == 2


REFUSED_EDITS: dict[str, tuple[Object, Object, str]] = {
    "editing a version": (
        DATASET,
        {"spec__versions__0__model__wordllama__dimensions": 256},
        "a version cannot be changed, since its name means one recipe for ever; "
        "add a version under another name instead",
    ),
    "editing a version while another is removed": (
        DATASET,
        {"spec__versions": [changed(DATASET, spec__versions__1__model__queryPrefix="q: ")["spec"]["versions"][1]]},
        "a version cannot be changed",
    ),
    "another kind of source": (
        DATASET,
        {
            "spec__source__files": ABSENT,
            "spec__source__postgres": POSTGRES,
        },
        "the kind of a source cannot be changed, since ids of two sources do not mean the same documents; "
        "declare another EmbeddingDataset instead",
    ),
    "another id field": (
        DATASET,
        {"spec__source__idField": "doi"},
        "idField cannot be changed, since every document would become another one; "
        "declare another EmbeddingDataset instead",
    ),
    "removing an endpoint in use": (
        DATASET,
        {"spec__endpoints": []},
        "every endpoint that a version names must stand in spec.endpoints",
    ),
    "another dataset": (
        DEPLOYMENT,
        {"spec__datasetRef__name": "books"},
        "datasetRef cannot be changed, since no rollback could lead back; "
        "declare another IndexDeployment for the other dataset instead",
    ),
    "another engine": (
        DEPLOYMENT,
        {"spec__backend": {"memory": {}}},
        "the engine cannot be changed, since no rollback could lead back; "
        "declare another IndexDeployment of the dataset instead",
    ),
}


@pytest.mark.parametrize(("resource", "edits", "sentence"), REFUSED_EDITS.values(), ids=REFUSED_EDITS.keys())
def test_an_edit_of_what_never_changes_is_refused_with_the_way_out(
    cluster: Cluster, resource: Object, edits: Object, sentence: str
) -> None:
    created = cluster.create(resource)

    with pytest.raises(errors.Terminal) as refused:
        cluster.edit(created, **edits)

    assert sentence in refused.value.message


def test_a_status_that_the_operator_would_write_is_kept_whole(cluster: Cluster) -> None:
    created = cluster.create(DEPLOYMENT)
    condition = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05.678901Z",
        # A word of a later release: its status must survive an operator that is rolled back.
        "reason": "ReasonOfALaterRelease",
        "message": "",
    }
    index = {"name": "pm_1", "version": "v7", "recipe": "abc", "role": "Serving", "frozen": False, "rows": 3}
    status = {"observedGeneration": 1, "conditions": [condition], "indexes": [index], "weight": "v7 100"}

    written = cluster.replace({**created, "status": status}, "/status")

    assert written["status"] == status
    assert written["metadata"]["generation"] == 1


def test_two_conditions_of_one_type_are_refused(cluster: Cluster) -> None:
    created = cluster.create(DEPLOYMENT)
    condition = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "Serving",
        "message": "",
    }

    with pytest.raises(errors.Terminal, match="Duplicate value"):
        cluster.replace({**created, "status": {"conditions": [condition, condition]}}, "/status")


def test_a_list_shows_what_a_person_looks_for(cluster: Cluster) -> None:
    created = cluster.create(DEPLOYMENT)
    conditions = [
        {
            "type": kind,
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "Serving",
            "message": "",
        }
        for kind in ("Ready", "RollbackReady")
    ]
    step = {"name": "Pause", "index": 3, "of": 6}
    status = {"conditions": conditions, "servingVersion": "v7", "phase": "Paused", "weight": "v8 10, v7 90"}
    cluster.replace({**created, "status": {**status, "step": step}}, "/status")

    table = _table(cluster, "indexdeployments", created["metadata"]["name"])

    assert table == {
        "Name": created["metadata"]["name"],
        "Serving": "v7",
        "Target": "v7",
        "Phase": "Paused",
        "Step": "Pause",
        "Weight": "v8 10, v7 90",
        "Ready": "True",
        "Rollback": "True",
    }


def _table(cluster: Cluster, plural: str, name: str) -> Object:
    """Return what `kubectl get` shows of a resource, but for its age."""
    path = f"/apis/pointsman.dev/v1alpha1/namespaces/{cluster.namespace}/{plural}/{name}"
    with config.new_client_from_config(str(cluster.kubeconfig)) as client:
        accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        table = json.loads(client.call_api("GET", client.configuration.host + path, header_params=accept).read())
    columns = [(number, c["name"]) for number, c in enumerate(table["columnDefinitions"]) if c["priority"] == 0]
    return {name: table["rows"][0]["cells"][number] for number, name in columns if name != "Age"}
