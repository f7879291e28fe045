"""A trainer of the campaign, as a process that may be killed: works on jobs in bad ways and writes down each call."""

from __future__ import annotations

import argparse
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from tests.campaign.history import History
from trainer.client import Job, Trainer
from trainer.client.errors import reason_of

OPS = {
    "LeaseJobs": "lease",
    "ReportProgress": "report",
    "CompleteJob": "complete",
    "FailJob": "fail",
    "ReleaseJob": "release",
}
GPUS = {"A100-80GB": 64}


class Recorded:
    """The future of a call, which writes down how it ended."""

    def __init__(self, call: Any, op: str, request: Any, history: History, epochs: dict[str, int]) -> None:
        self._call, self._op, self._request, self._history, self._epochs = call, op, request, history, epochs
        self._began = time.monotonic()

    def cancel(self) -> None:
        self._call.cancel()

    def result(self) -> Any:
        about: dict[str, Any] = {}
        if self._op != "lease":
            token = self._request.lease_token
            about = {"job": self._request.job_id, "token": token, "epoch": self._epochs[token]}
        if self._op == "complete":
            about["artifact"] = self._request.artifact_uri
        try:
            answer = self._call.result()
        except grpc.FutureCancelledError:
            raise
        except grpc.RpcError as error:
            refused = error.code() == grpc.StatusCode.FAILED_PRECONDITION
            outcome = f"refused:{reason_of(error)}" if refused else "unknown"
            self._history.write(self._op, self._began, outcome, code=error.code().name, leases=[], **about)
            raise
        if self._op == "lease":
            leases = [{"job": it.job_id, "token": it.lease_token, "epoch": it.lease_epoch} for it in answer.leases]
            self._epochs.update({each["token"]: each["epoch"] for each in leases})
            if leases:
                self._history.write("lease", self._began, "ok", leases=leases)
        else:
            stop = self._op == "report" and answer.stop
            self._history.write(self._op, self._began, f"stop:{answer.stop_reason}" if stop else "ok", **about)
        return answer


class RecordedTrainer(Trainer):
    """A trainer whose calls are all written down."""

    def __init__(self, history: History, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._history = history
        self._epochs: dict[str, int] = {}

    def start(self, name: str, request: Any, seconds: float) -> Any:
        return Recorded(super().start(name, request, seconds), OPS[name], request, self._history, self._epochs)


class SimulatedFault(Exception):
    """What goes wrong with a training."""


def work(job: Job, chance: random.Random) -> None:
    """Trains for a moment; one job in six meets an error, falls silent past its lease, or is given back."""
    fate = chance.random()
    for share in (0.2, 0.6, 1.0):
        job.report(max(1, int(job.total_steps * share)), epoch=share * 3, values={"loss": 1 / share})
        time.sleep(chance.uniform(0.02, 0.15))
    if fate < 0.06:
        raise SimulatedFault("out of memory")
    if fate < 0.10:
        job.release()
        return
    if fate < 0.16:
        # Longer than the lease and than what renews it by itself: the job must be somebody else's then.
        time.sleep(2.5 * job.lease.lease_ms / 1000)
    job.complete(f"campaign://{job.id}/{job.lease.lease_epoch}")


def main() -> None:
    """Works until SIGTERM."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--address", required=True)
    arguments.add_argument("--token", required=True)
    arguments.add_argument("--history", type=Path, required=True)
    arguments.add_argument("--seed", required=True)
    arguments.add_argument("--threads", type=int, required=True)
    chosen = arguments.parse_args()
    stall = 0.3
    with History(chosen.history) as history:
        trainers = [
            RecordedTrainer(history, chosen.address, chosen.token, gpus=GPUS, name="campaign", stall_seconds=stall)
            for _ in range(chosen.threads)
        ]

        def stop(*_: object) -> None:
            for trainer in trainers:
                trainer.stop()

        def run(trainer: Trainer, chance: random.Random) -> None:
            with trainer:
                for job in trainer.jobs():
                    try:
                        with job:
                            work(job, chance)
                    except SimulatedFault:
                        continue

        signal.signal(signal.SIGTERM, stop)
        threads = [
            threading.Thread(target=run, args=[trainer, random.Random(f"{chosen.seed}/{number}")])
            for number, trainer in enumerate(trainers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
