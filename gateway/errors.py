"""Errors of HTTP requests, and the JSON body of every error. `rpc.status` has the HTTP statuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rpc.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, ServiceError
from rpc.status import Failure, failure_of, log_failure


class RouteNotFound(NotFound):
    """No such path."""

    title = "Not found"
    advice = "There is no such path; GET /api/openapi.json lists all paths."


class MethodNotAllowed(InvalidArgument):
    """A path that exists, with a method that it does not have."""

    title = "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(details=f"This path takes {self.allow}.")


class NotAcceptable(InvalidArgument):
    """An Accept header without the response's media type."""

    title = "Not acceptable"

    def __init__(self, media_type: str) -> None:
        super().__init__(details=f"The response is {media_type}; accept it, or send no Accept header.")


class UnsupportedMediaType(InvalidArgument):
    """A body of a media type or encoding that this path does not take."""

    title = "Unsupported media type"


class UriTooLong(InvalidArgument):
    """A path or query above its limit."""

    title = "URI too long"

    def __init__(self, part: str, limit: int) -> None:
        super().__init__(details=f"The {part} may have at most {limit} bytes.", metadata={"limit": str(limit)})


class RangeNotSatisfiable(ServiceError):
    """A Range header whose first byte is beyond the end of the file."""

    code = "OUT_OF_RANGE"
    title = "Range not satisfiable"
    advice = "The first byte of the Range header is beyond the end of the file."


class RequestTimeout(ServiceError):
    """A client that stopped sending in the middle of its request."""

    code = "DEADLINE_EXCEEDED"
    title = "Request timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(details=f"The rest of the body did not arrive within {seconds:g} seconds; send it again.")


class CrossSiteRequest(PermissionDenied):
    """A browser's request with the session cookie, sent by a page of another site."""

    title = "Cross-site request refused"
    advice = "Call from the page itself, or send a bearer token and no cookie."


class UntrustedHost(PermissionDenied):
    """A sign-in at the development issuer under a host name that another site could have pointed at this machine."""

    reason = "CROSS_SITE_REQUEST"
    title = "Sign-in refused"

    def __init__(self, host: str) -> None:
        super().__init__(
            details="The development issuer signs in at localhost and IP addresses only; for "
            f"{host[:100]} set PIPELINE_PUBLIC_ORIGIN.",
        )


class HeadersTooLarge(ResourceExhausted):
    """More or longer headers than a request may have."""

    title = "Headers too large"

    def __init__(self, limit: str) -> None:
        super().__init__(details=f"The headers may have at most {limit}.")


def error_body(failure: Failure, request_id: str) -> dict[str, Any]:
    """Returns the JSON body of an error. `metadata`, such as the `limit` that was reached, only where the error has any."""
    details: Any = failure.details
    if failure.violations:
        details = {}
        for path, message in failure.violations:
            details.setdefault(path, []).append(message)
    body = {
        "error": failure.message,
        "details": details,
        "code": failure.code.name,
        "reason": failure.reason,
        "request_id": request_id,
    }
    return body | {"metadata": dict(failure.metadata)} if failure.metadata else body


async def error_response(request: Request, error: Exception) -> Response:
    """Returns the response to any exception."""
    if isinstance(error, HTTPException):
        # Starlette raises these for paths and methods without a route.
        error = MethodNotAllowed({"GET", "HEAD"}) if error.status_code == 405 else RouteNotFound()
    failure = failure_of(error)
    state = request.scope["state"]
    state["reason"] = failure.reason
    log_failure(error, failure, path=state["path"], request_id=state["request_id"])
    headers = {"cache-control": "no-store"}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allow
    if failure.retryable:
        headers["retry-after"] = "1"
    body = orjson.dumps(error_body(failure, state["request_id"]))
    return Response(body, failure.http_status, headers, media_type="application/json")
