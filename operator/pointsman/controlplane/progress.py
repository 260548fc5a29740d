"""How long steps say what they are doing: one line that renews itself on a terminal, a few plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_LOG_EVERY_SECONDS = 20.0
_DRAW_EVERY_SECONDS = 0.2


class Progress:
    """One step that takes long, with the time since it began.

    `tick(detail)` may be called as often as the work likes. Leaving the block says how long it took.
    """

    def __init__(self, stream: TextIO, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._what = what
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._began = self._said = clock()

    def __enter__(self) -> Progress:
        self._say("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say("done" if kind is None else "stopped", ends=True)

    def tick(self, detail: str = "") -> None:
        """Say what was reached, such as "12 of 98 MB", when it is time to."""
        if self._clock() - self._said >= (_DRAW_EVERY_SECONDS if self._is_terminal else _LOG_EVERY_SECONDS):
            self._say(detail)

    def _say(self, detail: str, ends: bool = False) -> None:
        self._said = self._clock()
        minutes, seconds = divmod(int(self._said - self._began), 60)
        line = f"{self._what} · {minutes}:{seconds:02d}" + (f" · {detail}" if detail else "")
        if self._is_terminal:
            # Return, the line, and "erase to the end of the line", so that a shorter line leaves nothing behind.
            self._stream.write(f"\r{line}\x1b[K" + ("\n" if ends else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
