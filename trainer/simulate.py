"""`pipeline trainer --simulate`: takes jobs and reports plausible curves, without any GPU.

It uses the same client as every trainer. It is for a first look, and shows what happens to jobs whose trainer crashes,
hangs, slows down or reports wrong steps. Its jobs are marked as simulated.
"""

from __future__ import annotations

import math
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainer.client import Job, Trainer

NAME = "simulated"
# Without a speed, a job takes this long whatever its size.
MINUTE = 60.0
# What a job without an estimate is taken to last.
UNESTIMATED_SECONDS = 3600.0
POINTS = 300
# Standard deviation of a step's throughput, as a share of it.
WAVERING = 0.04
# Shares of a job's time before and after the training itself.
LOADING, SAVING = 0.06, 0.01
# A job that hangs goes to another trainer after this long without a report.
STALL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Habits:
    """How it behaves. Shares, 0 to 1, are of jobs; `slow` is a factor. `speed` None: a job takes a minute."""

    speed: float | None = None
    jobs: int = 4
    crash: float = 0.0
    hang: float = 0.0
    fail: float = 0.0
    lie: float = 0.0
    slow: float = 1.0
    seed: int = 0


class Interrupted(BaseException):
    """The simulation stops: its jobs return to the queue."""


class SimulatedError(Exception):
    """An error of a simulated training."""


# Called with a job, its steps done, and how it ended once it did.
Show = Callable[[Job, int, str], None]


class Curves:
    """What is measured at each step, from the job's configuration and its estimate. Pure: the same for the same step."""

    def __init__(self, job: Job) -> None:
        chosen = job.hyperparameters
        self.seconds = job.lease.estimated_seconds or UNESTIMATED_SECONDS
        self._throughput = job.lease.estimated_tokens_per_second
        self._job, self._peak, self._warmup = job, chosen.learning_rate, max(1, job.total_steps // 33)
        # A higher rank fits more, a higher rate gets there sooner, a larger batch is less noisy.
        self._floor = 0.9 + 0.5 / math.log2(chosen.rank + 2)
        self._pace = max(2.0, job.total_steps / 50) * math.sqrt(5e-5 / chosen.learning_rate)
        self._noise = 0.12 / math.sqrt(chosen.batch_size)

    def at(self, step: int) -> dict[str, float]:
        """Loss that falls as a power of the step, warm-up and cosine decay of the rate, throughput that wavers."""
        noise = random.Random(f"{self._job.id}/{step}")  # noqa: S311 - no secret
        return {
            "loss": self._loss(step) * (1 + noise.gauss(0, self._noise)),
            "learning_rate": self._rate(step),
            "grad_norm": 0.3 * self._loss(step) * math.exp(noise.gauss(0, 0.2)),
            "tokens_per_second": self._throughput * (1 - abs(noise.gauss(0, WAVERING))),
        }

    def slowness(self, values: Mapping[str, float]) -> float:
        """How much longer than the mean step one takes, by its throughput."""
        mean = self._throughput * (1 - WAVERING * math.sqrt(2 / math.pi))
        return mean / values["tokens_per_second"] if mean else 1.0

    def validation(self, epoch: int) -> float:
        """Loss on data held back, after an epoch: past the third it rises, as it does where training goes on too long."""
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

    def __init__(self, trainer: Trainer, habits: Habits, show: Show) -> None:
        self._trainer, self._habits, self._show = trainer, habits, show
        self._stopping = threading.Event()
        self._free = threading.Semaphore(habits.jobs)

    def stop(self) -> None:
        """Takes no more jobs, and returns those that it has to the queue."""
        self._stopping.set()
        self._trainer.stop()

    def run(self) -> None:
        """Runs until `stop`. Raises TrainerError."""
        threads: set[threading.Thread] = set()
        try:
            while not self._stopping.is_set():
                if not self._free.acquire(timeout=1):
                    continue
                leased = self._trainer.lease()
                if not leased:
                    self._free.release()
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
            self._free.release()
            self._show(job, 0, (job.outcome or "lost") + error_text)

    def _train(self, job: Job, curves: Curves) -> None:
        habits = self._habits
        chance = random.Random(f"{habits.seed}/{job.id}/{job.attempt}")  # noqa: S311 - no secret
        seconds = habits.slow * (MINUTE if habits.speed is None else curves.seconds / habits.speed)
        # Points at which something goes wrong.
        faults = {
            int(POINTS * chance.uniform(0.1, 0.9)): fault
            for fault, share in ((_crash, habits.crash), (self._hang, habits.hang), (_fail, habits.fail))
            if chance.random() < share
        }
        lies = chance.random() < habits.lie
        notice = f"{NAME}: nothing is trained; the curves of {job.gpu_config.count} {job.gpu_config.type} are made up"
        job.report(stage=f"loading model ({NAME})", platform_id=f"{NAME}-{job.lease.lease_epoch}", lines=[notice])
        self._pause(seconds * LOADING)
        epoch = 0
        for point in range(1, POINTS + 1):
            step = max(1, job.total_steps * point // POINTS)
            values, lines = curves.at(step), []
            if step * job.total_epochs // job.total_steps > epoch:
                epoch += 1
                values["eval_loss"] = curves.validation(epoch)
                lines = [f"{NAME}: epoch {epoch} of {job.total_epochs}, eval_loss {values['eval_loss']:.4f}"]
            reported = chance.randint(1, job.total_steps) if lies else step
            epochs_done = reported * job.total_epochs / job.total_steps
            job.report(reported, epoch=epochs_done, stage=f"training ({NAME})", values=values, lines=lines)
            self._show(job, reported, "")
            faults.get(point, _nothing)(job)
            # As long as the reported throughput says, which wavers.
            self._pause(seconds * (1 - LOADING - SAVING) / POINTS * curves.slowness(values))
        job.report(stage=f"saving adapter ({NAME})")
        self._pause(seconds * SAVING)
        final = curves.at(job.total_steps) | {"eval_loss": curves.validation(job.total_epochs)}
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


def _nothing(_: Job) -> None:
    """Nothing goes wrong."""
