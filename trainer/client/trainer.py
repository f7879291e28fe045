"""A trainer that offers GPUs and leases jobs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
from pipeline.workers.v1 import workers_pb2

from trainer.client.connection import CALL_SECONDS, Connection, backoff
from trainer.client.errors import TrainerError, describe, is_transient
from trainer.client.files import TRANSFER_SECONDS
from trainer.client.job import Job
from trainer.client.tokens import Token, read_token

WAIT_SECONDS = 30


class Trainer:
    """A trainer with GPUs to offer. Thread-safe. A context manager, like its jobs.

    `token` has the role `worker`: text, a file, or a function that returns one. `gpus`: free GPUs by type. The lease of a job
    without a report for `stall_seconds` is no longer renewed. A failed transfer of a file is repeated for `transfer_seconds`.
    `simulated`: trains nothing, so forecasts learn nothing from its jobs. Raises TrainerError for a malformed address or
    token.
    """

    def __init__(
        self,
        address: str,
        token: Token,
        *,
        gpus: Mapping[str, int],
        name: str = "",
        stall_seconds: float = math.inf,
        transfer_seconds: float = TRANSFER_SECONDS,
        simulated: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if not callable(token):
            read_token(token)
        self._connection = Connection(address, token, credentials)
        self._gpus = dict(gpus)
        self._name = name
        self._timeouts = {"stall_seconds": stall_seconds, "transfer_seconds": transfer_seconds}
        self._simulated = simulated
        self._stopping = threading.Event()
        self._calls: set[Any] = set()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._connection.close()

    def jobs(self) -> Iterator[Job]:
        """Leases jobs one after the other and yields them, until `stop`. Raises TrainerError."""
        while not self._stopping.is_set():
            yield from self.lease()

    def lease(
        self,
        max_jobs: int = 1,
        *,
        wait_seconds: float = WAIT_SECONDS,
        gpus: Mapping[str, int] | None = None,
        deferred: bool = False,
    ) -> list[Job]:
        """Leases jobs, each to be used as a context manager. Returns an empty list if no job is queued within `wait_seconds`.

        `gpus`: free GPUs, if they are not those of the constructor. `deferred`: a scheduler starts the jobs later, and they
        cost nothing until they report. Retries while the service cannot be reached or is overloaded. Raises TrainerError.
        """
        deadline = time.monotonic() + wait_seconds
        request = workers_pb2.LeaseJobsRequest(
            max_jobs=max_jobs,
            gpus=[workers_pb2.GpuOffer(type=type_, count=count) for type_, count in (gpus or self._gpus).items()],
            wait_ms=int(wait_seconds * 1000),
            trainer=self._name,
            simulated=self._simulated,
            deferred=deferred,
        )
        for pause in backoff():
            if self._stopping.is_set():
                break
            call = self._connection.start("LeaseJobs", request, wait_seconds + CALL_SECONDS)
            self._calls.add(call)
            if self._stopping.is_set():
                call.cancel()
            try:
                leases = call.result().leases
                return [self.resume(lease) for lease in leases]
            except grpc.FutureCancelledError:
                break
            except grpc.RpcError as error:
                if not is_transient(error):
                    raise TrainerError(describe(error)) from error
                if time.monotonic() > deadline:
                    break
            finally:
                self._calls.discard(call)
            self._stopping.wait(pause)
        return []

    def resume(self, lease: workers_pb2.Lease) -> Job:
        """Returns the job of a lease that another process of the same user took."""
        return Job(self._connection, lease, **self._timeouts)

    def stop(self) -> None:
        """Leases no more jobs. Leased jobs continue."""
        self._stopping.set()
        for call in list(self._calls):
            call.cancel()
