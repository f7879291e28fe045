"""Errors of a trainer's calls."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Statuses after which the same call may succeed: the server could not be reached, or was overloaded.
TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
# Reasons of FAILED_PRECONDITION after which the lease continues.
STILL_LEASED = frozenset({"ARTIFACT_MISMATCH", "INVALID_TRANSITION"})


class Stopped(Exception):
    """The lease is over. The trainer must stop working on the job.

    `reason`: `cancelled`, `cost_limit`, `duration_limit`, `lease_lost`, or how the job ended otherwise.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"stop: {reason}")
        self.reason = reason


class Interrupted(BaseException):
    """Raised in the body of a job to return it to the queue."""


class TrainerError(Exception):
    """An error that a retry does not fix: an invalid token, a value out of range, a wrong setting."""


class ResultTooLarge(TrainerError):
    """A result that is larger than the service accepts. Another attempt would fail for the same reason."""


class InvalidRequest(TrainerError):
    """A request that violates the contract."""


def permanent_error(error: Any, *, can_refresh_token: bool) -> Stopped | TrainerError | None:
    """Returns the exception for a failed call about a lease; None if the same call may succeed later.

    `can_refresh_token`: whether a later call may carry another token.
    """
    code, reason = error.code(), reason_of(error)
    if code == grpc.StatusCode.FAILED_PRECONDITION and reason not in STILL_LEASED:
        return Stopped(reason.lower())
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(describe(error))
    if reason == "ARTIFACT_TOO_LARGE":
        return ResultTooLarge(describe(error))
    if is_transient(error) or (code == grpc.StatusCode.UNAUTHENTICATED and can_refresh_token):
        return None
    return TrainerError(describe(error))


def is_transient(error: Any) -> bool:
    """Whether the same call may succeed later."""
    return error.code() in TRANSIENT


def reason_of(error: Any) -> str:
    """Returns the reason of a failed call as in the contract; empty if it has none."""
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            break
    return str(info.reason)


def describe(error: Any) -> str:
    """Returns a failed call in one line: status, reason, message, and invalid fields."""
    status, violations = rpc_status.from_call(error), error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        if detail.Unpack(violations):
            break
    fields = "; ".join(f"{each.field}: {each.description}" for each in violations.field_violations)
    return f"{error.code().name} {reason_of(error)}: {error.details()}" + (f" ({fields})" if fields else "")
