"""Leases jobs that an engine can place, starts them there, and reports to the Jobs service how they ended.

Every pass reads runs and leases again, so a new process manages the runs of the process before it. It restarts their timeouts.
Leases that the earlier process had not recorded on the engine expire, and their jobs lose no attempt.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
import structlog
from pipeline.workers.v1 import workers_pb2

from trainer.client import Stopped, Trainer, TrainerError
from trainer.client.connection import CALL_SECONDS, Connection
from trainer.client.errors import describe, permanent_error
from trainer.client.reports import MAX_LINE, clean_text
from trainer.dispatcher.engine import Engine, EngineRefused, EngineUnavailable, Phase, Run, Unavailable, name_of
from trainer.dispatcher.metrics import DispatcherMetrics

MAX_REASON, MAX_ERROR = 500, 2_000
# Time without new leases after the engine refused one, seconds: the operator has to change something.
REFUSED_SECONDS = 60.0
# Leases that are read concurrently.
MAX_CONCURRENT_CALLS = 16
# Phases of runs that have no GPUs yet. Their GPUs are not offered.
UNPLACED = frozenset({Phase.RECORDED, Phase.WAITING, Phase.SUSPENDED})
ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.PREEMPTED})

log = structlog.get_logger()


class ServiceUnavailable(Unavailable):
    """The Jobs service cannot be reached now."""


class Dispatcher:
    """Runs one pass after the other until it is stopped.

    `start_seconds`: time that a placed run has until its first report.
    """

    def __init__(
        self,
        trainer: Trainer,
        connection: Connection,
        engine: Engine,
        metrics: DispatcherMetrics,
        *,
        poll_seconds: float,
        start_seconds: float,
    ) -> None:
        self._trainer, self._connection, self._engine, self._metrics = trainer, connection, engine, metrics
        self._poll_seconds, self._start_seconds = poll_seconds, start_seconds
        self._stopping = threading.Event()
        self._runs: Sequence[Run] = ()
        # Leases that the engine has not recorded yet, by token.
        self._unrecorded: dict[str, workers_pb2.Lease] = {}
        # By token, in monotonic seconds: when a lease was renewed and with which reason; when its run was first seen placed.
        self._renewed: dict[str, tuple[float, str]] = {}
        self._placed_at: dict[str, float] = {}
        self._refused_until = 0.0
        self._is_failing = False

    def stop(self) -> None:
        """Leases no more jobs. Runs continue; the next dispatcher of this name manages them."""
        self._stopping.set()
        self._trainer.stop()

    def run(self) -> None:
        """Dispatches until `stop`. Raises TrainerError."""
        while not self._stopping.is_set():
            pause = self._poll_seconds
            try:
                has_waited = self._pass()
                self._is_failing = False
                if has_waited:
                    continue
            except Unavailable as error:
                if not self._is_failing:
                    log.warning("dispatch_failed", error=str(error))
                self._is_failing = True
                pause = max(pause, error.pause_seconds)
            self._stopping.wait(pause)
        with suppress(ServiceUnavailable):
            for lease in self._unrecorded.values():
                self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, lease)

    def _pass(self) -> bool:
        """Handles every run, then leases one more job if GPUs are free. Returns whether it called LeaseJobs, which waits."""
        try:
            self._start_unrecorded()
            self._runs = self._engine.runs()
        except EngineUnavailable:
            self._renew_waiting_leases()
            raise
        for run, lease in zip(self._runs, self._read_leases([run.lease for run in self._runs]), strict=True):
            self._reconcile(run, lease)
        self._drop_old_times()
        offers = self._offers()
        self._metrics.update(offers, self._runs)
        if self._unrecorded or not offers or time.monotonic() < self._refused_until:
            return False
        jobs = self._trainer.lease(wait_seconds=self._poll_seconds, gpus=offers, deferred=True)
        self._unrecorded.update((job.lease.lease_token, job.lease) for job in jobs)
        self._start_unrecorded()
        return True

    def _offers(self) -> Mapping[str, int]:
        """Returns free GPUs by type, less those of runs that are not placed yet."""
        reserved = Counter[str]()
        for run in self._runs:
            if run.phase in UNPLACED:
                reserved[run.lease.gpu_config.type] += run.lease.gpu_config.count
        free = {gpu_type: count - reserved[gpu_type] for gpu_type, count in self._engine.offers().items()}
        return {gpu_type: count for gpu_type, count in free.items() if count > 0}

    def _start_unrecorded(self) -> None:
        """Starts leases that the engine has not recorded yet."""
        for token, lease in list(self._unrecorded.items()):
            (state,) = self._read_leases([lease])
            if state is not None:
                if state.waiting:
                    self._renew(lease, "Waiting for its scheduler.")
                self._start(lease)
            del self._unrecorded[token]

    def _start(self, lease: workers_pb2.Lease) -> None:
        try:
            self._engine.start(lease)
        except EngineRefused as error:
            log.error("run_refused", job=lease.job_id, error=str(error))
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, lease)

    def _reconcile(self, run: Run, lease: workers_pb2.GetLeaseResponse | None) -> None:
        """Ends a run whose lease is over, and the lease of a run that has ended. Otherwise starts or renews it."""
        if lease is not None and run.phase is Phase.SUSPENDED and not lease.waiting:
            run = replace(run, phase=Phase.PREEMPTED)
        if lease is None or run.phase in ENDED:
            if lease is not None:
                self._report_end(run)
            self._engine.delete(run)
        elif lease.waiting and run.phase is Phase.RECORDED:
            self._renew(run.lease, run.reason)
            self._start(run.lease)
        elif lease.waiting:
            self._await_report(run)

    def _report_end(self, run: Run) -> None:
        """Ends the lease of a run that ended without reporting a result."""
        log.info("run_ended", job=run.lease.job_id, phase=run.phase.name.lower(), reason=run.reason)
        if run.phase is Phase.PREEMPTED:
            self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, run.lease)
        elif run.phase is Phase.SUCCEEDED:
            self._fail(run.lease, "The training ended without a result.", retryable=True)
        else:
            self._fail(run.lease, run.reason, retryable=run.retryable)

    def _await_report(self, run: Run) -> None:
        """Renews the lease of a run that has not reported yet. Fails a run that has not reported in time."""
        now, token = time.monotonic(), run.lease.lease_token
        if run.phase is not Phase.PLACED:
            self._placed_at.pop(token, None)
        elif now - self._placed_at.setdefault(token, now) > self._start_seconds:
            reason = f"It did not start within {self._start_seconds:.0f} s. {run.reason}".strip()
            self._fail(run.lease, reason, retryable=True)
            self._engine.delete(run)
            return
        self._renew(run.lease, run.reason)

    def _renew_waiting_leases(self) -> None:
        """Renews the leases of waiting runs while the engine is unavailable."""
        waiting = [run.lease for run in self._runs if run.lease.lease_token in self._renewed]
        leases = [*waiting, *self._unrecorded.values()]
        for lease, state in zip(leases, self._read_leases(leases), strict=True):
            if state is None:
                self._unrecorded.pop(lease.lease_token, None)
            elif state.waiting:
                self._renew(lease, "The cluster cannot be reached.")

    def _drop_old_times(self) -> None:
        """Drops the times of leases without a run."""
        tokens = {run.lease.lease_token for run in self._runs}
        self._renewed = {token: value for token, value in self._renewed.items() if token in tokens}
        self._placed_at = {token: value for token, value in self._placed_at.items() if token in tokens}

    def _renew(self, lease: workers_pb2.Lease, reason: str) -> None:
        """Renews a waiting lease if it is due or the reason has changed."""
        now, token, text = time.monotonic(), lease.lease_token, clean_text(reason, MAX_REASON)
        renewed_at, renewed_text = self._renewed.get(token, (None, ""))
        if renewed_at is not None and text == renewed_text and now - renewed_at < lease.renew_every_ms / 2000:
            return
        request = workers_pb2.ReportProgressRequest(
            job_id=lease.job_id,
            lease_token=token,
            waiting_reason=text,
            external_job_id=name_of(lease),
            log_lines=[clean_text(reason, MAX_LINE)] if text and text != renewed_text else [],
        )
        if self._call("ReportProgress", request) is not None:
            self._renewed[token] = now, text

    def _read_leases(self, leases: Sequence[workers_pb2.Lease]) -> list[workers_pb2.GetLeaseResponse | None]:
        """Returns the state of each lease; None for those that are over. Reads several concurrently."""
        states = list[workers_pb2.GetLeaseResponse | None]()
        for start in range(0, len(leases), MAX_CONCURRENT_CALLS):
            calls = [
                self._connection.start(
                    "GetLease",
                    workers_pb2.GetLeaseRequest(job_id=lease.job_id, lease_token=lease.lease_token),
                    CALL_SECONDS,
                )
                for lease in leases[start : start + MAX_CONCURRENT_CALLS]
            ]
            responses = [self._result("GetLease", call) for call in calls]
            states += [None if response is None or response.stop else response for response in responses]
        return states

    def _fail(self, lease: workers_pb2.Lease, message: str, *, retryable: bool) -> None:
        message = clean_text(message, MAX_ERROR) or "The cluster ended the training and gave no reason."
        self._end("FailJob", workers_pb2.FailJobRequest, lease, error_message=message, retryable=retryable)

    def _end(self, name: str, kind: Any, lease: workers_pb2.Lease, **fields: Any) -> None:
        self._call(name, kind(job_id=lease.job_id, lease_token=lease.lease_token, **fields))

    def _call(self, name: str, request: Any) -> Any:
        return self._result(name, self._connection.start(name, request, CALL_SECONDS))

    def _result(self, name: str, call: Any) -> Any:
        """Returns the response of a call; None if the lease is over. Raises ServiceUnavailable, TrainerError."""
        try:
            return call.result()
        except grpc.RpcError as error:
            permanent = permanent_error(error, can_refresh_token=self._connection.can_refresh_token)
            if isinstance(permanent, Stopped):
                return None
            if permanent is None:
                raise ServiceUnavailable(f"{name}: {describe(error)}") from error
            raise TrainerError(f"{name}: {permanent}") from error
