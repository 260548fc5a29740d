"""Somebody who writes: documents come, are edited and go, turn by turn, beside those that stay.

    python writing.py BUCKET KEY SECONDS

Document N comes in turn N, is edited EDITED turns later and goes GONE turns after it came. So what there is follows
from a turn's number alone, which is in the file TURN once the object KEY has it. Keys and address of the S3 server are
in the environment. It runs in a pod by itself, so it imports what the image has, and nothing of the stories.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import botocore.session

EDITED, GONE = 2, 8
TURN = Path("/tmp/turn")
PREFIX = "written/"
"""Before the number of a document, its id."""
_WORDS = (
    "walrus trombone Lisbon glacier saffron lighthouse beetroot kestrel harpsichord Tunis avalanche cinnamon "
    "windmill turnip pelican accordion Oslo geyser paprika viaduct radish heron bassoon Quito tundra nutmeg "
    "granary pumpkin albatross mandolin Riga volcano turmeric aqueduct cucumber ostrich clarinet Havana "
    "monsoon ginger monastery lettuce penguin tambourine Dublin canyon vanilla belfry "
)
_HOW_MANY = 5
"""Words of a document: no two have all of them in common."""


def present(turn: int) -> Mapping[int, int]:
    """Return the documents that there are at a turn, by number, with how often each was edited."""
    return {number: int(turn - number >= EDITED) for number in range(max(1, turn - GONE + 1), turn + 1)}


def text(number: int, revision: int) -> str:
    """Return what a document says, which is like nothing that any other says."""
    return " ".join(random.Random(f"{number}/{revision}").sample(_WORDS.split(), _HOW_MANY))


def lines(turn: int) -> Iterator[str]:
    """Yield what there is at a turn, as the source has it."""
    kind = {"name": "written", "module": "written", "kind": "written"}
    for number, revision in present(turn).items():
        yield json.dumps({"id": f"{PREFIX}{number}", "text": text(number, revision), **kind}) + "\n"


def main(bucket: str, key: str, seconds: float) -> None:
    """Write for as long as it is let."""
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=os.environ["ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=os.environ["ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["SECRET_ACCESS_KEY"],
    )
    turn = 0
    while True:
        turn += 1
        client.put_object(Bucket=bucket, Key=key, Body="".join(lines(turn)).encode())
        # Whoever reads it in between finds a whole number.
        TURN.with_suffix(".new").write_text(str(turn))
        TURN.with_suffix(".new").rename(TURN)
        time.sleep(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
