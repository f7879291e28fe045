"""Traces: W3C trace context is read and passed on; spans are recorded if a tracer is configured."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from random import getrandbits, random
from typing import Any, NamedTuple, TypeVar

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = "traceparent"
TRACEPARENT_PATTERN = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# The flag in the last digit of a traceparent: the caller records the trace.
SAMPLED = 1
# Codes of errors of the server; the other codes are errors of the caller. (OpenTelemetry's conventions for gRPC.)
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

T = TypeVar("T")
# The tracer of the current call, for spans inside it. None: nothing is recorded.
_tracer: ContextVar[Tracer | None] = ContextVar("tracer", default=None)


def accept_traceparent(value: object) -> str | None:
    """Returns a caller's traceparent if it is well-formed, else None."""
    return value if isinstance(value, str) and TRACEPARENT_PATTERN.fullmatch(value) else None


class RatioTracer(NamedTuple):
    """A tracer, and the share of the traces beginning in this process that it records."""

    tracer: Tracer
    ratio: float = 1.0


class CallTrace:
    """The trace of one call: `traceparent` for the calls that it makes, `trace_id` for its log line. None: no trace."""

    __slots__ = ("_span", "_tokens", "trace_id", "traceparent")

    def __init__(
        self, tracer: RatioTracer | None, name: str, kind: SpanKind, attributes: Mapping[str, str], value: Any
    ):
        self.traceparent = accept_traceparent(value)
        self._span: Span | None = None
        # Not with the SDK's sampler, where a span that is not recorded costs 70 µs of a request.
        if tracer is not None and self.traceparent is None and random() >= tracer.ratio:  # noqa: S311 - a share, no secret
            self.traceparent = f"00-{getrandbits(128) or 1:032x}-{getrandbits(64) or 1:016x}-00"
        self.trace_id = self.traceparent[3:35] if self.traceparent else None
        if tracer is not None and (self.traceparent is None or int(self.traceparent[-1], 16) & SAMPLED):
            self._start(tracer.tracer, name, kind, attributes)

    def _start(self, tracer: Tracer, name: str, kind: SpanKind, attributes: Mapping[str, str]) -> None:
        carrier = {TRACEPARENT: self.traceparent} if self.traceparent else {}
        parent = TraceContextTextMapPropagator().extract(carrier)
        self._span = tracer.start_span(name, parent, kind, attributes)
        self._tokens = context.attach(trace.set_span_in_context(self._span, parent)), _tracer.set(tracer)
        span = self._span.get_span_context()
        self.trace_id = f"{span.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{span.span_id:016x}-{span.trace_flags:02x}"

    def set_route(self, method: str, route: str) -> None:
        """Names the span of an HTTP request after its route, which is known only after routing."""
        if self._span is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)

    @property
    def recorded_id(self) -> str | None:
        """The trace id, if this process records the trace; else None."""
        return self.trace_id if self._span is not None and self._span.is_recording() else None

    def end(self, attribute: str, code: str, *, is_error: bool) -> None:
        """Ends the span, with the status code as an attribute. Called in the task that started it."""
        if self._span is None:
            return
        self._span.set_attribute(attribute, code)
        if is_error:
            self._span.set_status(StatusCode.ERROR, code)
        context_token, tracer_token = self._tokens
        context.detach(context_token)
        _tracer.reset(tracer_token)
        self._span.end()


def trace_rpc(tracer: RatioTracer | None, path: str, value: object) -> CallTrace:
    """Starts the span of a call of an RPC; `value` is the caller's traceparent."""
    name = path.removeprefix("/")
    return CallTrace(tracer, name, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": name}, value)


def trace_http(tracer: RatioTracer | None, method: str, value: object) -> CallTrace:
    """Starts the span of an HTTP request; `value` is the client's traceparent."""
    return CallTrace(tracer, method, SpanKind.SERVER, {"http.request.method": method}, value)


async def trace_statement(run: Callable[..., Awaitable[T]], statement: str, *arguments: Any) -> T:
    """Runs a statement in a span that has the statement's name."""
    tracer = _tracer.get()
    if tracer is None:
        return await run(statement, *arguments)
    # Statements of `.sql` files begin with their name.
    name = statement[3:].partition(" ")[0] if statement.startswith("/* ") else "statement"
    attributes = {"db.system.name": "postgresql", "db.query.summary": name}
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
        return await run(statement, *arguments)
