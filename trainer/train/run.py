"""Runs one training, from the task to the result's files, with TRL's SFTTrainer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from trainer.task import Task
from trainer.train import data, model, result
from trainer.train.callbacks import PROGRESS, BestState, Reports, Saving
from trainer.train.checkpoints import Checkpoints, local_folder
from trainer.train.data import Prepared, Sample
from trainer.train.measure import Meter
from trainer.train.pipe import Pipe

# Share of steps of the learning rate's warm-up; then it decays as a cosine.
WARM_UP_SHARE = 0.03
# Most steps of a training whose metrics are logged.
LOGGED_STEPS = 2_000
# Left out of a result's `training_args.json`: paths of this machine, and tokens.
PRIVATE_ARGUMENTS = ("output_dir", "logging_dir", "hub_token", "push_to_hub_token")


def run(task: Task, pipe: Pipe, meter: Meter) -> None:
    """Trains and sends the outcome over the pipe. Raises TrainingError, and what PyTorch raises."""
    model.check(task)
    pipe.report(stage="preparing dataset")
    rows = list(data.read_rows(Path(task.dataset_file)))
    data.check_counts(rows, task.total_pairs, task.total_tokens)
    validation_rows = list(data.read_rows(Path(task.validation_file))) if task.validation_file else []
    if task.validation_file:
        data.check_counts(validation_rows, task.validation_pairs, task.validation_tokens, "validation dataset")
    tokenizer = model.load_tokenizer(task)
    options = task.options
    samples = data.prepare(
        rows,
        tokenizer,
        sequence_length=options.sequence_length,
        validation_fraction=options.validation_fraction,
        seed=options.seed,
        validation_rows=validation_rows,
    )
    pipe.log(*samples.log_lines)
    pipe.report(stage="loading model")
    set_seed(options.seed)
    with meter.part("load"):
        base = model.load_model(task)
    steps = planned_steps(task, len(samples.train))
    _log_plan(task, samples, steps, base, pipe)
    folder = Path(task.work_dir) / "checkpoints"
    checkpoints = Checkpoints(task.checkpoint_url, task.identity)
    best = BestState(Path(task.work_dir), patience=options.early_stopping_patience, pipe=pipe)
    saving = Saving(checkpoints, pipe, meter, best, seconds=task.checkpoint_seconds, max_steps=steps)
    trainer = _trainer(task, base, tokenizer, samples, steps, folder)
    for callback in (Reports(pipe, meter), best, saving):
        trainer.add_callback(callback)
    checkpoint = _resume(checkpoints, folder, pipe, trainer.accelerator)
    if checkpoint is not None:
        progress = json.loads((checkpoint / PROGRESS).read_text())
        best.restore(checkpoint, progress)
        meter.trained_tokens = progress["trained_tokens"]
    saving.handle_sigterm()
    pipe.pid()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    saving.ignore_sigterm()
    state = trainer.state
    if saving.stopped:
        pipe.send("saved", step=state.global_step)
        return
    if not trainer.accelerator.is_main_process:
        return
    metrics = _metrics(trainer, best)
    result.write(
        task,
        trainer.accelerator.unwrap_model(trainer.model),
        tokenizer,
        _arguments(trainer.args),
        metrics,
        best=best.folder if best.step else None,
        step=best.step or state.global_step,
        max_steps=state.max_steps,
    )
    pipe.send(
        "result",
        folder=str(task.result_dir),
        step=state.global_step,
        max_steps=state.max_steps,
        stopped_early=best.stopped_early,
        result_step=best.step,
        # Validation losses are points of the curve already.
        values={name: value for name, value in metrics.items() if name != "eval_loss"},
        measurements=meter.measurements(
            longest=samples.longest, packing=options.packing, model=base, fused=options.fused_kernels
        ),
    )


def planned_steps(task: Task, samples: int) -> int:
    """Returns the optimizer steps: those of the estimate, or those that the samples need for a reference estimate."""
    return steps_without_packing(task, samples) if task.is_reference else task.total_steps


def steps_without_packing(task: Task, samples: int) -> int:
    """Returns the optimizer steps of all epochs, without packing."""
    options = task.options
    samples_per_step = options.batch_size * task.gpu_count * options.gradient_accumulation
    return math.ceil(samples / samples_per_step) * options.epochs


def _log_plan(task: Task, samples: Prepared, steps: int, base: Any, pipe: Pipe) -> None:
    options = task.options
    trained = sum(parameter.numel() for parameter in base.parameters() if parameter.requires_grad)
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"the CPU ({torch.get_num_threads()} threads)"
    )
    samples_per_step = options.batch_size * task.gpu_count * options.gradient_accumulation
    lines = [
        f"{task.base_model}, {options.method}, {trained:,} trained parameters, {options.precision}, on {device}.",
        f"{steps} steps: {len(samples.train)} samples, {options.epochs} epochs, {samples_per_step} samples a step.",
    ]
    if task.is_reference:
        lines.append(
            f"The job counts {task.total_steps} steps, as its estimate did; these {steps} are mapped onto them."
        )
    elif not options.packing and steps_without_packing(task, len(samples.train)) != steps:
        lines.append(f"Every sample once an epoch would be {steps_without_packing(task, len(samples.train))} steps.")
    pipe.log(*lines)


def _trainer(task: Task, base: Any, tokenizer: Any, samples: Prepared, steps: int, folder: Path) -> SFTTrainer:
    options = task.options
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * WARM_UP_SHARE),
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        gradient_checkpointing=options.activation_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if options.activation_checkpointing else None,
        packing=options.packing,
        max_length=options.sequence_length,
        use_liger_kernel=options.fused_kernels,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        logging_steps=math.ceil(steps / LOGGED_STEPS),
        logging_first_step=True,
        save_strategy="no",
        eval_strategy="epoch" if samples.validation else "no",
        disable_tqdm=True,
        report_to="none",
    )
    trainer = SFTTrainer(
        model=base,
        args=arguments,
        train_dataset=_table(samples.train),
        eval_dataset=_table(samples.validation) if samples.validation else None,
        processing_class=tokenizer,
    )
    # The supervisor gets messages instead of printed logs.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _table(samples: list[Sample]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [each.input_ids for each in samples], "labels": [each.labels for each in samples]}
    )


def _resume(checkpoints: Checkpoints, folder: Path, pipe: Pipe, accelerator: Accelerator) -> Path | None:
    """Copies the newest complete checkpoint into a folder of each node and returns it, if any. Raises CheckpointError."""
    step = None
    if accelerator.is_main_process:
        step, log_lines = checkpoints.load(folder)
        pipe.log(*log_lines)
    (step,) = broadcast_object_list([step])
    if step is None:
        return None
    if accelerator.is_local_main_process and not accelerator.is_main_process:
        checkpoints.fetch(step, folder)
    accelerator.wait_for_everyone()
    return local_folder(folder, step)


def _metrics(trainer: SFTTrainer, best: BestState) -> dict[str, float]:
    """Returns the mean loss of the last logged steps, and the lowest validation loss."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-10:]
    metrics = {"train_loss": sum(last) / len(last)} if last else {}
    return metrics | ({"eval_loss": best.loss} if best.step else {})


def _arguments(arguments: SFTConfig) -> dict[str, Any]:
    return {name: value for name, value in arguments.to_dict().items() if name not in PRIVATE_ARGUMENTS}
