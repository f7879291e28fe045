"""Refusals that only HTTP knows. `rpc.boundary` has their statuses."""

from __future__ import annotations

from collections.abc import Iterable

from rpc.errors import ServiceError


class RouteNotFound(ServiceError):
    """No such path."""

    code = "NOT_FOUND"
    reason = "ROUTE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Not found", details="There is no such path; GET /api/openapi.json lists those there are.")


class MethodNotAllowed(ServiceError):
    """A path that there is, with a method that it does not have."""

    code = "INVALID_ARGUMENT"
    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__("Method not allowed", details=f"This path takes {self.allow}.")


class NotAcceptable(ServiceError):
    """A client that takes nothing of what there is."""

    code = "INVALID_ARGUMENT"
    reason = "NOT_ACCEPTABLE"

    def __init__(self, there_is: str) -> None:
        super().__init__(
            "Not acceptable", details=f"The answer is {there_is}; put it into Accept, or leave Accept out."
        )


class UnsupportedMediaType(ServiceError):
    """A body of another kind than this path takes."""

    code = "INVALID_ARGUMENT"
    reason = "UNSUPPORTED_MEDIA_TYPE"

    def __init__(self, taken: Iterable[str]) -> None:
        super().__init__("Unsupported media type", details=f"Send Content-Type {' or '.join(taken)}, not encoded.")


class UriTooLong(ServiceError):
    """A path or query longer than any of ours."""

    code = "INVALID_ARGUMENT"
    reason = "URI_TOO_LONG"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__("URI too long", details=f"The {what} may have {limit} bytes at most.")


class RequestTimeout(ServiceError):
    """A client that stopped sending in the middle of its request."""

    code = "DEADLINE_EXCEEDED"
    reason = "REQUEST_TIMEOUT"

    def __init__(self, seconds: float) -> None:
        super().__init__("Request timeout", details=f"The rest did not come within {seconds:g} seconds; send it again.")


class CrossSiteRequest(ServiceError):
    """A browser's request with our cookie that our page did not make."""

    code = "PERMISSION_DENIED"
    reason = "CROSS_SITE_REQUEST"

    def __init__(self) -> None:
        super().__init__(
            "Cross-site request refused", details="Call from the page itself, or send a bearer token and no cookie."
        )


class HeadersTooLarge(ServiceError):
    """More or longer headers than a request may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "HEADERS_TOO_LARGE"

    def __init__(self, limit: str) -> None:
        super().__init__("Headers too large", details=f"The headers may have {limit} at most.")
