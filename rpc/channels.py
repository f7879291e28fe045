"""Client channels to gRPC servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from rpc.methods import methods

MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def open_channel(
    address: str, services: Iterable[ServiceDescriptor], credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """Opens the channel to a server, without TLS if there are no credentials.

    A call that is safe to repeat is retried up to three times, with random pauses, after UNAVAILABLE, CANCELLED (the server
    cancels calls when others of the connection are reset) and ABORTED (two calls conflicted in the database).
    """
    repeatable = [
        {"service": method.descriptor.containing_service.full_name, "method": method.name}
        for service in services
        for method in methods(service)
        if method.safe_to_repeat
    ]
    config = {
        # Stops retries while most calls fail.
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": repeatable,
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED", "CANCELLED"],
                },
            }
        ],
    }
    options = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]
    interceptors = [EarlyStatus()]
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, options, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, options, interceptors=interceptors)


class EarlyStatus(grpc.aio.StreamUnaryClientInterceptor):
    """Keeps the status of an upload that the server ends before it has read the whole upload.

    Sending the next message fails then, and grpc.aio reports INTERNAL, `Failed "execute_batch"`, in place of the server's
    status.
    """

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Starts the call."""
        call = await continuation(client_call_details, request_iterator)
        # grpc.aio has no public access to the core's call.
        call._cython_call = _CoreCall(call._cython_call)  # noqa: SLF001
        return call


class _CoreCall:
    """Wraps the core's call: an error while sending waits for the call's status."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def send_serialized_message(self, message: bytes) -> None:
        """Sends a message. Raises InvalidStateError if the call has ended."""
        try:
            await self._call.send_serialized_message(message)
        except grpc.aio.InternalError:
            # Sending fails only if the call has ended, so its status arrives.
            await self._call.status()
            raise asyncio.InvalidStateError("the call has ended") from None
