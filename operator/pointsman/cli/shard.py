"""`pointsman shard`: embeds its share of a snapshot, or loads it into an index, in a pod of a Kubernetes Job.

Started by the cluster alone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import typer

from pointsman import logs
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.cli.worker import doors
from pointsman.cluster import credentials, job_objects
from pointsman.core import recipes
from pointsman.errors import PointsmanError, Terminal, unforeseen
from pointsman.ports import Marker
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Ledger
from pointsman.work import embed, jobs, load, wire
from pointsman.work import shard as shards
from pointsman.work.jobs import Doors
from pointsman.work.patience import Patience

app = typer.Typer(hidden=True)
log = logs.logger()


class Evicted(Exception):
    """The pod was told to end. What the model has answered is kept on the way out."""


@app.callback(invoke_without_command=True)
def shard() -> None:
    """Embed, or load, the share of a snapshot that the environment names, and end."""
    logs.configure()
    signal.signal(signal.SIGTERM, _evicted)
    told = orjson.loads(os.environ[job_objects.SHARD])
    number = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    secrets = Path(os.environ.get("POINTSMAN_SHARD_SECRETS", job_objects.SECRETS))
    try:
        sys.exit(run(told, number, secrets, doors()))
    except Evicted:
        sys.exit(shards.EVICTED)


def run(told: Mapping[str, Any], number: int, secrets: Path, doors: Doors) -> int:
    """Carry out a share; return the exit code, which tells the cluster whether trying again is of any use."""
    options = dict(told["store_options"])
    if told["has_own_store"]:
        options = dict(credentials.store_options({path.name: path.read_text() for path in _files(secrets / "store")}))
    recipe = recipes.from_json(told["recipe"])
    dataset = doors.store(told["store"], options).dataset(told["namespace"], told["dataset"])
    index = told.get("index", "")
    ledger = dataset.load(index, told["snapshot"]) if index else dataset.ledger(recipe.key, told["snapshot"])
    try:
        (_load if index else _embed)(told, number, secrets, doors, dataset, recipe)
    except PointsmanError as error:
        return _failed(ledger, told, number, error)
    except Evicted:
        raise
    except Exception as error:
        log.error(logs.Event.SHARD_FAILED, shard=number, exc_info=error)
        return _failed(ledger, told, number, unforeseen(error))
    return 0


def _embed(
    told: Mapping[str, Any], number: int, secrets: Path, doors: Doors, dataset: DatasetStore, recipe: recipes.Recipe
) -> None:
    key = (secrets / "endpoint" / "key").read_text().strip() if told["has_key"] else None
    endpoint = None if told["endpoint"] is None else dataset_api.Endpoint.model_validate(told["endpoint"])
    model = dataset_api.ModelChoice.model_validate(told["model"])
    embedder = doors.embedder(recipe.space, endpoint, key, wire.access_from_json(told["access"]), model)
    try:
        shards.embed_shard(
            dataset, recipe, told["snapshot"], told["attempt"], number, embedder, lambda: datetime.now(UTC)
        )
    finally:
        embedder.close()


def _load(
    told: Mapping[str, Any], number: int, secrets: Path, doors: Doors, dataset: DatasetStore, recipe: recipes.Recipe
) -> None:
    folder = secrets / "database"
    found = {path.name: path.read_text() for path in _files(folder)} if told["has_credentials"] else {}
    # As the operator reads them: keys and tokens end without the line's end that files have.
    values = {name: value.strip() if name in ("apiKey", "token") else value for name, value in found.items()}
    spec, access = engines.Backend.model_validate(told["backend"]), wire.access_from_json(told["access"])
    # A name that does not resolve for a moment is as good as a database that does not answer.
    backend = Patience().through(lambda: doors.backend(spec, values, access))
    try:
        target = load.Target(
            told["index"], Marker(**told["marker"]), backend, jobs.pace(told["serving"], backend, told["shards"])
        )
        load.load_shard(dataset, recipe, target, load.Share(told["snapshot"], told["run"], told["attempt"], number))
    finally:
        backend.close()


def _failed(ledger: Ledger, told: Mapping[str, Any], number: int, error: PointsmanError) -> int:
    """Write down why a share is not finished, for the operator to read."""
    log.error(logs.Event.SHARD_FAILED, shard=number, error=error)
    try:
        ledger.fail(told["attempt"], number, error)
    except PointsmanError as worse:
        log.error(logs.Event.SHARD_FAILED, shard=number, error=worse)
        return 1
    if not isinstance(error, Terminal):
        # Where there is no index, none of the others has one.
        return shards.BROKEN_SETTING if error.reason is Reason.INDEX_LOST else 1
    is_of_documents = error.reason in shards.OF_DOCUMENTS and not isinstance(error, embed.ProbesRefused)
    return shards.BROKEN_DOCUMENTS if is_of_documents else shards.BROKEN_SETTING


def _files(folder: Path) -> list[Path]:
    """Return the files of a mounted Secret; what begins with dots is the kubelet's."""
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def _evicted(_signal: int, _frame: FrameType | None) -> None:
    raise Evicted
