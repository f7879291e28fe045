"""The client of trainers: leases jobs, renews leases, sends reports and uploads results.

With Hugging Face's `Trainer`, where `train` is your own function:

    from pathlib import Path
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
            self.on_step_end(args, state, control, values=logs)

    with Trainer("jobs.internal:50052", Path("worker.token"), name="gpu-7", gpus={"H100": 8}) as trainer:
        for job in trainer.jobs():
            with job:
                dataset = job.download_dataset(Path("dataset.jsonl"))
                folder = train(job.lease.plan, job.hyperparameters, dataset, callbacks=[Reports(job)])
                job.complete(files=job.upload(folder))

A trainer has a lease of each of its jobs. A thread renews the lease, so a step may take any time. Reports are buffered, sent
together, and repeated until the lease is over. After a job was cancelled, reached a limit or was leased to another trainer, the
next report and `complete` raise Stopped. To return a job to the queue, raise Interrupted in its body.

The token is a file that is read again for each call, text, or a function that returns one; use a file or a function
where trainings outlast a token.
"""

from trainer.client.errors import Interrupted, ResultTooLarge, Stopped, TrainerError
from trainer.client.job import Job
from trainer.client.tokens import Token
from trainer.client.trainer import Trainer

__all__ = ["Interrupted", "Job", "ResultTooLarge", "Stopped", "Token", "Trainer", "TrainerError"]
