"""What every test of a refusal looks at: its code, its reason, and what it must not say."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from rpc.methods import Method, methods
from rpc.status import STATUS_METADATA
from tests.conftest import Stack
from tests.databases import SERVICE_PASSWORD

# Never in an answer: traces, SQL, connection strings, names of our classes and drivers.
PRIVATE = ("Traceback", "asyncpg", "select ", "insert ", "postgresql", SERVICE_PASSWORD, "Error(", "lora_", 'File "')


@dataclass(frozen=True)
class Refusal:
    """An error as a client reads it. `violations`: field → message."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]
    retryable: bool
    raw: bytes


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads an error that one of our services raised. Fails if it tells what it must not."""
    credentials = dict(error.trailing_metadata() or ())
    assert STATUS_METADATA in credentials, f"no status details: {error.code()} {error.details()}"
    raw = credentials[STATUS_METADATA]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert info.domain == "pipeline"
    assert info.metadata["request_id"]
    assert (status.code, status.message) == (error.code().value[0], error.details())
    for word in PRIVATE:
        assert word not in str(status), word
    return Refusal(
        code=error.code(),
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={each.field: each.description for each in bad.field_violations},
        retryable=any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details),
        raw=raw,
    )


async def refused(call: Awaitable[Any]) -> Refusal:
    """Awaits a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


def every_method(stack: Stack) -> list[tuple[Any, Method]]:
    """Every RPC of every service there is, with the channel to it."""
    return [
        (channel, method)
        for service, (channel, servicer) in stack.services.items()
        for method in methods(service)
        if hasattr(servicer, method.name)
    ]


async def call_empty(channel: Any, method: Method, **options: Any) -> Any:
    """Calls an RPC of any kind with its empty message."""
    return await call_with(channel, method, method.request(), **options)


async def call_with(channel: Any, method: Method, request: Any, **options: Any) -> Any:
    """Calls an RPC of any kind with one message."""
    kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    stub = getattr(channel, kind)(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )

    async def requests() -> Any:
        yield request

    answer = stub(requests() if method.client_streaming else request, **options)
    if method.server_streaming:
        return [each async for each in answer]
    return await answer
