"""Calls the handler of a request's HTTP method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import MethodNotAllowed

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """The ASGI application of a path, for all its methods. HEAD is handled as GET, and OPTIONS lists the methods.

    Starlette has a route for each path and method, and sends an Allow header with the methods of one route only.
    """

    def __init__(self, **handlers: Handler) -> None:
        """`handlers` are by HTTP method, in upper case."""
        self._handlers: Mapping[str, Handler] = handlers
        self._allowed = {*handlers, "OPTIONS"} | ({"HEAD"} if "GET" in handlers else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds to one request. Raises MethodNotAllowed, and what the handler raises."""
        request = Request(scope, receive)
        method = request.method
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is not None:
            response = await handler(request)
        elif method == "OPTIONS":
            response = Response(status_code=204, headers={"allow": ", ".join(sorted(self._allowed))})
        else:
            raise MethodNotAllowed(self._allowed)
        await response(scope, receive, send)
