"""Which earlier release is upgraded from, and where does its tree come from?

It is the last one whose definitions and store differ from today's: an EmbeddingDataset's `spec.store.uri` was held to
another rule, and in the ledger of an embedding in pods there was one run of a snapshot, without an id and with the
positions of all its documents in one object.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from e2e.cluster.images import ROOT

COMMIT = "1d3c5fe2ebd5fff67eabd6548987b63c3d0e8093"
"""The tag v0.1.0-alpha.1. By its hash, since not every clone has tags."""
TAG = "earlier"


def tree(folder: Path) -> Path | None:
    """Write the release's tree below a folder; returns None where this clone has no such commit, as a shallow one."""
    target = folder / TAG
    target.mkdir()
    kept = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if kept.returncode != 0:
        return None
    subprocess.run(["tar", "-x", "-C", str(target)], input=kept.stdout, check=True)
    return target
