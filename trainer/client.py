"""What a trainer needs to take jobs and report on them: lease, renew, report, stop.

For Hugging Face's `Trainer` it takes this much, with `train` and `upload` your own:

    from transformers import TrainerCallback
    from trainer.client import Stopped, Trainer

    class Reports(TrainerCallback):
        def __init__(self, job):
            self.job = job

        def on_step_end(self, args, state, control, values=None, **_):
            try:
                self.job.report(state.global_step, of=state.max_steps, epoch=state.epoch, values=values)
            except Stopped:
                control.should_training_stop = True

        def on_log(self, args, state, control, logs=None, **_):
            numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
            self.on_step_end(args, state, control, values=numbers)

    with Trainer("jobs.internal:50052", token, name="gpu-7", gpus={"H100": 8}) as trainer:
        for job in trainer.jobs():
            with job:
                model = train(job.hyperparameters, job.dataset, callbacks=[Reports(job)])
                job.complete(upload(model))

A job is had by lease. A thread of its own renews it, so that a step may take as long as it likes; reports are buffered, sent
together, and sent again for as long as the lease lives. Once the job is cancelled, at a limit or another trainer's, the next
report raises Stopped, and so does `complete`: whatever was trained since then does not count.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pipeline.workers.v1 import workers_pb2
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub

WAIT_SECONDS = 30
# How much longer than its wait, or than nothing, a call may take.
CALL_SECONDS = 10.0
# Reports that follow each other faster are sent together.
SEND_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
# What one report holds at most, by the contract; and what is kept for the next ones.
MAX_POINTS, MAX_LINES, MAX_LINE, MAX_ERROR = 100, 100, 2_000, 2_000
KEPT_POINTS, KEPT_LINES = 2_000, 1_000
# Answers that another try may better: nothing was there, or too much at once.
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

Token = str | Callable[[], str]


class Stopped(Exception):
    """The job is not this trainer's any more: stop working on it.

    `reason`: `cancelled`, `cost_limit`, `duration_limit`, `lease_lost`, or how the job ended otherwise.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"stop: {reason}")
        self.reason = reason


class TrainerError(Exception):
    """A call that the service refuses whoever repeats it: a token that does not hold, a value that is out of range."""


class Trainer:
    """A trainer with GPUs to offer. Its methods may be called from any thread; a context manager, like its jobs.

    `token` is a token of the role `worker`, or makes one whenever it is asked. `gpus` counts what is free for jobs, by type.
    A job whose code does not report for `stall_seconds` hangs, and is given up to other trainers.
    """

    def __init__(
        self,
        address: str,
        token: Token,
        *,
        gpus: Mapping[str, int],
        name: str = "",
        stall_seconds: float = math.inf,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.keepalive_time_ms", 20_000),
        ]
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        stub: Any = WorkerServiceStub
        self._stub = stub(self._channel)  # generated for both kinds of channel, and typed for the other one
        self._token = token
        self._gpus = gpus
        self._name = name
        self._stall_seconds = stall_seconds
        self._stopping = threading.Event()
        self._asking: set[Any] = set()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._channel.close()

    def jobs(self) -> Iterator[Job]:
        """One job after the other, waited for as long as it takes; ends with `stop`. Raises TrainerError."""
        while not self._stopping.is_set():
            yield from self.lease()

    def lease(self, max_jobs: int = 1, *, wait_seconds: int = WAIT_SECONDS) -> list[Job]:
        """Takes jobs from the queue, each to be used as a context manager; none where there are none in that time.

        Waits for a service that is not there, until `stop`. Raises TrainerError.
        """
        offers = [workers_pb2.GpuOffer(type=type_, count=count) for type_, count in self._gpus.items()]
        request = workers_pb2.LeaseJobsRequest(
            max_jobs=max_jobs, gpus=offers, wait_ms=int(wait_seconds * 1000), trainer=self._name
        )
        pauses = _pauses()
        while not self._stopping.is_set():
            asking = self.start("LeaseJobs", request, wait_seconds + CALL_SECONDS)
            self._asking.add(asking)
            if self._stopping.is_set():
                asking.cancel()
            try:
                return [Job(self, lease, stall_seconds=self._stall_seconds) for lease in asking.result().leases]
            except grpc.FutureCancelledError:
                break
            except grpc.RpcError as error:
                if error.code() not in PASSING:
                    raise TrainerError(_words(error)) from error
            finally:
                self._asking.discard(asking)
            self._stopping.wait(next(pauses))
        return []

    def stop(self) -> None:
        """Leases nothing more. Jobs that are had go on."""
        self._stopping.set()
        for asking in list(self._asking):
            asking.cancel()

    def start(self, name: str, request: Any, seconds: float) -> Any:
        """Starts a call, with a token; returns its future."""
        token = self._token if isinstance(self._token, str) else self._token()
        call = getattr(self._stub, name).future
        return call(request, metadata=[("authorization", f"Bearer {token}")], timeout=seconds)


class Job:
    """A job that a trainer has. As a context manager it renews the lease, and ends it whatever happens:

    an exception fails the attempt and goes on to the caller; leaving without a result does too; an interrupt gives the job
    back to the queue; Stopped ends the body, and no more.
    """

    def __init__(self, trainer: Trainer, lease: workers_pb2.Lease, *, stall_seconds: float) -> None:
        self.lease = lease
        self.id = lease.job_id
        self.hyperparameters = lease.hyperparameters
        self.gpu_config = lease.gpu_config
        self.dataset = lease.dataset
        self.total_steps = lease.total_steps
        self.total_epochs = lease.total_epochs
        self.attempt = lease.attempt
        # How it ended, once it did: `completed`, `failed`, `released`, or why it had to stop.
        self.outcome = ""
        self._trainer = trainer
        self._stall_seconds = stall_seconds
        self._changed = threading.Condition()
        self._report = self._request(workers_pb2.ReportProgressRequest)
        self._points: deque[workers_pb2.MetricPoint] = deque(maxlen=KEPT_POINTS)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._news = self._closing = False
        self._error: Exception | None = None
        self._touched = time.monotonic()
        # By our own clock, from before the call that renewed it: it never ends later here than it does there.
        self._alive_until = self._touched + lease.lease_ms / 1000
        self._renewer = threading.Thread(target=self._renew, name=f"renew-{self.id}", daemon=True)

    def __enter__(self) -> Job:
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stopped = isinstance(error, Stopped)
        try:
            if not self.outcome:
                if error is None:
                    self.fail("The trainer left the job without a result.", retryable=True)
                elif isinstance(error, Exception):
                    self.fail(f"{type(error).__name__}: {error}", retryable=True)
                else:
                    self.release()
        except (Stopped, TrainerError) as late:
            if error is not None:
                error.add_note(f"and the job could not be given up: {late}")
        finally:
            self._close()
        return stopped

    def report(
        self,
        step: int | None = None,
        *,
        of: int | None = None,
        epoch: float | None = None,
        stage: str = "",
        values: Mapping[str, float] | None = None,
        lines: list[str] | None = None,
        platform_id: str = "",
    ) -> None:
        """Says where the training is; returns at once. Raises Stopped, TrainerError.

        `step` is the optimizer step it is at, of `of` steps where the training has another number of them than the job.
        `epoch` is the epochs done, with a fraction. `values` are what was measured at this step, by name; what is not finite
        becomes a log line.
        """
        with self._changed:
            self._raise_if_over()
            if step is not None:
                self._report.step = min(step * self.total_steps // of if of else step, self.total_steps)
            if epoch is not None:
                self._report.epoch = min(math.floor(epoch) + 1, self.total_epochs)
            self._report.stage = stage or self._report.stage
            self._report.external_job_id = platform_id or self._report.external_job_id
            lines = [*(lines or ()), *(f"{name} is {v}" for name, v in (values or {}).items() if not math.isfinite(v))]
            self._lines.extend(line[:MAX_LINE] for line in lines)
            finite = {name: value for name, value in (values or {}).items() if math.isfinite(value)}
            if finite:
                self._points.append(workers_pb2.MetricPoint(step=self._report.step, epoch=epoch or 0.0, values=finite))
            self._touched, self._news = time.monotonic(), True
            self._changed.notify()

    def complete(
        self,
        artifact_uri: str,
        *,
        artifact_id: str = "",
        values: Mapping[str, float] | None = None,
        peak_memory_gib: float | None = None,
    ) -> None:
        """Ends the job with its result, after what was reported; `peak_memory_gib` is reserved, of the fullest GPU.

        Raises Stopped where it does not count, TrainerError.
        """
        if not self._report.epoch and not self._report.step:
            self.report(epoch=0.0)
        self._flush()
        request = self._request(
            workers_pb2.CompleteJobRequest,
            artifact_uri=artifact_uri,
            artifact_id=artifact_id,
            peak_memory_gib=peak_memory_gib,
        )
        if values:
            epoch = float(self.total_epochs)
            request.final_metrics.CopyFrom(workers_pb2.MetricPoint(step=self.total_steps, epoch=epoch, values=values))
        self._end("CompleteJob", request, "completed")

    def fail(self, error_message: str, *, retryable: bool) -> None:
        """Ends the attempt with words for the job's owner; `retryable`: another may go better. Raises Stopped, TrainerError."""
        self._flush()
        words = error_message.replace("\0", "")[:MAX_ERROR] or "unknown error"
        request = self._request(workers_pb2.FailJobRequest, error_message=words, retryable=retryable)
        self._end("FailJob", request, "failed")

    def release(self) -> None:
        """Gives the job back to the queue, without losing an attempt. Raises Stopped, TrainerError."""
        self._end("ReleaseJob", self._request(workers_pb2.ReleaseJobRequest), "released")

    def _request(self, kind: Callable[..., Any], **fields: Any) -> Any:
        return kind(job_id=self.lease.job_id, lease_token=self.lease.lease_token, **fields)

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error
        if self.outcome:
            raise Stopped(self.outcome)

    def _end(self, name: str, request: Any, outcome: str) -> None:
        self._close()
        self._raise_if_over()
        self._send(name, request)
        self.outcome = outcome

    def _flush(self) -> None:
        """Sends what is left, so that the curve is whole before the result."""
        self._close()
        self._raise_if_over()
        while self._news:
            self._send_report()

    def _stopped(self, reason: str) -> Stopped:
        self.outcome = reason.lower()
        return Stopped(self.outcome)

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._renewer.is_alive():
            self._renewer.join()

    def _renew(self) -> None:
        """Sends reports while there are any, and one at least as often as the lease asks for."""
        try:
            while self._sleep():
                self._send_report()
        except (Stopped, TrainerError) as error:
            with self._changed:
                self._error = error

    def _sleep(self) -> bool:
        """Waits until it is time for a report; False once nothing needs to be renewed."""
        every = self.lease.renew_every_ms / 1000
        due = time.monotonic() + every
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=min(SEND_SECONDS, every / 2))
            self._changed.wait_for(lambda: self._closing or self._news, timeout=max(0.0, due - time.monotonic()))
            if self._closing:
                return False
            if time.monotonic() - self._touched > self._stall_seconds:
                raise self._stopped("LEASE_LOST")
            return True

    def _send_report(self) -> None:
        request = workers_pb2.ReportProgressRequest()
        with self._changed:
            request.CopyFrom(self._report)
            request.metrics.extend(self._points.popleft() for _ in range(min(MAX_POINTS, len(self._points))))
            request.log_lines.extend(self._lines.popleft() for _ in range(min(MAX_LINES, len(self._lines))))
            self._news = bool(self._points or self._lines)
        answer, asked = self._send("ReportProgress", request)
        if answer.stop:
            raise self._stopped(workers_pb2.StopReason.Name(answer.stop_reason).removeprefix("STOP_REASON_"))
        self._alive_until = asked + self.lease.lease_ms / 1000

    def _send(self, name: str, request: Any) -> tuple[Any, float]:
        """The answer to a call, and when it was asked; repeated while the lease lives. Raises Stopped, TrainerError."""
        pauses = _pauses()
        while True:
            asked = time.monotonic()
            try:
                # A lease that is over by our clock may still be alive by theirs: one try is always worth it.
                seconds = max(1.0, min(CALL_SECONDS, self._alive_until - asked))
                return self._trainer.start(name, request, seconds).result(), asked
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    raise self._stopped(_reason(error)) from error
                if error.code() not in PASSING:
                    raise TrainerError(_words(error)) from error
                pause = min(next(pauses), self.lease.renew_every_ms / 1000)
                if time.monotonic() + pause > self._alive_until:
                    raise self._stopped("LEASE_LOST") from error
            time.sleep(pause)


def _pauses() -> Iterator[float]:
    """Longer and longer, and never the same for two trainers."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _reason(error: Any) -> str:
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            break
    return str(info.reason)


def _words(error: Any) -> str:
    status, bad = rpc_status.from_call(error), error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        if detail.Unpack(bad):
            break
    fields = "; ".join(f"{each.field}: {each.description}" for each in bad.field_violations)
    return f"{error.code().name} {_reason(error)}: {error.details()}" + (f" ({fields})" if fields else "")
