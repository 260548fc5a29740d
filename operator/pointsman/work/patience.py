"""For how long does a pod wait for what does not answer, before it ends and the cluster starts it anew?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.errors import Retryable

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Seconds between two tries, two minutes in all: a server that is restarted costs no pod. A pod that ends costs one of
the tries that its share has, and some tens of seconds until Kubernetes lets it begin again."""
PASSING = (Reason.STORE_UNREACHABLE, Reason.BACKEND_UNREACHABLE, Reason.HOST_NOT_FOUND)
"""What may be over in a moment. A model is asked again by its own client."""

log = logs.logger()


class Patience:
    """Does a piece of work again and again while what it needs does not answer."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep

    def through(self, work: Callable[[], T]) -> T:
        """Return what the work returns; it must be one that may be done again. Raises what it last raised."""
        for pause in PAUSES:
            try:
                return work()
            except Retryable as error:
                if error.reason not in PASSING:
                    raise
                log.warning(logs.Event.SHARD_WAITED, error=error, seconds=pause)
            self._sleep(pause)
        return work()
