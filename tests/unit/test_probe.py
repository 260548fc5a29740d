"""Whether an index that nobody queries could answer is found out by asking it and its model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from tests.unit import test_asking_jobs as asking
from tests.unit.answering import AT, OWNER, RECIPES, Stage

from pointsman.api.conditions import Reason
from pointsman.core import drift
from pointsman.errors import Retryable
from pointsman.plan import measured
from pointsman.plan.tasks import Probe
from pointsman.ports import Backend
from pointsman.work import jobs, probe, wire

stage = asking.stage


@pytest.fixture
def kept(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    made.publish("v7")
    return made


def ask(kept: Stage) -> measured.Probe:
    log = kept.store.log(*jobs.probe_log(OWNER, kept.index("v7")))
    found, backend = RECIPES["v7"], cast(Backend, kept.backend)
    model = kept.models[found.space.model]
    probe.probe(kept.dataset, "v7", found, kept.index("v7"), backend, model, log, lambda: AT)
    record = log.read()
    assert record is not None
    return measured.probe_from_json(record.value)


def test_an_index_with_its_model_answers_every_fixed_query(kept: Stage) -> None:
    found = ask(kept)

    assert (found.index, found.version, found.measured_at) == (kept.index("v7"), "v7", AT)
    assert (found.asked, found.answered) == (16, 16)
    assert found.model_distance == pytest.approx(0.0, abs=1e-6)


def test_the_fixed_texts_are_embedded_as_queries_too(kept: Stage) -> None:
    ask(kept)

    space = RECIPES["v7"].space
    assert kept.models[space.model].asked[-16:] == [space.query_prefix + text for text in drift.PROBES]


def test_a_model_that_has_changed_is_seen(kept: Stage) -> None:
    ask(kept)
    kept.models[RECIPES["v7"].space.model].salt = "another"

    assert ask(kept).model_distance > drift.LIMIT


def test_an_index_that_is_empty_answers_nothing(kept: Stage) -> None:
    index = kept.index("v7")
    ids = [id for batch in kept.backend.scan(index) for id in batch["point_id"].to_pylist()]
    kept.backend.delete(index, ids)

    assert ask(kept).answered == 0


def test_a_model_that_cannot_be_reached_leaves_what_was_known(kept: Stage) -> None:
    ask(kept)
    kept.models[RECIPES["v7"].space.model].is_down = True

    with pytest.raises(Retryable) as error:
        ask(kept)

    assert error.value.reason is Reason.MODEL_UNREACHABLE
    found = kept.store.log(*jobs.probe_log(OWNER, kept.index("v7"))).read()
    assert found is not None and found.revision == 1


def test_whoever_asks_gets_the_key_of_the_one_model_and_of_the_database(stage: asking.Stage) -> None:
    task = Probe(asking.OWNER, "papers", asking.SIDES["v7"])

    job = asking.job_for(stage, task)

    assert job.task == task
    assert job.api_keys == {"main": "key of main"}
    assert (job.credentials, job.query_credentials, job.judgement_credentials) == ({"username": "database"}, {}, {})
    assert wire.from_json(wire.to_json(job)) == job
