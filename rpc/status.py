"""Statuses: the only place that turns an exception into a `google.rpc.Status` and an HTTP status.

The class of a ServiceError has its gRPC code and reason (`rpc/errors.py`, `errors.py` of each service); this module has
everything else about a status. `gateway/errors.py` makes the JSON body of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import grpc.aio
import structlog
from google.protobuf.any import pack
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from rpc import errors

DOMAIN = "pipeline"
STATUS_METADATA = "grpc-status-details-bin"
# Violations listed in one response.
MAX_VIOLATIONS = 50
# A status is sent as metadata, in base64; most clients accept at most 8 KiB of metadata.
MAX_STATUS_BYTES = 5 * 1024
MAX_VIOLATION_CHARACTERS = 2_000
RETRY_AFTER_SECONDS = 1
# Reasons that are worth a retry, besides the codes UNAVAILABLE and ABORTED.
RETRYABLE_REASONS = frozenset({"OVERLOADED", "RATE_LIMITED", "TOO_MANY_UPLOADS"})
# The HTTP status is that of the reason, if it is in `HTTP_STATUS_OF_REASON`, else that of the code, else 500.
HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
HTTP_STATUS_OF_REASON: Mapping[str, int] = {
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "REQUEST_TIMEOUT": 408,
    "TOO_LARGE": 413,
    "URI_TOO_LONG": 414,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RANGE_NOT_SATISFIABLE": 416,
    "HEADERS_TOO_LARGE": 431,
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Failure:
    """What callers see of an error: the parts of a `google.rpc.Status` with ErrorInfo and BadRequest.

    `violations` are (field path, message) pairs.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    details: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()

    def to_status(self, request_id: str) -> status_pb2.Status:
        """Returns the `google.rpc.Status`, with the request id in its ErrorInfo."""
        metadata = {**self.metadata, "request_id": request_id}
        if self.details:
            metadata["details"] = self.details
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=metadata)]
        if self.violations:
            details.append(self._bad_request())
        if self.retryable:
            details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_SECONDS)))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=map(pack, details))

    def _bad_request(self) -> error_details_pb2.BadRequest:
        bad_request = error_details_pb2.BadRequest()
        for path, message in self.violations:
            description = message[:MAX_VIOLATION_CHARACTERS]
            bad_request.field_violations.add(field=path, description=description, reason=self.reason)
            if bad_request.ByteSize() > MAX_STATUS_BYTES:
                del bad_request.field_violations[-1]
                break
        return bad_request

    @property
    def http_status(self) -> int:
        """HTTP status of this error."""
        return HTTP_STATUS_OF_REASON.get(self.reason) or HTTP_STATUS.get(self.code, 500)

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED) or self.reason in RETRYABLE_REASONS


INTERNAL = Failure(
    grpc.StatusCode.INTERNAL, "INTERNAL", "internal error", "This is an error of the server; quote the request id."
)
CANCELLED = Failure(grpc.StatusCode.CANCELLED, "CANCELLED", "Call cancelled")


class CallFailed(Exception):
    """A call that ended with a failure. The boundary raises it, the transport sends its status."""

    def __init__(self, failure: Failure, request_id: str) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.request_id = request_id

    def status_metadata(self) -> tuple[tuple[str, bytes]]:
        """Returns the trailing metadata that carries the status."""
        return ((STATUS_METADATA, self.failure.to_status(self.request_id).SerializeToString()),)


def failure_of(error: BaseException) -> Failure:
    """Returns the failure of an exception. An unknown exception is INTERNAL: its text is only logged."""
    match error:
        case errors.ValidationFailed():
            violations = tuple(error.violations[:MAX_VIOLATIONS])
            return Failure(grpc.StatusCode[error.code], error.reason, error.message, violations=violations)
        case errors.ServiceError():
            return Failure(grpc.StatusCode[error.code], error.reason, error.message, error.details, error.metadata)
        case TimeoutError():
            return failure_of(errors.DeadlineExceeded())
        case grpc.aio.AioRpcError():
            return _upstream_failure(error)
    return INTERNAL


def log_failure(error: Exception, failure: Failure, **context: str) -> None:
    """Logs failures that concern an operator: internal errors with their traceback, and services that do not answer."""
    if failure.code is grpc.StatusCode.INTERNAL:
        log.error("internal_error", exc_info=error, **context)
    elif failure.reason == "SERVICE_UNAVAILABLE" and isinstance(error, grpc.aio.AioRpcError):
        log.warning("service_unavailable", error=error.details(), **context)


def _upstream_failure(error: grpc.aio.AioRpcError) -> Failure:
    """Returns the failure of a call to another service: that of its ServiceError, or one for the transport's error."""
    value = dict(error.trailing_metadata() or ()).get(STATUS_METADATA)
    status = status_pb2.Status.FromString(value) if isinstance(value, bytes) else status_pb2.Status()
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
    if info.domain == DOMAIN:
        metadata = {key: value for key, value in info.metadata.items() if key not in ("details", "request_id")}
        fields = tuple((violation.field, violation.description) for violation in bad_request.field_violations)
        return Failure(error.code(), info.reason, status.message, info.metadata.get("details", ""), metadata, fields)
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return failure_of(errors.DeadlineExceeded())
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            details = "The message is larger than the service accepts."
            return Failure(error.code(), "TOO_LARGE", "Too large", details)
        case grpc.StatusCode.UNIMPLEMENTED:
            details = "The upstream service does not have this RPC."
            return Failure(error.code(), "UNIMPLEMENTED", "Not implemented", details)
        # A server that shuts down cancels its open calls.
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            details = "The upstream service does not answer; try again in a few seconds."
            return Failure(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE", "Service unavailable", details)
    return INTERNAL
