"""Keeps an eye on the cluster: routes and datasets, as they change, for as long as the process runs.

One thread for each kind and namespace, which only passes on what it saw. A watch ends every now and then and begins
anew with all that there is, so that nothing missed stays missed. While the API server is away nothing is passed on, and
what was seen last holds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pointsman import logs
from pointsman.cluster.resources import DATASET, DEPLOYMENT, Cluster, Seen
from pointsman.errors import PointsmanError

KINDS: Final = (DATASET, DEPLOYMENT)
SECONDS: Final = 30.0
"""After which a watch begins anew."""
SHORTEST: Final = 1.0
"""Seconds that a watch should last: one that ends sooner again and again must not list everything all the time."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two attempts while the API server is away."""

Take = Callable[[str, str | None, Seen], None]
"""Takes a kind, the namespace that was watched (None: all) and what was seen; called from many threads."""

log = logs.logger()


def start(cluster: Cluster, namespaces: Sequence[str], take: Take, seconds: float = SECONDS) -> None:
    """Watch in threads that end with the process; without namespaces, in all of them."""
    for kind in KINDS:
        for namespace in namespaces or (None,):
            arguments = (cluster, kind, namespace, take, seconds)
            threading.Thread(target=_watch, args=arguments, name=f"watch-{kind}", daemon=True).start()


def _watch(cluster: Cluster, kind: str, namespace: str | None, take: Take, seconds: float) -> None:
    wait, is_away = FIRST_WAIT, False
    while True:
        began = time.monotonic()
        try:
            for seen in cluster.watch(kind, namespace, seconds):
                wait, is_away = FIRST_WAIT, False
                take(kind, namespace, seen)
            time.sleep(max(0.0, min(seconds, SHORTEST) - (time.monotonic() - began)))
        except Exception as error:
            # Whatever it was, not watching would be worse.
            if not is_away:
                known = error if isinstance(error, PointsmanError) else None
                log.warning(logs.Event.WATCH_FAILED, kind=kind, error=known, exc_info=None if known else error)
            is_away = True
            time.sleep(wait * (0.5 + random.random()))
            wait = min(LONGEST_WAIT, 2 * wait)
