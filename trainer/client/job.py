"""A leased job: its reports, files and result."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pipeline.common.v1 import files_pb2
from pipeline.workers.v1 import workers_pb2

from trainer.client.connection import Connection
from trainer.client.errors import InvalidRequest, ResultTooLarge, Stopped, TrainerError
from trainer.client.files import download_dataset, upload_file
from trainer.client.lease import LeaseCalls
from trainer.client.reports import ReportBuffer, clean_text

# Reports within this time are sent in one request.
SEND_SECONDS = 0.5
MAX_ERROR = 2_000

Transferred = TypeVar("Transferred")


class Job:
    """A job that this trainer has leased. As a context manager it renews the lease while the body runs.

    A body that ends without `complete`, `fail` or `release` fails the attempt, and so does an exception, which is raised again.
    Interrupted, and others that do not derive from Exception, return the job to the queue. Stopped is suppressed.
    """

    def __init__(
        self, connection: Connection, lease: workers_pb2.Lease, *, stall_seconds: float, transfer_seconds: float
    ) -> None:
        self.lease = lease
        self.id = lease.job_id
        self.hyperparameters = lease.hyperparameters
        self.gpu_config = lease.gpu_config
        self.dataset = lease.dataset
        self.total_steps = lease.total_steps
        self.total_epochs = lease.total_epochs
        self.attempt = lease.attempt
        # Cost up to the newest response, US dollars.
        self.current_cost = 0.0
        self._connection = connection
        self._stall_seconds = stall_seconds
        self._calls = LeaseCalls(connection, lease, transfer_seconds=transfer_seconds)
        self._changed = threading.Condition()
        self._reports = ReportBuffer(
            lease.job_id, lease.lease_token, total_steps=lease.total_steps, total_epochs=lease.total_epochs
        )
        self._closing = False
        self._error: TrainerError | None = None
        self._reported_at = time.monotonic()
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
                    self.fail(f"{type(error).__name__}: {error}", retryable=not isinstance(error, ResultTooLarge))
                else:
                    self.release()
        except (Stopped, TrainerError) as report_error:
            if error is not None:
                error.add_note(f"and the end of the job could not be reported: {report_error}")
        finally:
            self._stop_renewing()
        return stopped

    def report(
        self,
        step: object = None,
        *,
        of: object = None,
        epoch: object = None,
        stage: str = "",
        values: Mapping[Any, Any] | None = None,
        lines: Iterable[object] | None = None,
        platform_id: str = "",
        checkpoint: tuple[object, object] | None = None,
    ) -> None:
        """Reports the progress of the training; returns at once. Raises Stopped, TrainerError.

        `step` is the optimizer step. `of`: the training's number of steps, if it is not the job's. `epoch` is the number of
        completed epochs, with a fraction. `values` are metrics of this step by name. `checkpoint`: URI and step of the newest
        checkpoint. Values that the contract does not allow (names, NaN, long texts) are renamed, cut or logged.
        """
        with self._changed:
            self.check()
            self._reports.add(
                step, of=of, epoch=epoch, stage=stage, values=values, lines=lines, platform_id=platform_id,
                checkpoint=checkpoint,
            )  # fmt: skip
            self._reported_at = time.monotonic()
            self._changed.notify()

    @property
    def outcome(self) -> str:
        """`completed`, `failed`, `released`, or the reason of Stopped. Empty while the job runs."""
        return self._calls.outcome

    @property
    def step(self) -> int:
        """The last reported step, of `total_steps`."""
        return self._reports.step

    def check(self) -> None:
        """Raises Stopped once the lease is over, TrainerError once reports are refused for good."""
        if self._error is not None:
            raise self._error
        self._calls.check()

    def download_dataset(self, file: Path, *, validation: bool = False) -> Path:
        """Downloads the dataset to a file of JSON lines. Resumes after a broken connection.

        `validation`: the lease's validation dataset. Raises Stopped, TrainerError.
        """
        return self._transfer(partial(download_dataset, self._connection, self.lease, file, validation=validation))

    def upload(self, folder: Path) -> list[files_pb2.StoredFile]:
        """Uploads the files of a folder as the job's result; returns what `complete` takes. Raises Stopped, TrainerError."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return [self._transfer(partial(upload_file, self._connection, self.lease, path)) for path in files]

    def complete(
        self,
        artifact_uri: str = "",
        *,
        artifact_id: str = "",
        values: Mapping[Any, Any] | None = None,
        files: Iterable[files_pb2.StoredFile] = (),
        result_step: int = 0,
        measurements: workers_pb2.Measurements | None = None,
    ) -> None:
        """Completes the job with its result, after sending all reports. Raises Stopped, TrainerError.

        The result is `files` that were uploaded, or a URI elsewhere. `result_step`: the step of its weights, if that is not
        the last step.
        """
        if not self._reports.has_started:
            self.report(epoch=0.0)
        self._flush()
        request = self._calls.request(
            workers_pb2.CompleteJobRequest,
            artifact_uri=artifact_uri,
            artifact_id=artifact_id,
            files=files,
            result_step=max(0, min(result_step, self.total_steps)),
            measurements=measurements,
            final_metrics=self._reports.final_point(values or {}),
        )
        self._calls.end("CompleteJob", request, "completed")

    def fail(
        self,
        error_message: str,
        *,
        retryable: bool,
        reason: workers_pb2.FailureReason.ValueType = workers_pb2.FAILURE_REASON_UNSPECIFIED,
        measurements: workers_pb2.Measurements | None = None,
    ) -> None:
        """Ends the attempt with an error message for the job's owner. Raises Stopped, TrainerError.

        `retryable`: another attempt may succeed.
        """
        self._flush()
        request = self._calls.request(
            workers_pb2.FailJobRequest,
            error_message=clean_text(error_message, MAX_ERROR) or "unknown error",
            retryable=retryable,
            reason=reason,
            measurements=measurements,
        )
        self._calls.end("FailJob", request, "failed")

    def release(self) -> None:
        """Returns the job to the queue without losing an attempt. Raises Stopped, TrainerError."""
        self._flush()
        self._calls.end("ReleaseJob", self._calls.request(workers_pb2.ReleaseJobRequest), "released")

    def leave(self) -> None:
        """Stops renewing the lease and does not end it: the dispatcher ends it with the reason. Without one it expires."""
        self._stop_renewing()
        self._calls.outcome = self.outcome or "left to its dispatcher"

    def _flush(self) -> None:
        """Sends all buffered reports, so that the metrics are complete before the result."""
        self._stop_renewing()
        self._calls.check()
        while self._reports.has_unsent:
            self._send_report()

    def _stop_renewing(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._renewer.is_alive():
            self._renewer.join()

    def _renew(self) -> None:
        """Sends reports as they are added, and renews the lease at least every `renew_every_ms`."""
        while True:
            try:
                if not self._wait_for_report():
                    return
                self._send_report()
            except Stopped:
                return
            except TrainerError as error:
                with self._changed:
                    self._error = error
                return
            except Exception as error:  # the caller's own function for tokens may raise anything
                with self._changed:
                    self._reports.add(lines=[f"a report could not be sent: {type(error).__name__}: {error}"])

    def _wait_for_report(self) -> bool:
        """Waits until a report is due; returns False once the lease is no longer renewed."""
        interval = self.lease.renew_every_ms / 1000
        due = time.monotonic() + interval
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=min(SEND_SECONDS, interval / 2))
            self._changed.wait_for(
                lambda: self._closing or self._reports.has_unsent, timeout=max(0.0, due - time.monotonic())
            )
            if self._closing:
                return False
            if time.monotonic() - self._reported_at > self._stall_seconds:
                raise self._calls.stopped("LEASE_LOST")
            return True

    def _send_report(self) -> None:
        with self._changed:
            request = self._reports.take()
        try:
            response = self._calls.renew(request)
        except InvalidRequest as error:
            # Renews the lease without the refused report.
            with self._changed:
                self._reports.add(lines=[f"a report was refused: {error}"])
            response = self._calls.renew(self._calls.request(workers_pb2.ReportProgressRequest))
        self.current_cost = response.current_cost

    def _transfer(self, transfer: Callable[[], Transferred]) -> Transferred:
        """Repeats a transfer until it succeeds. Raises Stopped, TrainerError."""
        with self._changed:
            self._reported_at = math.inf  # a transfer has its own deadline and does not count as a stall
        try:
            return self._calls.transfer(transfer, self.check)
        finally:
            with self._changed:
                self._reported_at = time.monotonic()
