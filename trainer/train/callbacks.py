"""Callbacks of the training: reports, checkpoints, stopping, and the best state."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback

from trainer.train.checkpoints import Checkpoints
from trainer.train.measure import WARM_UP_STEPS, Meter
from trainer.train.pipe import Pipe

# Smallest time between two checkpoints, as a share of the whole training.
CHECKPOINT_SHARE = 0.02
# What we add to the Trainer's checkpoint: a file with our progress, and the folder of the best state.
PROGRESS, BEST = "progress.json", "best"
# Metrics of the Trainer's logs that are reported.
LOGGED = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy")


def any_process(flags: Sequence[bool]) -> list[bool]:
    """Returns, for each flag, whether any process has set it: all processes have to save and stop at the same step."""
    if not torch.distributed.is_initialized():
        return list(flags)
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    tensor = torch.tensor([float(flag) for flag in flags], device=device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return [bool(value) for value in tensor.tolist()]


def gather_files(folder: Path, *, is_sent: bool) -> None:
    """Copies the files of a folder from all nodes to the first process. `is_sent`: true in one process of each other node."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()} if is_sent else {}
    is_first = torch.distributed.get_rank() == 0
    parts: list[Any] | None = [None] * torch.distributed.get_world_size() if is_first else None
    torch.distributed.gather_object(files, parts)
    for part in parts or ():
        for name, data in part.items():
            (folder / name).write_bytes(data)


class Reports(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Sends steps, metrics and speed to the supervisor."""

    def __init__(self, pipe: Pipe, meter: Meter) -> None:
        self._pipe, self._meter = pipe, meter
        self._tokens = self._step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the meter, and reports the first step."""
        self._meter.start()
        self._step = state.global_step
        self._pipe.report(step=state.global_step, of=state.max_steps, epoch=state.epoch or 0.0, stage="training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Reports logged metrics, and the speed since the last log."""
        logs = logs or {}
        values = {name: logs[name] for name in LOGGED if name in logs}
        if "loss" in logs and state.global_step > self._step:
            tokens = int(logs.get("num_tokens", 0))
            speed = self._meter.step(tokens - self._tokens, counts=state.global_step > WARM_UP_STEPS)
            self._tokens, self._step = tokens, state.global_step
            values["tokens_per_second"] = speed
        if "eval_loss" in logs:
            values |= {name: value for name, value in logs.items() if name in ("eval_loss", "eval_mean_token_accuracy")}
            self._meter.add("eval", float(logs.get("eval_runtime", 0.0)))
        if values:
            self._pipe.report(step=state.global_step, of=state.max_steps, epoch=state.epoch, values=values)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the step."""
        self._pipe.report(step=state.global_step, of=state.max_steps, epoch=state.epoch, stage="training")


class BestState(TrainerCallback):  # type: ignore[misc] # as above
    """Keeps the state with the lowest validation loss, and ends a training that no longer improves."""

    def __init__(self, folder: Path, *, patience: int | None, pipe: Pipe) -> None:
        self.folder = folder / BEST
        self.loss, self.step, self.stopped_early = math.inf, 0, False
        self._patience, self._pipe = patience, pipe
        self._epochs_without_improvement = 0

    @property
    def progress(self) -> dict[str, Any]:
        """The fields of a checkpoint's progress."""
        return (
            {"best_loss": self.loss, "best_step": self.step, "worse": self._epochs_without_improvement}
            if self.step
            else {}
        )

    def restore(self, checkpoint: Path, progress: dict[str, Any]) -> None:
        """Restores the best state from a checkpoint."""
        if progress.get("best_step"):
            self.loss, self.step, self._epochs_without_improvement = (
                progress["best_loss"],
                progress["best_step"],
                progress["worse"],
            )
            shutil.copytree(checkpoint / BEST, self.folder, dirs_exist_ok=True)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], model: Any = None, **_: Any
    ) -> None:
        """Keeps the best state so far, and ends a training that no longer improves."""
        loss = metrics.get("eval_loss", math.inf)
        if loss < self.loss:
            self.loss, self.step, self._epochs_without_improvement = loss, state.global_step, 0
            if state.is_world_process_zero:
                model.save_pretrained(self.folder)
            return
        self._epochs_without_improvement += 1
        if self._patience is not None and self._epochs_without_improvement >= self._patience:
            self.stopped_early = True
            control.should_training_stop = True
            self._pipe.log(
                f"Validation loss has not fallen for {self._epochs_without_improvement} epochs: training ends early."
            )


class Saving(TrainerCallback):  # type: ignore[misc] # as above
    """Saves checkpoints periodically. At SIGTERM it saves one and ends the training."""

    def __init__(
        self, checkpoints: Checkpoints, pipe: Pipe, meter: Meter, best: BestState, *, seconds: float, max_steps: int
    ) -> None:
        self._checkpoints, self._pipe, self._meter, self._best = checkpoints, pipe, meter, best
        self._seconds, self._max_steps = seconds, max_steps
        self._began = self._saved_at = time.monotonic()
        self._first_step = 0
        self._must_stop = False
        self.stopped = False

    def handle_sigterm(self) -> None:
        """Installs the handler of SIGTERM."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._must_stop = True

        signal.signal(signal.SIGTERM, stop)

    @staticmethod
    def ignore_sigterm() -> None:
        """Ignores SIGTERM from here on: the training has ended.

        Else SIGTERM could kill the process while it exits. torchrun on the other nodes would count that as a failure and wait
        minutes for it.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Records when and at which step the training begins."""
        self._began = self._saved_at = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decides whether to save and whether to stop."""
        now = time.monotonic()
        per_step = (now - self._began) / max(1, state.global_step - self._first_step)
        is_due = now - self._saved_at >= max(self._seconds, CHECKPOINT_SHARE * per_step * self._max_steps)
        is_last = state.global_step >= state.max_steps
        # SIGTERM may reach any node. Clocks differ: that of the first process decides.
        stop, save = any_process([self._must_stop, is_due and state.is_world_process_zero])
        if (stop or save) and not is_last:
            control.should_save = True
        if stop and not is_last:
            self.stopped = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copies the checkpoint to the storage: every process has written its part to its node's folder."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            gather_files(folder, is_sent=state.is_local_process_zero and not state.is_world_process_zero)
        if state.is_world_process_zero:
            with self._meter.part("checkpoint"):
                if self._best.step:
                    shutil.copytree(self._best.folder, folder / BEST, dirs_exist_ok=True)
                progress = {**self._best.progress, "trained_tokens": self._meter.trained_tokens}
                (folder / PROGRESS).write_text(json.dumps(progress))
                # A pickle, which is not needed to resume.
                (folder / "training_args.bin").unlink(missing_ok=True)
                uri = self._checkpoints.save(folder, state.global_step)
            self._pipe.report(checkpoint={"uri": uri, "step": state.global_step})
        if state.is_local_process_zero:
            shutil.rmtree(folder)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        self._saved_at = time.monotonic()
