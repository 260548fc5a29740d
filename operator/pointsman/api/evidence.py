"""What speaks for and against a version, as a status shows it: figures that are rounded, and never contents."""

from __future__ import annotations

from datetime import datetime

from pointsman.api import base


class RejectedStatus(base.Fact):
    """A version that was tried and refused."""

    version: str
    """The version."""
    recipe: str = ""
    """Its recipe."""
    reason: str
    """Why, in a word for machines."""
    message: str = ""
    """Why, with the evidence."""
    at: datetime
    """When."""
    retry: str = ""
    """The value of spec.retry then; another one tries it again."""


class EvaluationStatus(base.Fact):
    """One time that judged queries were asked."""

    at: datetime
    """When."""
    version: str
    """Which version was asked."""
    value: str
    """The mean of the metric."""
    against: str = ""
    """Which version it was compared with."""
    difference: str = ""
    """By how much it is better, in points of the metric."""
    interval: str = ""
    """The one-sided bounds of the difference, by which the gate decides."""
    judged: str = ""
    """judged@k, where judgements are Pooled: the share of its first k answers that somebody has judged."""
    against_judged: str = ""
    """The same of the version that it was compared with."""
    recall: str = ""
    """The index's own recall: the share of what exact search over the stored vectors finds that it finds too."""
    against_recall: str = ""
    """The same of the index that it was compared with."""


class CanariesStatus(base.Fact):
    """One time that the canaries were asked."""

    at: datetime
    """When."""
    version: str
    """Which version was asked."""
    found: str
    """The share of the canaries that found all their documents."""
    against: str = ""
    """Which version it was compared with."""
    overlap: str = ""
    """The mean share of the first answers that both versions found; empty across spaces."""
    kept: str = ""
    """The mean share of what its index answered when it was first asked that it still finds."""


class ShadowStatus(base.Fact):
    """How the answers of a version that was asked beside compare with those that were given."""

    index: str
    """The collection or table that is asked beside."""
    version: str = ""
    """Its version."""
    against: str = ""
    """The version whose answers were given."""
    since: datetime
    """When the migration, the burn-in or the drill began that this is of."""
    percent: int = 0
    """The share of the queries that goes there too; 0 once that is over."""
    queries: int = 0
    """Of how many queries both answers were compared, in two digits."""
    overlap: str = ""
    """The mean share of the documents that both found: versions differ by it, and none is better for it."""
    correlation: str = ""
    """How alike the two orders are, as rank-biased overlap: 1 for the same."""


class DrillStatus(base.Fact):
    """A practice of going back."""

    token: str
    """What asked for it."""
    version: str = ""
    """The version that would serve again."""
    at: datetime
    """When it began."""
    done_at: datetime | None = None
    """When it was over; None while it is on."""
    queries: int = 0
    """The real queries that also went there."""
    failed: int = 0
    """Those that failed there."""
    overlap: str = ""
    """The mean share of the documents that both versions found."""
    message: str = ""
    """Why nobody was asked, as a clause."""
