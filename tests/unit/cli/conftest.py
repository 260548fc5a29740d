"""The fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli import bench as benches
from tests.unit.cli.bench import Bench


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("POINTSMAN_STORE", raising=False)
    return Bench(capsys)


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    benches.fill(folder)
    return folder


@pytest.fixture
def stored(bench: Bench, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("POINTSMAN_STORE", str(store_folder))
    return bench
