"""Calls to the Jobs service: channel, token, deadlines, and retries."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import grpc
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub

from trainer.client.errors import TrainerError
from trainer.client.tokens import Token, read_token

# Deadline of a call, seconds. For LeaseJobs it is added to the time that the call waits for a job.
CALL_SECONDS = 10.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 20_000),
]


class Connection:
    """A channel to the Jobs service and the token for its calls. Raises TrainerError for an address that is a URL."""

    def __init__(self, address: str, token: Token, credentials: grpc.ChannelCredentials | None = None) -> None:
        if re.match(r"https?://", address):
            raise TrainerError(
                f"{address} is a URL: give the Jobs service's gRPC address as HOST:PORT, such as jobs.internal:50052"
            )
        self._channel = (
            grpc.secure_channel(address, credentials, CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, CHANNEL_OPTIONS)
        )
        stub: Any = WorkerServiceStub
        self._stub = stub(self._channel)  # its types are those of grpc.aio
        self._token = token

    @property
    def can_refresh_token(self) -> bool:
        """Whether the token may change between calls: it is read from a file or returned by a function."""
        return not isinstance(self._token, str)

    def close(self) -> None:
        """Ends the calls that are open."""
        self._channel.close()

    def start(self, name: str, request: Any, timeout_seconds: float) -> Any:
        """Starts a call that has one response; returns its future. Raises TrainerError for a malformed token."""
        return getattr(self._stub, name).future(request, metadata=self._metadata(), timeout=timeout_seconds)

    def call(self, name: str, request: Any, timeout_seconds: float) -> Any:
        """Makes a call that streams: returns its response, or an iterator of them. Raises grpc.RpcError, TrainerError.

        `request` is a message, or an iterator of them. Iterating over the responses raises grpc.RpcError.
        """
        return getattr(self._stub, name)(request, metadata=self._metadata(), timeout=timeout_seconds)

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {read_token(self._token)}")]


def backoff() -> Iterator[float]:
    """Yields the pauses between retries, seconds: exponential backoff with jitter."""
    pause = MIN_BACKOFF_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        pause = min(pause * 2, MAX_BACKOFF_SECONDS)
