"""How often was the API server asked, and what did it answer? By method and status, for whoever watches."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class Requests:
    """Counts of requests. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Requests by method and by the status of the answer, 0 where none came."""
        with self._lock:
            return dict(self._counts)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that is counted; it takes the method first, and its answer or its error has a status."""

        def counting(method: str, *args: Any, **more: Any) -> Any:
            status = 0
            try:
                answer = call(method, *args, **more)
                status = answer.status
            except Exception as error:
                status = getattr(error, "status", None) or 0
                raise
            finally:
                with self._lock:
                    self._counts[method, str(status)] += 1
            return answer

        return counting
