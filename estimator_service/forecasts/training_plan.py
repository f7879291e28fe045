"""Converts the plan of an estimate to the message that tells a trainer what to train, with the defaults that were assumed."""

from __future__ import annotations

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue.base_models import Model
from estimator_service.catalogue.gpus import Gpu
from estimator_service.forecasts.plan import Options, Plan, default_precision
from estimator_service.physics.workload import ATTENTION, Method, Precision, Stack


def forecast_plan(planned: Plan, options: Options, batch: int) -> pb.TrainingPlan:
    """Returns the plan of a forecast. Its sequence length is unset if samples are not to be cut."""
    w = planned.workload
    length = planned.length if options.sequence_length or w.packed else None
    plan = _plan(w.model, w.method, w.precision, "tuned" if w.stack == "tuned" else "plain", w.targets, batch)
    plan.training.gradient_accumulation = w.accumulation
    plan.training.activation_checkpointing = bool(w.checkpointing)
    plan.training.packing = w.packed
    plan.training.MergeFrom(
        pb.TrainingOptions(
            validation_fraction=options.validation_fraction,
            early_stopping_patience=options.early_stopping_patience,
            seed=options.seed,
            validation_dataset_id=options.validation_dataset_id,
        )
    )
    if length is not None:
        plan.training.sequence_length = length
    return plan


def reference_plan(model: Model, gpu: Gpu | None, batch: int, count: int) -> pb.TrainingPlan:
    """Returns the plan of a job without a base model: the default model, and the batch divided among the GPUs."""
    precision: Precision = default_precision(gpu.traits) if gpu is not None else "bf16"
    plan = _plan(model, "lora", precision, "plain", ATTENTION, -(-batch // count))
    plan.training.gradient_accumulation = 1
    plan.training.activation_checkpointing = True
    plan.training.packing = False
    return plan


def _plan(
    model: Model, method: Method, precision: Precision, stack: Stack, targets: tuple[str, ...], batch: int
) -> pb.TrainingPlan:
    names = sorted({target if "_" in target or "-" in target else f"{target}_proj" for target in targets})
    training = pb.TrainingOptions(
        method=pb.TrainingMethod.Value(f"TRAINING_METHOD_{method.upper()}"),
        precision=pb.Precision.Value(f"PRECISION_{precision.upper()}"),
        stack=pb.SoftwareStack.Value(f"SOFTWARE_STACK_{stack.upper()}"),
        target_modules=names if method != "full" else [],
    )
    return pb.TrainingPlan(base_model=model.name, source=model.source, training=training, batch_size=batch)
