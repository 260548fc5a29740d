"""What bad input gets: a sentence with what was found and wanted, while the last good state serves on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration import bad_inputs, databases
from tests.integration.bad_inputs import MEMORY, PASSWORD, V7, WORD, documents, model, postgres_source
from tests.integration.databases import Database
from tests.integration.operator_process import DATASET, DEPLOYMENT, PLURALS, Stage, running
from tests.servers import door
from tests.servers.openai_server import OpenAIServer, Switches

from pointsman import errors
from pointsman.api import engines
from pointsman.backends import registry
from pointsman.controlplane import plane
from pointsman.core import names, rows

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def stage(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("operator") / "stage"
    with running(control_plane, folder, resync_seconds="0.5", workers="4") as stage:
        yield stage


@pytest.fixture(scope="module")
def pgvector(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.pgvector(tmp_path_factory.mktemp("postgres")) as database:
        database.let_in(stage)
        yield database


@pytest.fixture(scope="module")
def milvus(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.milvus_lite(tmp_path_factory.mktemp("milvus")) as database:
        yield database


@pytest.fixture(params=["pgvector", "milvus"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module", autouse=True)
def tampered(stage: Stage, pgvector: Database, milvus: Database) -> dict[str, Any]:
    """Lay hands on indexes behind the operator's back, first of all: the check that finds it comes a minute later.

    Returns what they held, by deployment: of the overwritten ones the vectors, of the swapped ones the content.
    """
    before: dict[str, Any] = {}
    stage.declare("tampered", stage.write(documents(500), "tampered"), V7)
    for database in (pgvector, milvus):
        for hand in ("overwritten", "swapped"):
            stage.deploy(f"{hand}-{database.kind}", database.spec, dataset="tampered", check={"every": "1m"})
    for database in (pgvector, milvus):
        backend = database.engine.backend
        for hand in ("overwritten", "swapped"):
            stage.wait(lambda n=f"{hand}-{database.kind}": stage.serves(n, "v7"), "v7 to serve")

        name = f"overwritten-{database.kind}"
        collection = stage.route(name)["collection"]
        found, vectors = backend.fetch(collection, points(database, collection)[::100])
        before[name] = dict(zip(found, vectors, strict=True))
        for point, vector in before[name].items():
            database.engine.overwrite(collection, point, [float(value) for value in vector[::-1]])

        name = f"swapped-{database.kind}"
        collection = stage.route(name)["collection"]
        before[name] = database.content(collection)
        backend.upsert(collection, strangers(3))
        backend.delete(collection, points(database, collection)[:3])
    return before


def points(database: Database, collection: str) -> list[bytes]:
    return [point for point, *_ in database.content(collection)]


def strangers(count: int) -> pa.RecordBatch:
    """Return points that are nobody's, with ids that come after all others."""
    columns = {
        "point_id": [bytes([255] * 15 + [n]) for n in range(count)],
        "document": [f"stranger-{n}" for n in range(count)],
        "ordinal": [0] * count,
        "text": [f"A stranger's {WORD}."] * count,
        "content_key": [bytes(16)] * count,
        "metadata": ["{}"] * count,
        "metadata_digest": [bytes(16)] * count,
        "sequence": [1] * count,
        "recipe": ["stranger"] * count,
        "vector": [[1.0] * 64] * count,
    }
    schema = rows.points(64)
    return pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)


@pytest.fixture(scope="module")
def served(stage: Stage) -> str:
    """Return the name of a dataset of three documents, and of a deployment that serves it as v7."""
    stage.declare("served", stage.write(documents(3), "served"), V7)
    stage.deploy("served", MEMORY)
    stage.wait(lambda: stage.serves("served", "v7"), "v7 to serve")
    return "served"


# Documents.


def test_rows_that_are_no_documents_refuse_the_snapshot(stage: Stage) -> None:
    stage.declare("rows", stage.write(documents(3), "rows"), V7)
    stage.deploy("rows", MEMORY)
    stage.wait(lambda: stage.serves("rows", "v7"), "v7 to serve")
    route = stage.route("rows")

    for case, (content, sentence) in bad_inputs.ROWS.items():
        stage.write(content, "rows")
        stage.refresh("rows", case)
        stage.wait(lambda sentence=sentence: stage.said(DATASET, "rows", "Stalled")[1] == sentence, case)
        assert stage.said(DATASET, "rows", "SourceReachable") == ("SourceInvalid", sentence)
        status = stage.get(DATASET, "rows")["status"]
        assert (status["snapshot"], status["documents"]) == (1, 3)
        assert stage.serves("rows", "v7") and stage.route("rows") == route

    stage.write(documents(4), "rows")
    stage.refresh("rows", "mended")
    stage.wait(lambda: stage.is_ready(DATASET, "rows"), "the dataset to be well again")
    stage.wait(lambda: stage.route("rows")["snapshot"] == "2", "the mended snapshot to serve")


def test_a_parquet_file_that_is_broken_refuses_the_snapshot(stage: Stage) -> None:
    table = pa.Table.from_pylist(documents(1000))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    files = {"uri": stage.write(buffer.getvalue(), "parquet"), "format": "parquet"}
    stage.create(DATASET, "parquet", {"source": {"files": files, "idField": "id"}, "versions": [V7]})
    stage.wait(lambda: stage.is_ready(DATASET, "parquet"), "the first snapshot")

    content = bytearray(buffer.getvalue())
    content[200:1200] = bytes(1000)
    stage.write(bytes(content), "parquet")
    stage.refresh("parquet", "broken")

    stage.wait(lambda: stage.said(DATASET, "parquet")[0] == "SourceInvalid", "the broken file to be refused")
    message = stage.said(DATASET, "parquet")[1]
    assert "1 broken Parquet (parquet.jsonl" in message and "the last snapshot stays current" in message
    assert stage.get(DATASET, "parquet")["status"]["snapshot"] == 1


# What cannot be reached.


def test_what_cannot_be_reached_is_tried_again_until_it_can(stage: Stage, pgvector: Database, served: str) -> None:
    host, port = pgvector.spec["pgvector"]["host"], pgvector.spec["pgvector"]["port"]
    with (
        OpenAIServer() as server,
        door.before("127.0.0.1", server.port) as to_model,
        door.before(host, port) as to_data,
    ):
        spec = {"pgvector": {**pgvector.spec["pgvector"], "port": to_data.port}}
        stage.deploy("before", spec, dataset=served)
        stage.wait(lambda: stage.serves("before", "v7"), "v7 to serve")
        route = stage.route("before")

        to_model.shut()
        to_data.shut()
        stage.create(DATASET, "source", {"source": postgres_source(pgvector, port=to_data.port), "versions": [V7]})
        stage.declare("model", stage.write(documents(3), "model"), **model(f"http://127.0.0.1:{to_model.port}/v1"))
        stage.deploy("after", spec, dataset=served)
        for kind, name, reason in (
            (DATASET, "source", "SourceUnreachable"),
            (DATASET, "model", "ModelUnreachable"),
            (DEPLOYMENT, "before", "BackendUnreachable"),
            (DEPLOYMENT, "after", "BackendUnreachable"),
        ):
            stage.wait(lambda k=kind, n=name, r=reason: stage.said(k, n)[0] == r, f"{name} to be missed")
            assert stage.condition(kind, name, "Reconciling")["status"] == "True"
        assert stage.condition(DEPLOYMENT, "before", "Available")["status"] == "Unknown"
        assert stage.route("before") == route
        stage.wait(lambda: len(attempts(stage, "source")) >= 3, "the third attempt at the source")
        first, second, third = attempts(stage, "source")[:3]
        assert second - first >= timedelta(seconds=2) and third - second >= timedelta(seconds=4)

        to_model.open()
        to_data.open()
        for kind, name in ((DATASET, "source"), (DATASET, "model"), (DEPLOYMENT, "before"), (DEPLOYMENT, "after")):
            stage.wait(lambda k=kind, n=name: stage.is_ready(k, n), f"{name} to recover by itself")
        assert stage.route("before") == route
        assert stage.said(DATASET, "source") == ("UpToDate", "snapshot 1 with 3 documents")


def attempts(stage: Stage, dataset: str) -> list[datetime]:
    """Return when work was started for a dataset."""
    said = f"{DATASET} {stage.namespace}/{dataset}"
    started = [line for line in stage.operator.lines() if line.get("action") == "StartWork"]
    return [datetime.fromisoformat(line["timestamp"]) for line in started if line["resource"] == said]


def test_a_wrong_secret_is_said_and_nothing_of_it(stage: Stage, pgvector: Database, served: str) -> None:
    right = dict(pgvector.credentials)
    stage.put_secret("wrong", {**right, "password": PASSWORD, "token": PASSWORD}, "127.0.0.1")
    reference = {"credentialsRef": {"name": "wrong"}}
    with OpenAIServer(Switches(api_key="right")) as server:
        key = {"apiKeyRef": {"name": "wrong", "key": "token"}}
        stage.declare("wrong-model", stage.write(documents(3), "wrong"), **model(server.url, **key))
        source = postgres_source(pgvector, **reference)
        stage.create(DATASET, "wrong-source", {"source": source, "versions": [V7]})
        stage.deploy("wrong-database", {"pgvector": {**pgvector.spec["pgvector"], **reference}}, dataset=served)
        for kind, name, reason in (
            (DATASET, "wrong-source", "SourceUnauthorized"),
            (DATASET, "wrong-model", "ModelUnauthorized"),
            (DEPLOYMENT, "wrong-database", "BackendUnauthorized"),
        ):
            stage.wait(lambda k=kind, n=name, r=reason: stage.said(k, n)[0] == r, f"{name} to be refused")
            assert stage.condition(kind, name, "Stalled")["status"] == "True"
        message = "the endpoint refuses the key with HTTP 401; check the Secret; snapshot 1 stays current"
        assert stage.said(DATASET, "wrong-model")[1] == message

        # The Secret is mended; nobody watches Secrets, so those that wait are told to look again.
        stage.put_secret("wrong", {**right, "token": "right"}, "127.0.0.1")
        stage.refresh("wrong-source", "mended")
        stage.edit(DATASET, "wrong-model", refresh={"every": "1h"})
        for kind, name in ((DATASET, "wrong-source"), (DATASET, "wrong-model"), (DEPLOYMENT, "wrong-database")):
            stage.wait(lambda k=kind, n=name: stage.is_ready(k, n), f"{name} to be let in")


def test_a_model_of_other_dimensions_is_refused(stage: Stage) -> None:
    with OpenAIServer() as server:
        stage.declare("dimensions", stage.write(documents(3), "dimensions"), **model(server.url, dimensions=128))
        stage.wait(lambda: stage.said(DATASET, "dimensions")[0] == "ModelInvalid", "the model to be refused")
    assert stage.said(DATASET, "dimensions", "Stalled")[1] == (
        "the endpoint answers with vectors of 256 dimensions, wanted 128 as declared; correct dimensions, or set "
        "sendDimensions; snapshot 1 stays current"
    )


# What is not there, not ours or not allowed.


def test_a_collection_of_our_name_that_is_not_ours_is_left_alone(stage: Stage, pgvector: Database, served: str) -> None:
    # Suspended, a deployment makes nothing yet, so that somebody else can be there first.
    uid = stage.deploy("foreign", pgvector.spec, dataset=served, suspend=True)["metadata"]["uid"]
    recipe = stage.store().dataset(stage.namespace, served).pins()["v7"].key
    parameters = registry.parameters_digest(engines.Backend.model_validate(pgvector.spec))
    name = names.physical_name(stage.namespace, "foreign", uid, "v7", recipe, f"{parameters}/None", 1)
    pgvector.engine.build_foreign(name)

    stage.edit(DEPLOYMENT, "foreign", suspend=False)
    stage.wait(lambda: stage.said(DEPLOYMENT, "foreign")[0] == "CollectionForeign", "the collection to be found")
    assert stage.said(DEPLOYMENT, "foreign", "Stalled")[1] == (
        f"collection {name} exists and is not ours; remove or rename it; nothing serves yet"
    )
    assert stage.route("foreign") == {}

    # It would be tried again in half a minute; an edit is tried at once.
    pgvector.engine.destroy(name)
    stage.edit(DEPLOYMENT, "foreign", maxLag="6s")
    stage.wait(lambda: stage.serves("foreign", "v7"), "v7 to serve")


def test_a_spec_that_names_what_is_not_there_is_told_what_is(stage: Stage, served: str) -> None:
    for name, (spec, _, _) in bad_inputs.MISSING.items():
        stage.deploy(name, MEMORY, **{"dataset": served, **spec})
    for name, (_, reason, sentence) in bad_inputs.MISSING.items():
        stage.wait(lambda n=name: stage.said(DEPLOYMENT, n, "Stalled")[1] != "", f"{name} to be stalled")
        stage.wait(lambda n=name, w=(reason, sentence): stage.said(DEPLOYMENT, n) == w, sentence)
        assert stage.condition(DEPLOYMENT, name, "Stalled")["status"] == "True"

    # What serves is not touched by a line that leads nowhere.
    stage.edit(DEPLOYMENT, served, version="v9")
    wanted = ("VersionNotFound", "dataset served declares no version v9, only v7; serving v7 normally")
    stage.wait(lambda: stage.said(DEPLOYMENT, served) == wanted, "the version to be missed")
    assert stage.condition(DEPLOYMENT, served, "Available")["status"] == "True"
    stage.edit(DEPLOYMENT, served, version="v7")
    stage.wait(lambda: stage.serves(served, "v7"), "v7 to be well again")


def test_what_the_operator_may_not_touch_is_refused_with_a_sentence(stage: Stage, pgvector: Database) -> None:
    (stage.folder / "corpus" / "link.jsonl").symlink_to("/etc/passwd")
    stage.write(documents(3), "good")
    stage.put_secret("stingy", pgvector.credentials, "db.example.com")
    refused = bad_inputs.refused(f"{stage.folder}/corpus", stage.control_plane.server, pgvector)
    for name, (spec, _, _) in refused.items():
        stage.create(DATASET, name, spec)

    for name, (_, reason, sentence) in refused.items():
        stage.wait(lambda n=name, r=reason: stage.said(DATASET, n, "Stalled")[0] == r, f"{name}: {reason}")
        assert stage.said(DATASET, name)[1].startswith(sentence)
        assert stage.condition(DATASET, name, "Stalled")["status"] == "True"


def test_a_spec_that_cannot_be_meant_is_refused_by_the_api_server(stage: Stage, served: str) -> None:
    for case, (kind, spec, sentence) in bad_inputs.INVALID.items():
        with pytest.raises(errors.Terminal) as refused:
            stage.create(kind, "invalid", spec)
        assert sentence in refused.value.message, case
    with pytest.raises(errors.Terminal, match="a version cannot be changed, since its name means one recipe for ever"):
        stage.edit(DATASET, served, versions=[{**V7, "chunking": {"maxTokens": 8}}])
    with pytest.raises(errors.Terminal, match="the engine cannot be changed, since no rollback could lead back"):
        stage.edit(DEPLOYMENT, served, backend={"memory": None, "milvus": {"uri": "http://m"}})


# Indexes that others laid hands on.


def test_a_collection_that_was_deleted_by_hand_is_built_again(stage: Stage, pgvector: Database, served: str) -> None:
    stage.deploy("deleted", pgvector.spec, dataset=served)
    stage.wait(lambda: stage.serves("deleted", "v7"), "v7 to serve")
    lost, embedded = stage.route("deleted")["collection"], stage.embedded(served)

    pgvector.engine.destroy(lost)
    stage.wait(lambda: stage.route("deleted")["collection"] != lost, "another index to take its place")

    stage.wait(lambda: stage.serves("deleted", "v7"), "v7 to serve again")
    assert pgvector.count(stage.route("deleted")["collection"]) == 3
    found = [event for event in stage.events("deleted") if event[1] == "IndexLost"]
    assert (DEPLOYMENT, "IndexLost", f"index {lost} is gone from the database") in found
    assert stage.embedded(served) == embedded


def test_rows_that_were_deleted_by_hand_are_written_again(stage: Stage, database: Database, served: str) -> None:
    name = f"thinned-{database.kind}"
    stage.deploy(name, database.spec, dataset=served)
    stage.wait(lambda: stage.serves(name, "v7"), "v7 to serve")
    collection = stage.route(name)["collection"]
    content = database.content(collection)

    database.engine.backend.delete(collection, points(database, collection)[:2])
    stage.wait(lambda: database.content(collection) == content, "the rows to be back")

    stage.wait(lambda: stage.serves(name, "v7"), "v7 to be well again")
    told = f"{collection} holds 1 rows, its snapshot 3; it is being compared"
    assert (DEPLOYMENT, "IndexDiffers", told) in stage.events(name)


def test_what_no_count_shows_is_found_by_the_check_and_mended(
    stage: Stage, database: Database, tampered: dict[str, Any]
) -> None:
    collections, told = {}, {}
    for hand in ("overwritten", "swapped"):
        name = f"{hand}-{database.kind}"
        collections[hand] = stage.route(name)["collection"]
        stage.wait(lambda n=name: "IndexDiffers" in [reason for _, reason, _ in stage.events(n)], "it to be found")
        stage.wait(lambda n=name: stage.serves(n, "v7"), "v7 to be well again")
        told[hand] = [message for _, reason, message in stage.events(name) if reason == "IndexDiffers"]
        assert stage.route(name)["collection"] == collections[hand]

    differ = f"rows of {collections['overwritten']} differ from its snapshot; they are being repaired"
    assert told["overwritten"] == [f"5 {differ}"]
    assert database.content(collections["swapped"]) == tampered[f"swapped-{database.kind}"]
    wanted = tampered[f"overwritten-{database.kind}"]
    found, vectors = database.engine.backend.fetch(collections["overwritten"], list(wanted))
    assert len(found) == 5
    assert all(float(vector @ wanted[point]) > 0.999 for point, vector in zip(found, vectors, strict=True))


def test_nothing_of_all_this_told_a_text_or_a_secret(stage: Stage, pgvector: Database) -> None:
    everything = [stage.operator.log, json.dumps(stage.admin.get(f"/api/v1/namespaces/{stage.namespace}/events"))]
    for plural in PLURALS.values():
        listed = stage.admin.get(f"/apis/pointsman.dev/v1alpha1/namespaces/{stage.namespace}/{plural}")["items"]
        everything += [json.dumps(item.get("status", {})) for item in listed]
    for canary in (WORD, PASSWORD, pgvector.credentials["password"]):
        assert [told for told in everything if canary in told] == []
    # What was told is what these tests have looked for.
    assert "SourceInvalid" in everything[1] and "ModelUnauthorized" in everything[1]
