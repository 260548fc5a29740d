"""What the stories begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "store").mkdir()
    return Stage(tmp_path / "store")
