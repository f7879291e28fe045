"""Leases what an engine can place, starts it there, and tells the Jobs service how it went.

Runs and leases are read again in each pass: another process goes on with what is there. It starts the clocks of runs anew, and
leases that this one had not recorded on the engine yet run out, which costs their jobs no attempt.
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

from trainer.client import Trainer, TrainerError
from trainer.client.connection import CALL_SECONDS, Connection
from trainer.client.errors import describe, is_transient, reason_of
from trainer.client.reports import MAX_LINE, clean_text
from trainer.dispatcher.engine import Engine, EngineRefused, EngineUnavailable, Phase, Run, Unavailable, name_of
from trainer.dispatcher.metrics import DispatcherMetrics

MAX_REASON, MAX_ERROR = 500, 2_000
# Time without new leases after the engine refused one, seconds: the operator has to change something.
REFUSED_SECONDS = 60.0
# Leases that are read at once.
CALLS_AT_ONCE = 16
# Phases in which no GPU is taken yet: a run in one of them has a claim on what is free.
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
        # When a lease was renewed, with which words; and when its run was first seen placed. By token.
        self._renewed: dict[str, tuple[float, str]] = {}
        self._placed_at: dict[str, float] = {}
        self._refused_until = 0.0
        self._is_failing = False

    def stop(self) -> None:
        """Leases nothing more. Runs go on, and the next dispatcher of this name takes care of them."""
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
                    log.warning("dispatcher", error=str(error))
                self._is_failing = True
                pause = max(pause, error.pause_seconds)
            self._stopping.wait(pause)
        with suppress(ServiceUnavailable):
            for lease in self._unrecorded.values():
                self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, lease)

    def _pass(self) -> bool:
        """Looks at every run, then leases one job more. Returns whether it has waited for one."""
        try:
            self._record()
            self._runs = self._engine.runs()
        except EngineUnavailable:
            self._keep_waiting_leases()
            raise
        for run, lease in zip(self._runs, self._leases([run.lease for run in self._runs]), strict=True):
            self._settle(run, lease)
        self._forget()
        offers = self._offers()
        self._metrics.show(offers, self._runs)
        if self._unrecorded or not offers or time.monotonic() < self._refused_until:
            return False
        jobs = self._trainer.lease(wait_seconds=self._poll_seconds, gpus=offers, deferred=True)
        self._unrecorded.update((job.lease.lease_token, job.lease) for job in jobs)
        self._record()
        return True

    def _offers(self) -> Mapping[str, int]:
        """What is free, less what runs without a place have a claim on."""
        claimed = Counter[str]()
        for run in self._runs:
            if run.phase in UNPLACED:
                claimed[run.lease.gpu_config.type] += run.lease.gpu_config.count
        free = {gpu_type: count - claimed[gpu_type] for gpu_type, count in self._engine.offers().items()}
        return {gpu_type: count for gpu_type, count in free.items() if count > 0}

    def _record(self) -> None:
        """Starts the leases that are not on the engine yet."""
        for token, lease in list(self._unrecorded.items()):
            (state,) = self._leases([lease])
            if state is not None:
                if state.waiting:
                    self._renew(lease, "Waiting for its scheduler.")
                self._start(lease)
            del self._unrecorded[token]

    def _start(self, lease: workers_pb2.Lease) -> None:
        try:
            self._engine.start(lease)
        except EngineRefused as error:
            log.error("run-refused", job=lease.job_id, error=str(error))
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, lease)

    def _settle(self, run: Run, lease: workers_pb2.GetLeaseResponse | None) -> None:
        """Ends a run whose lease is over, and the lease of a run that has ended; else starts it or renews its lease."""
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
        """Ends the lease of a run that ended without doing so itself."""
        log.info("run-ended", job=run.lease.job_id, phase=run.phase.name.lower(), reason=run.reason)
        if run.phase is Phase.PREEMPTED:
            self._end("ReleaseJob", workers_pb2.ReleaseJobRequest, run.lease)
        elif run.phase is Phase.SUCCEEDED:
            self._fail(run.lease, "The training ended without a result.", retryable=True)
        else:
            self._fail(run.lease, run.reason, retryable=run.retryable)

    def _await_report(self, run: Run) -> None:
        """Renews the lease of a run that has not reported yet. Fails it where it should have."""
        now, token = time.monotonic(), run.lease.lease_token
        if run.phase is not Phase.PLACED:
            self._placed_at.pop(token, None)
        elif now - self._placed_at.setdefault(token, now) > self._start_seconds:
            reason = f"It did not start within {self._start_seconds:.0f} s. {run.reason}".strip()
            self._fail(run.lease, reason, retryable=True)
            self._engine.delete(run)
            return
        self._renew(run.lease, run.reason)

    def _keep_waiting_leases(self) -> None:
        """While the engine is away: renews what waits, as far as this process has seen it."""
        waiting = [run.lease for run in self._runs if run.lease.lease_token in self._renewed]
        leases = [*waiting, *self._unrecorded.values()]
        for lease, state in zip(leases, self._leases(leases), strict=True):
            if state is None:
                self._unrecorded.pop(lease.lease_token, None)
            elif state.waiting:
                self._renew(lease, "The cluster cannot be reached.")

    def _forget(self) -> None:
        """Drops the times of leases that have no run."""
        tokens = {run.lease.lease_token for run in self._runs}
        self._renewed = {token: value for token, value in self._renewed.items() if token in tokens}
        self._placed_at = {token: value for token, value in self._placed_at.items() if token in tokens}

    def _renew(self, lease: workers_pb2.Lease, reason: str) -> None:
        """Renews a lease that waits, when it is due or the reason is another one."""
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

    def _leases(self, leases: Sequence[workers_pb2.Lease]) -> list[workers_pb2.GetLeaseResponse | None]:
        """Returns the state of each lease, of several at once; None for those that are over."""
        states = list[workers_pb2.GetLeaseResponse | None]()
        for start in range(0, len(leases), CALLS_AT_ONCE):
            calls = [
                self._connection.start(
                    "GetLease",
                    workers_pb2.GetLeaseRequest(job_id=lease.job_id, lease_token=lease.lease_token),
                    CALL_SECONDS,
                )
                for lease in leases[start : start + CALLS_AT_ONCE]
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
        """The response of a call; None: the lease is over. Raises ServiceUnavailable, TrainerError."""
        try:
            return call.result()
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.FAILED_PRECONDITION and reason_of(error) in ("LEASE_LOST", "JOB_FINAL"):
                return None
            if is_transient(error) or (code == grpc.StatusCode.UNAUTHENTICATED and self._connection.can_refresh_token):
                raise ServiceUnavailable(f"{name}: {describe(error)}") from error
            raise TrainerError(f"{name}: {describe(error)}") from error
