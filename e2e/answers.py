"""What became of the live queries? Counted where they are asked, in the pod of whoever does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Runs in the pod of whoever asks: what was answered behind a byte of the log, in a few numbers.
COUNT = """
import collections, json, sys
path, offset = "/tmp/answers.jsonl", int(sys.argv[1])
count, failed, versions, lost, slowest = 0, collections.Counter(), collections.Counter(), 0, 0.0
with open(path) as log:
    log.seek(offset)
    while (line := log.readline()).endswith("\\n"):
        row = json.loads(line)
        offset = log.tell()
        count += 1
        lost += row.get("lost", 0) > 0
        if row["status"] == 200:
            versions[row["version"]] += 1
            slowest = max(slowest, row["done"] - row["due"])
        else:
            failed[f"{row['status']} {row['error'][:200]}"] += 1
print(json.dumps({"until": offset, "count": count, "failed": failed,
                  "versions": versions, "lost": lost, "slowest": slowest}))
"""


# Asks one query with one token, and says the status of the answer.
SEARCH = """
import sys, urllib.error, urllib.request
headers = {"Authorization": f"Bearer {sys.argv[2]}"}
try:
    asked = urllib.request.Request(sys.argv[1], b'{"query": "signal boxes"}', headers)
    print(urllib.request.urlopen(asked, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the live queries over a stretch of time."""

    until: int
    """A mark: what is answered later is behind it."""
    count: int
    failed: Mapping[str, int]
    """How many failed with which status and message."""
    versions: Mapping[str, int]
    lost: int
    """Queries whose connection broke, and that were asked again."""
    slowest: float
    """Seconds from when a query was due until it was answered."""

    def check(self, lost: float = 0) -> None:
        """Fail unless all were answered, and no more than so many asked again since a connection broke."""
        assert not self.failed, f"of {self.count} queries some failed: {dict(self.failed)}"
        assert self.lost <= lost, f"the connections of {self.lost} queries broke"
