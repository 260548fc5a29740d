"""`pointsman operator`, which is told to end in the moment in which it starts one of its threads.

From outside that moment is too short to be hit. By hand: `python -m tests.integration.told_to_end loop-7`.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from pointsman.cli import main


def tell_at(thread: str) -> None:
    """Send this process SIGTERM as soon as its main thread begins to start a thread of such a name."""

    def look(frame: FrameType, event: str, argument: object) -> None:
        is_start = event == "call" and frame.f_code is threading.Thread.start.__code__
        if is_start and thread in frame.f_locals["self"].name:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(look)


if __name__ == "__main__":
    tell_at(sys.argv[1])
    sys.exit(main.run(["operator"]))
