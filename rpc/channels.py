"""Client channels to gRPC servers."""

from __future__ import annotations

import json
from collections.abc import Iterable

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from rpc.methods import methods

MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def open_channel(
    address: str, services: Iterable[ServiceDescriptor], credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """Opens the channel to a server, without TLS if there are no credentials.

    A call that is safe to repeat is retried up to three times, with random pauses, if the server was away or the call
    conflicted with another one in the database.
    """
    repeatable = [
        {"service": method.descriptor.containing_service.full_name, "method": method.name}
        for service in services
        for method in methods(service)
        if method.safe_to_repeat
    ]
    config = {
        # While most calls fail, retries would only add load.
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
                    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"],
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
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, options)
    return grpc.aio.insecure_channel(address, options)
