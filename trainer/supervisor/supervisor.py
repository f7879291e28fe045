"""Leases jobs and trains each in its own process, so that an out-of-memory error, a crash or a hang ends only that process."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import protovalidate
from pipeline.workers.v1 import workers_pb2

from trainer.client import Interrupted, Job, ResultTooLarge, Stopped, Trainer, TrainerError
from trainer.console import ShowProgress
from trainer.settings import LEASE_VARIABLE, TrainerSettings
from trainer.supervisor.child import Child, describe_exit
from trainer.supervisor.messages import Failure, ProcessId, Report, Result, Saved
from trainer.supervisor.tasks import UnsupportedJob, task_of
from trainer.supervisor.work_folder import work_folder
from trainer.task import Task

# Variables that the training process does not inherit. The last one is Ray's: it contains the variables of Ray's job.
SECRET_VARIABLES = ("PIPELINE_TRAINER_TOKEN", LEASE_VARIABLE, "RAY_JOB_CONFIG_JSON_ENV_VAR")
# Time that a training process has to exit after its result or error, seconds. torchrun would wait minutes for a lost node.
END_SECONDS = 10.0


class TrainingFailed(Exception):
    """A training that ended without a result. `failure` is reported to the job's owner."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Supervisor:
    """Trains one job after the other until it is stopped. `nodes`: machines of a training, each with a supervisor."""

    def __init__(self, trainer: Trainer, settings: TrainerSettings, show: ShowProgress, *, nodes: int = 1) -> None:
        self._trainer, self._settings, self._show = trainer, settings, show
        self._nodes = nodes
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Leases no more jobs. The current one saves a checkpoint and returns to the queue."""
        self._stopping.set()
        self._trainer.stop()

    def run(self, *, once: bool = False) -> None:
        """Trains until `stop`; with `once`, one job. Raises TrainerError."""
        while not self._stopping.is_set():
            for job in self._trainer.lease():
                self.run_one(job)
                if once:
                    return

    def run_one(self, job: Job) -> None:
        """Trains a leased job, until `stop`. Raises TrainerError."""
        self._show(job, 0, "")
        try:
            with job:
                self._train(job)
        except Interrupted:
            pass  # `with job` has returned it to the queue
        finally:
            self._show(job, 0, job.outcome)

    def assist(self, job: Job) -> None:
        """Trains a job as a node that does not report: the first node does. Raises TrainerError if the training fails."""
        try:
            with work_folder(self._settings.trainer_work_dir.absolute()) as folder:
                child = self._start(job, folder)
                try:
                    self._await(child)
                finally:
                    child.close()
        except UnsupportedJob as error:
            raise TrainerError(str(error)) from error
        except Stopped:
            pass  # the lease is over

    def _await(self, child: Child) -> None:
        """Forwards SIGTERM to the training process and waits for its end. Raises TrainerError if it fails."""
        for message in child.messages():
            if isinstance(message, ProcessId):
                child.pid = message.pid
            if self._stopping.is_set():
                child.terminate()
            if child.is_overdue(self._settings.trainer_stop_seconds):
                return
        if child.exit_code and not self._stopping.is_set():
            output = "\n".join(child.last_lines)
            raise TrainerError(f"The training process {describe_exit(child.exit_code)}.\n{output}".strip())

    def _train(self, job: Job) -> None:
        """Trains a job to its result, or fails it with the reason. Raises Stopped, TrainerError, Interrupted."""
        work_dir = self._settings.trainer_work_dir.absolute()
        try:
            with work_folder(work_dir) as folder:
                self._run(job, folder)
        except UnsupportedJob as error:
            _fail(job, Failure(str(error), retryable=False, reason="NOT_SUPPORTED"))
        except TrainingFailed as error:
            _fail(job, error.failure)
        except TrainerError as error:
            # The trainer ends at its next call for a lease if the service refuses every call.
            _fail(job, Failure(str(error), retryable=not isinstance(error, ResultTooLarge)))
        except FileNotFoundError as error:
            _fail(job, Failure(f"The training's result is missing: {error.filename}."))
        except OSError as error:
            # Every other job would fail in the same way.
            _fail(job, Failure(f"The trainer cannot write its files: {error.strerror or error}."))
            raise TrainerError(f"files cannot be written to {work_dir}: {error}") from error

    def _run(self, job: Job, folder: Path) -> None:
        job.report(stage="loading dataset")
        child = self._start(job, folder)
        try:
            job.report(stage="starting")
            result = self._follow(job, child)
        finally:
            child.close()
        job.report(stage="saving result")
        result_folder = Path(result.folder)
        _add_cost(result_folder / "README.md", job.current_cost)
        job.complete(
            files=job.upload(result_folder),
            values=result.values,
            result_step=_job_step(result, job.total_steps),
            measurements=_measurements(result.measurements),
        )

    def _start(self, job: Job, folder: Path) -> Child:
        """Downloads the datasets and starts the training process. Raises Stopped, UnsupportedJob, TrainerError."""
        dataset = job.download_dataset(folder / "dataset.jsonl")
        validation = None
        if job.lease.HasField("validation_dataset"):
            validation = job.download_dataset(folder / "validation.jsonl", validation=True)
        task = task_of(job.lease, self._settings, folder, dataset, validation)
        task_file = folder / "task.json"
        task.write(task_file)
        return Child(self._command(task), task_file, self._environment(task))

    def _follow(self, job: Job, child: Child) -> Result:
        """Forwards messages as reports until the process ends. Raises Stopped, TrainingFailed, Interrupted."""
        outcome: Result | Failure | Saved | None = None
        last_message_at = time.monotonic()
        for message in child.messages():
            now = time.monotonic()
            match message:
                case Report(fields):
                    job.report(**fields)
                    self._show(job, job.step, "")
                case str(line):
                    job.report(lines=[line])
                case ProcessId(pid):
                    child.pid = pid
                case Result() | Failure() | Saved():
                    outcome = message
                case None:
                    job.check()
            if message is not None:
                last_message_at = now
            if self._stopping.is_set() and outcome is None:
                child.terminate()
            if child.is_overdue(self._settings.trainer_stop_seconds):
                raise self._interrupted(job)
            if outcome is not None and now - last_message_at > END_SECONDS:
                break
            if now - last_message_at > self._settings.trainer_stall_seconds:
                raise TrainingFailed(
                    Failure(f"The training process hangs: it sent nothing for {now - last_message_at:.0f} s.")
                )
        return self._outcome(job, child, outcome)

    def _outcome(self, job: Job, child: Child, outcome: Result | Failure | Saved | None) -> Result:
        code = child.exit_code or 0
        if isinstance(outcome, Result) and outcome.is_complete:
            return outcome
        if isinstance(outcome, Failure):
            raise TrainingFailed(outcome)
        if isinstance(outcome, Saved):
            raise Interrupted
        if self._stopping.is_set():
            raise self._interrupted(job)
        if isinstance(outcome, Result):
            raise TrainingFailed(Failure(f"The training ended at step {outcome.step} of {outcome.max_steps}."))
        output = "\n".join(child.last_lines)
        raise TrainingFailed(Failure(f"The training process {describe_exit(code)} without a result.\n{output}".strip()))

    def _interrupted(self, job: Job) -> Interrupted:
        """Returns the exception for a training that was stopped and has not saved a checkpoint.

        With several nodes, another one may have failed: then the dispatcher ends the lease with the reason.
        """
        if self._nodes > 1:
            job.leave()
        return Interrupted()

    def _command(self, task: Task) -> Sequence[str]:
        if self._settings.trainer_command:
            return shlex.split(self._settings.trainer_command)
        if task.gpu_count == 1:
            return [sys.executable, "-m", "trainer.train"]
        # With several nodes, torchrun reads their number and the first one's address from `PET_…`.
        rendezvous = ["--standalone"] if self._nodes == 1 else []
        processes = str(task.gpu_count // self._nodes)
        torchrun = ["-m", "torch.distributed.run", *rendezvous, "--nproc_per_node", processes]
        return [sys.executable, *torchrun, "-m", "trainer.train"]

    def _environment(self, task: Task) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SECRET_VARIABLES)}
        offline = {} if task.may_download else {"HF_HUB_OFFLINE": "1"}
        threads = str(max(1, (os.cpu_count() or 1) * self._nodes // task.gpu_count))
        return {
            "OMP_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **inherited,
            **offline,
        }


def _add_cost(card: Path, cost: float) -> None:
    """Adds the cost of the training to the model card."""
    if card.exists():
        with card.open("a", encoding="utf-8") as file:
            file.write(f"\nThe training cost {cost:.2f} US dollars up to its upload.\n")


def _fail(job: Job, failure: Failure) -> None:
    names = workers_pb2.FailureReason.keys()
    name = f"FAILURE_REASON_{failure.reason}"
    job.fail(
        failure.message,
        retryable=failure.retryable,
        reason=workers_pb2.FailureReason.Value(name if name in names else "FAILURE_REASON_UNSPECIFIED"),
        measurements=_measurements(failure.measurements),
    )


def _measurements(fields: dict[str, Any]) -> workers_pb2.Measurements | None:
    """Returns the measurements of a training process. Drops invalid ones, so that they do not cost a result."""
    message = workers_pb2.Measurements()
    for name, value in fields.items():
        try:
            measured = workers_pb2.Measurements(**{name: value})
            protovalidate.validate(measured)
        except (TypeError, ValueError, protovalidate.ValidationError):
            continue
        message.MergeFrom(measured)
    return message if message.ListFields() else None


def _job_step(result: Result, total_steps: int) -> int:
    """Returns the step of the result in the job's count of steps; 0 for the last step."""
    if result.result_step <= 0 or result.max_steps <= 0:
        return 0
    return min(total_steps, result.result_step * total_steps // result.max_steps)
