"""The keys of the operator's store are rotated under a real operator and its workers, on a real S3 server."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from tests.integration.operator_process import DATASET, Stage, papers, running, wordllama
from tests.servers import versitygw
from tests.servers.versitygw import Server

from pointsman.controlplane import plane

pytestmark = [pytest.mark.server, versitygw.NEEDED]


def put(file: Path, key: str) -> None:
    """Put other keys in their place, as the kubelet does with a mounted Secret."""
    new = file.with_name("new")
    new.write_text(json.dumps({"aws_access_key_id": key, "aws_secret_access_key": f"secret of {key}"}))
    new.replace(file)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "s3")


def snapshot(stage: Stage) -> int:
    return int(stage.get(DATASET, "papers").get("status", {}).get("snapshot", 0))


def test_keys_of_the_store_that_were_rotated_are_taken_up_without_a_restart(
    control_plane: plane.ControlPlane, tmp_path: Path, server: Server
) -> None:
    file = tmp_path / "options"
    put(file, "first")
    options = json.dumps({"aws_endpoint": server.endpoint, "aws_region": "us-east-1", "allow_http": "true"})
    place = {"store": "s3://vectors/prod", "store_options": options, "store_options_file": str(file)}
    with contextlib.ExitStack() as served:
        served.enter_context(server.running("first"))
        with running(control_plane, tmp_path / "stage", **place, resync_seconds="1") as stage:
            stage.declare("papers", stage.write(papers(20)), wordllama("v7", 64))
            stage.wait(lambda: stage.is_ready(DATASET, "papers"), "the first snapshot to be embedded")
            assert stage.operator.process is not None
            started = stage.operator.process.pid

            served.close()
            served.enter_context(server.running("second"))
            stage.write(papers(30))
            stage.refresh("papers", "more")
            stage.wait(lambda: stage.said(DATASET, "papers", "Reconciling")[0] == "StoreUnauthorized", "the refusal")
            put(file, "second")
            stage.wait(lambda: snapshot(stage) == 2 and stage.is_ready(DATASET, "papers"), "the second snapshot")

            assert stage.operator.process.pid == started
            assert "secret of" not in stage.operator.log
