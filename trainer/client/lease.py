"""Calls about one lease, repeated until it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from pipeline.workers.v1 import workers_pb2

from trainer.client.connection import CALL_SECONDS, Connection, backoff
from trainer.client.errors import Stopped, TrainerError, describe, permanent_error

Transferred = TypeVar("Transferred")


class LeaseCalls:
    """Calls about one lease. Each is repeated until it succeeds, is refused for good, or the lease is over."""

    def __init__(self, connection: Connection, lease: workers_pb2.Lease, *, transfer_seconds: float) -> None:
        # `completed`, `failed`, `released`, or the reason of Stopped. Empty while the lease lasts.
        self.outcome = ""
        self._connection = connection
        self._lease = lease
        self._transfer_seconds = transfer_seconds
        # Monotonic time. Counted from before the call that renewed the lease, so that it is never after the end on the server.
        self._ends_at = time.monotonic() + lease.lease_ms / 1000

    def check(self) -> None:
        """Raises Stopped once the lease is over."""
        if self.outcome:
            raise Stopped(self.outcome)

    def stopped(self, reason: str) -> Stopped:
        """Ends the lease on this side. Returns the exception to raise."""
        self.outcome = reason.lower()
        return Stopped(self.outcome)

    def request(self, kind: Callable[..., Any], **fields: Any) -> Any:
        """Returns a request that names the lease."""
        return kind(job_id=self._lease.job_id, lease_token=self._lease.lease_token, **fields)

    def renew(self, report: workers_pb2.ReportProgressRequest) -> workers_pb2.ReportProgressResponse:
        """Sends a report, which renews the lease. Raises Stopped, TrainerError."""
        response: workers_pb2.ReportProgressResponse
        response, sent_at = self._call("ReportProgress", report)
        if response.stop:
            raise self.stopped(workers_pb2.StopReason.Name(response.stop_reason).removeprefix("STOP_REASON_"))
        self._ends_at = sent_at + self._lease.lease_ms / 1000
        return response

    def end(self, name: str, request: Any, outcome: str) -> None:
        """Ends the lease by a call. Raises Stopped, TrainerError."""
        self.check()
        self._call(name, request)
        self.outcome = outcome

    def transfer(self, transfer: Callable[[], Transferred], check: Callable[[], None]) -> Transferred:
        """Repeats a transfer until it succeeds; none begins after `transfer_seconds`. Raises Stopped, TrainerError.

        `check` is called before each attempt and may raise.
        """
        waits, deadline = backoff(), time.monotonic() + self._transfer_seconds
        while True:
            try:
                check()
                return transfer()
            except grpc.RpcError as error:
                self._raise_if_permanent(error)
                if time.monotonic() > deadline:
                    raise TrainerError(
                        f"the transfer has not succeeded in {self._transfer_seconds:.0f} s: {describe(error)}"
                    ) from error
            time.sleep(next(waits))

    def _call(self, name: str, request: Any) -> tuple[Any, float]:
        """Returns the response, and when its request was sent. Raises Stopped, TrainerError."""
        waits = backoff()
        while True:
            sent_at = time.monotonic()
            try:
                # One attempt even after the end: by the server's clock the lease may not be over.
                timeout = max(1.0, min(CALL_SECONDS, self._ends_at - sent_at))
                return self._connection.start(name, request, timeout).result(), sent_at
            except grpc.RpcError as error:
                self._raise_if_permanent(error)
                pause = min(next(waits), self._lease.renew_every_ms / 1000)
                if time.monotonic() + pause > self._ends_at:
                    raise self.stopped("LEASE_LOST") from error
            time.sleep(pause)

    def _raise_if_permanent(self, error: Any) -> None:
        permanent = permanent_error(error, can_refresh_token=self._connection.can_refresh_token)
        if isinstance(permanent, Stopped):
            self.outcome = permanent.reason
        if permanent is not None:
            raise permanent from error
