"""`pipeline trainer --simulate`: leases jobs and reports made-up metrics, without a GPU.

It uses the same client as every trainer. Options make it crash, hang, slow down or report wrong steps, to show what happens to
such jobs. Its jobs are marked as simulated.
"""

from __future__ import annotations

import math
import os
import random
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.client import Interrupted, Job, Trainer
from trainer.console import ShowProgress

NAME = "simulated"
# Duration of a job without the option `speed`.
DEFAULT_SECONDS = 60.0
# Assumed duration of a job without an estimate.
UNESTIMATED_SECONDS = 3600.0
# Reports of a job.
REPORTS = 300
# Standard deviation of a step's throughput, relative to the estimated one.
THROUGHPUT_SD = 0.04
# Shares of a job's time for loading the model and for saving the result.
LOADING_SHARE, SAVING_SHARE = 0.06, 0.01
# A job that hangs goes to another trainer after this long without a report.
STALL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Options of the command line. `crash`, `hang`, `fail` and `lie` are shares of jobs, 0 to 1; `slow` is a factor."""

    speed: float | None = None
    jobs: int = 4
    crash: float = 0.0
    hang: float = 0.0
    fail: float = 0.0
    lie: float = 0.0
    slow: float = 1.0
    seed: int = 0


class SimulatedError(Exception):
    """An error of a simulated training."""


class Curves:
    """Metrics of each step, from the job's configuration and its estimate. Deterministic: a step always has the same values."""

    def __init__(self, job: Job) -> None:
        chosen = job.hyperparameters
        self.seconds = job.lease.estimated_seconds or UNESTIMATED_SECONDS
        self._throughput = job.lease.estimated_tokens_per_second
        self._job, self._peak, self._warmup = job, chosen.learning_rate, max(1, job.total_steps // 33)
        # A higher rank lowers the final loss, a higher rate gets there sooner, a larger batch has less noise.
        self._floor = 0.9 + 0.5 / math.log2(chosen.rank + 2)
        self._pace = max(2.0, job.total_steps / 50) * math.sqrt(5e-5 / chosen.learning_rate)
        self._noise = 0.12 / math.sqrt(chosen.batch_size)

    def metrics(self, step: int) -> dict[str, float]:
        """Returns a loss that falls as a power of the step, a rate with warm-up and cosine decay, and a noisy throughput."""
        noise = random.Random(f"{self._job.id}/{step}")  # noqa: S311 - no secret
        return {
            "loss": self._loss(step) * (1 + noise.gauss(0, self._noise)),
            "learning_rate": self._rate(step),
            "grad_norm": 0.3 * self._loss(step) * math.exp(noise.gauss(0, 0.2)),
            "tokens_per_second": self._throughput * (1 - abs(noise.gauss(0, THROUGHPUT_SD))),
        }

    def relative_duration(self, values: Mapping[str, float]) -> float:
        """Returns the duration of a step relative to the mean step, from its throughput."""
        mean = self._throughput * (1 - THROUGHPUT_SD * math.sqrt(2 / math.pi))
        return mean / values["tokens_per_second"] if mean else 1.0

    def validation(self, epoch: int) -> float:
        """Returns the validation loss after an epoch. It rises after the third, as if the model overfitted."""
        step = self._job.total_steps * epoch // self._job.total_epochs
        return self._loss(step) + 0.06 + 0.02 * max(0, epoch - 3)

    def _loss(self, step: int) -> float:
        return float(self._floor + 1.4 * (1 + step / self._pace) ** -0.6)

    def _rate(self, step: int) -> float:
        if step < self._warmup:
            return self._peak * step / self._warmup
        done = (step - self._warmup) / max(1, self._job.total_steps - self._warmup)
        return self._peak * (1 + math.cos(math.pi * done)) / 2


class Simulation:
    """Runs jobs, each in a thread, until it is stopped."""

    def __init__(self, trainer: Trainer, options: SimulationOptions, show: ShowProgress) -> None:
        self._trainer, self._options, self._show = trainer, options, show
        self._stopping = threading.Event()
        self._slots = threading.Semaphore(options.jobs)

    def stop(self) -> None:
        """Leases no more jobs, and returns the leased ones to the queue."""
        self._stopping.set()
        self._trainer.stop()

    def run(self) -> None:
        """Runs until `stop`. Raises TrainerError."""
        threads: set[threading.Thread] = set()
        try:
            while not self._stopping.is_set():
                if not self._slots.acquire(timeout=1):
                    continue
                leased = self._trainer.lease()
                if not leased:
                    self._slots.release()
                threads = {each for each in threads if each.is_alive()}
                for job in leased:
                    thread = threading.Thread(target=self._work, args=[job], name=f"train-{job.id}")
                    threads.add(thread)
                    thread.start()
        finally:
            self.stop()
            for thread in threads:
                thread.join()

    def _work(self, job: Job) -> None:
        self._show(job, 0, "")
        error_text = ""
        try:
            with job:
                self._train(job, Curves(job))
        except Interrupted:
            pass
        except Exception as error:
            error_text = f": {error}"
        finally:
            self._slots.release()
            self._show(job, 0, (job.outcome or "lost") + error_text)

    def _train(self, job: Job, curves: Curves) -> None:
        options = self._options
        rng = random.Random(f"{options.seed}/{job.id}/{job.attempt}")  # noqa: S311 - no secret
        seconds = options.slow * (DEFAULT_SECONDS if options.speed is None else curves.seconds / options.speed)
        # Faults by the number of the report after which they happen.
        faults = {
            int(REPORTS * rng.uniform(0.1, 0.9)): fault
            for fault, share in ((_crash, options.crash), (self._hang, options.hang), (_fail, options.fail))
            if rng.random() < share
        }
        reports_random_steps = rng.random() < options.lie
        notice = f"{NAME}: nothing is trained; the curves of {job.gpu_config.count} {job.gpu_config.type} are made up"
        job.report(stage=f"loading model ({NAME})", platform_id=f"{NAME}-{job.lease.lease_epoch}", lines=[notice])
        self._pause(seconds * LOADING_SHARE)
        epoch = 0
        for number in range(1, REPORTS + 1):
            step = max(1, job.total_steps * number // REPORTS)
            values, lines = curves.metrics(step), []
            if step * job.total_epochs // job.total_steps > epoch:
                epoch += 1
                values["eval_loss"] = curves.validation(epoch)
                lines = [f"{NAME}: epoch {epoch} of {job.total_epochs}, eval_loss {values['eval_loss']:.4f}"]
            reported = rng.randint(1, job.total_steps) if reports_random_steps else step
            epochs_done = reported * job.total_epochs / job.total_steps
            job.report(reported, epoch=epochs_done, stage=f"training ({NAME})", values=values, lines=lines)
            self._show(job, reported, "")
            if number in faults:
                faults[number](job)
            # Matches the reported throughput.
            self._pause(seconds * (1 - LOADING_SHARE - SAVING_SHARE) / REPORTS * curves.relative_duration(values))
        job.report(stage=f"saving adapter ({NAME})")
        self._pause(seconds * SAVING_SHARE)
        final = curves.metrics(job.total_steps) | {"eval_loss": curves.validation(job.total_epochs)}
        job.complete(f"{NAME}://adapters/{job.id}", values=final)

    def _hang(self, job: Job) -> None:
        """Reports nothing until the lease is lost."""
        self._pause(STALL_SECONDS + 2 * job.lease.lease_ms / 1000)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Interrupted


def _crash(_: Job) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(_: Job) -> None:
    raise SimulatedError(f"{NAME}: CUDA out of memory")
