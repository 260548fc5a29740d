"""A dataset with a store of its own: all of it is there and nothing is in the operator's, but where it is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import NAMESPACE, Stage, Tripwire, settle, told

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import DATASET, DEPLOYMENT
from pointsman.errors import Retryable
from pointsman.store.dataset import DatasetStore
from pointsman.store.root import Store


def test_documents_and_vectors_are_in_the_bucket_and_facts_are_not(stage: Stage) -> None:
    told(stage, stories.in_a_bucket)

    own, bucket = Store(str(stage.folder)), Store(str(stage.folder / "buckets" / "vectors" / "papers"))
    assert own.dataset(NAMESPACE, "papers").pins() == {}
    assert [snapshot.documents for snapshot in bucket.dataset(NAMESPACE, "papers").snapshots()] == [12]
    assert own.logs("deployments", NAMESPACE) == ["papers"]
    assert bucket.logs("deployments", NAMESPACE) == []
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None and route["version"] == "v7"


def test_what_serves_goes_on_when_the_dataset_is_gone(stage: Stage) -> None:
    here = told(stage, stories.in_a_bucket)
    stories.lose_dataset(stage)

    settle(stage, Tripwire(), here)

    resource = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    assert resource["status"]["servingVersion"] == "v7"
    assert stage.cluster.config_map(NAMESPACE, "papers-serving") is not None


def test_deleting_the_dataset_empties_its_bucket_and_forgets_it(stage: Stage) -> None:
    told(stage, stories.in_a_bucket, stories.delete_deployment, stories.delete_dataset)

    assert stage.cluster.get(DATASET, NAMESPACE, "papers") is None
    own, bucket = Store(str(stage.folder)), Store(str(stage.folder / "buckets" / "vectors" / "papers"))
    assert bucket.dataset(NAMESPACE, "papers").pins() == {}
    assert own.log("homes", NAMESPACE, "papers").read() is None


def test_a_secret_that_is_missing_is_named_and_nothing_is_begun(stage: Stage) -> None:
    def without_the_secret(stage: Stage) -> None:
        stories.in_a_bucket(stage)
        stage.cluster.delete_secret(NAMESPACE, "store")

    told(stage, without_the_secret)

    resource = stage.cluster.get(DATASET, NAMESPACE, "papers")
    assert resource is not None
    stalled = next(c for c in resource["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "SecretNotFound")
    assert stalled["message"] == "Secret store is not there"


def lose_the_secret(stage: Stage) -> None:
    stage.cluster.delete_secret(NAMESPACE, "store")


def condition(stage: Stage, kind: str) -> dict[str, Any]:
    resource = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    found: dict[str, Any] = next(c for c in resource["status"]["conditions"] if c["type"] == kind)
    return found


def served(stage: Stage) -> str:
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None
    return route["version"]


IN_A_BUCKET_AND_MIGRATED = (stories.in_a_bucket, stories.declare_v8, stories.serve("v8"))


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("way_back", [stories.serve("v7"), stories.decide("Abort")])
def test_the_way_back_needs_no_bucket(stage: Stage, way_back: stories.Step, is_restarted: bool) -> None:
    here = told(stage, *IN_A_BUCKET_AND_MIGRATED)
    assert served(stage) == "v8"
    lose_the_secret(stage)
    settle(stage, Tripwire(), None if is_restarted else here)

    way_back(stage)
    done = settle(stage, Tripwire(), None if is_restarted else here)

    assert served(stage) == "v7"
    assert "StartWork" not in done


def test_what_serves_stays_ready_while_its_bucket_is_away_and_says_so(stage: Stage) -> None:
    here = told(stage, stories.in_a_bucket)
    lose_the_secret(stage)

    settle(stage, Tripwire(), here)

    ready = condition(stage, "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "SecretNotFound")
    assert ready["message"] == "serving v7@1, while dataset papers cannot be looked at: Secret store is not there"


def test_nothing_is_begun_while_the_bucket_is_away(stage: Stage) -> None:
    here = told(stage, stories.in_a_bucket, stories.declare_v8)
    lose_the_secret(stage)

    stories.serve("v8")(stage)
    done = settle(stage, Tripwire(), here)

    assert "StartWork" not in done
    assert served(stage) == "v7"
    stalled = condition(stage, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "SecretNotFound")


def test_a_deployment_is_deleted_without_its_bucket(stage: Stage) -> None:
    here = told(stage, *IN_A_BUCKET_AND_MIGRATED)
    lose_the_secret(stage)

    stories.delete_deployment(stage)
    settle(stage, Tripwire(), here)

    assert stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers") is None
    assert stage.cluster.config_map(NAMESPACE, "papers-serving") is None


@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_way_back_needs_no_bucket_that_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    here = told(stage, *IN_A_BUCKET_AND_MIGRATED)

    def away(_: DatasetStore) -> Any:
        raise Retryable(Reason.STORE_UNREACHABLE, "the bucket does not answer")

    monkeypatch.setattr(DatasetStore, "pins", away)
    stories.serve("v7")(stage)
    done = settle(stage, Tripwire(), None if is_restarted else here)

    assert served(stage) == "v7"
    assert "StartWork" not in done
    assert "the bucket does not answer" in condition(stage, "Ready")["message"]
