"""A dataset with a store of its own: all of it is there and nothing is in the operator's, but where it is."""

from __future__ import annotations

from tests.crash import stories
from tests.crash.stage import NAMESPACE, Stage, Tripwire, settle, told

from pointsman.cluster.resources import DATASET, DEPLOYMENT
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
