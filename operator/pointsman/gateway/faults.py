"""What may go wrong with a request, and what its sender is told: a status, a code and one clause.

Nothing of the query is repeated, and nothing that a vendor's library said.
"""

from __future__ import annotations

from typing import Any

from pointsman.errors import PointsmanError, Retryable


class Fault(Exception):
    """Why a request is not answered as it was asked."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        """`retry_after` is in seconds; `param` names the field of the body that is to be mended."""
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after = status, code, message, param, retry_after

    def body(self) -> dict[str, Any]:
        """Return the one shape of all errors, which is OpenAI's."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None) -> Fault:
    """Return the refusal of a request that is not as it should be."""
    return Fault(400, "invalid_request", message, param=param)


def too_large(message: str, param: str | None = None) -> Fault:
    """Return the refusal of a request that is larger than the settings allow."""
    return Fault(413, "request_too_large", message, param=param)


def not_found(message: str) -> Fault:
    """Return the refusal of what is not there."""
    return Fault(404, "not_found", message)


def not_ready(message: str) -> Fault:
    """Return the answer of a gateway that cannot serve an index yet."""
    return Fault(503, "not_ready", message, retry_after=1)


def model_failed(version: str, error: PointsmanError) -> Fault:
    """Return what is said of a model that failed."""
    return _failed("model_failed", f"the model of {version} failed: {error.message}", error)


def database_failed(index: str, error: PointsmanError) -> Fault:
    """Return what is said of a database that failed."""
    return _failed("database_failed", f"the database of {index} failed: {error.message}", error)


def not_open(index: str, error: PointsmanError) -> Fault:
    """Return what is said of an index that could not be opened yet."""
    return _failed("index_not_open", f"{index} could not be opened: {error.message}", error)


def mispaired(index: str) -> Fault:
    """Return what is said where a query was embedded for another space than the index holds: it is not answered."""
    return Fault(502, "mispaired", f"{index} holds vectors of another space than its model makes; nothing is answered")


def timed_out(seconds: float) -> Fault:
    """Return what is said of a request that took too long."""
    return Fault(503, "timeout", f"not answered within {seconds:g} s", retry_after=1)


def _failed(code: str, message: str, error: PointsmanError) -> Fault:
    """Return 503, and when to come again, where it may mend itself; 502 where somebody has to mend it."""
    if isinstance(error, Retryable):
        return Fault(503, code, message, retry_after=error.retry_after or 1)
    return Fault(502, code, message)
