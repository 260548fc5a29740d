"""The errors of Pointsman, and what becomes of each.

    PointsmanError
    ├── Retryable     the world may mend itself: back off, say so in a condition, try again
    │   └── Conflict  somebody else wrote first: look again at once
    └── Terminal      only an edit can mend it: say so in a condition and wait for the edit
        └── TextsRefused  a model embedded the other texts: say which documents these are of

Every error carries a `Reason`, which becomes the reason of a condition, and one clause for people that names what
was found, what was wanted and, where there is one, the next move. It never carries a secret, a document's text, a
query's text or a vector. Errors of vendors' libraries are mapped to these where they arise and go no further.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from pointsman.api.conditions import Reason


class PointsmanError(Exception):
    """What went wrong, as a reason for machines and a clause for people."""

    retry_after: float | None = None
    """Seconds that whoever failed asked to be left alone; None where it named no time."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Retryable(PointsmanError):
    """The world may mend itself."""

    def __init__(self, reason: Reason, message: str, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Conflict(Retryable):
    """Somebody else wrote first."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CONFLICT, message)


class Terminal(PointsmanError):
    """Only an edit can mend it."""


def unforeseen(error: BaseException) -> Retryable:
    """Return what to say of an error that nobody mapped: its type and place, since its text may quote anything.

    Its reason is INTERNAL_ERROR, but for a disk without space, which may turn up anywhere.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "an unknown place" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        # The store's own errors are mapped where they arise: this is the scratch folder, or another disk of the node.
        message = f"a disk is full at {place} (errno {error.errno}), such as the scratch folder; make it larger"
        return Retryable(Reason.DISK_FULL, f"{message} (operator.temporary, or a pod's ephemeral-storage), tried again")
    message = f"{type(error).__name__} at {place}, which nobody foresaw; please report it"
    return Retryable(Reason.INTERNAL_ERROR, message)


class TextsRefused(Terminal):
    """A model refused some of the texts that it was given; whoever gave them knows what they are of."""

    def __init__(self, positions: Sequence[int], answer: str) -> None:
        """`positions` are those among the texts, ascending; `answer` is how they were refused, such as "HTTP 400"."""
        texts = "1 text" if len(positions) == 1 else f"{len(positions):,} texts"
        super().__init__(Reason.MODEL_REJECTED, f"the model refuses {texts} with {answer}")
        self.positions = positions
        self.answer = answer
