"""Converts reference estimates to messages of the contract."""

from __future__ import annotations

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue.model import GpuType
from estimator_service.catalogue.wire import gpu_price
from estimator_service.datasets.model import Dataset
from estimator_service.reference import Estimate, to_cents

REFERENCE_BASIS = (
    "Rough: one speed for a GPU type, whatever the model. Name a base model for a forecast with its range."
)


def reference_template(gpu: GpuType, version: str, plan: pb.TrainingPlan) -> pb.EstimateCostResponse:
    """Returns the fields that every reference estimate of a GPU type shares."""
    return pb.EstimateCostResponse(price=gpu_price(gpu), catalogue_version=version, plan=plan, basis=REFERENCE_BASIS)


def reference_response(
    template: pb.EstimateCostResponse, estimate: Estimate, dataset: Dataset
) -> pb.EstimateCostResponse:
    """Returns a reference estimate, rounded. Copying the template takes half as long as building its messages."""
    response = pb.EstimateCostResponse()
    response.CopyFrom(template)
    response.estimated_cost = to_cents(estimate.total)
    response.estimated_duration_hours = to_cents(estimate.hours)
    response.hourly_rate = to_cents(estimate.hourly_rate)
    costs, details = response.cost_breakdown, response.training_details
    costs.compute, costs.storage = to_cents(estimate.compute), to_cents(estimate.storage)
    details.total_steps, details.steps_per_epoch = estimate.total_steps, estimate.steps_per_epoch
    details.estimated_throughput_tokens_per_sec = estimate.throughput
    details.dataset_name = dataset.name
    return response
