"""Converts quotes to messages of the contract."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.quotes.store import Quote


def costs(response: pb.EstimateCostResponse) -> tuple[Decimal, Decimal | None]:
    """Returns an estimate's cost and its P90, None without a forecast.

    Its doubles are rounded to cents, so that their shortest decimal form is the exact amount.
    """
    p90 = Decimal(str(response.forecast.cost.p90)) if response.HasField("forecast") else None
    return Decimal(str(response.estimated_cost)), p90


def quote(model: Quote) -> pb.Quote:
    """Returns a quote as a message."""
    request = pb.CreateQuoteRequest.FromString(model.request)
    response = pb.EstimateCostResponse.FromString(model.response)
    forecast = response.HasField("forecast")
    return pb.Quote(
        id=str(model.id),
        configuration_digest=model.digest.hex(),
        dataset_id=str(model.dataset_id),
        dataset_revision=model.dataset_revision,
        catalogue_version=model.catalogue_version,
        cost_p50=response.estimated_cost,
        cost_p90=response.forecast.cost.p90 if forecast else None,
        hours_p50=response.estimated_duration_hours,
        hours_p90=response.forecast.hours.p90 if forecast else None,
        hourly_rate=response.hourly_rate,
        created_at=_time(model.created_at),
        expires_at=_time(model.expires_at),
        gpu_config=request.gpu_config,
        hyperparameters=request.hyperparameters,
        base_model=request.base_model if request.HasField("base_model") else None,
        training=request.training if request.HasField("training") else None,
        provider=request.provider if request.HasField("provider") else None,
    )


def quoted_response(model: Quote) -> pb.EstimateCostResponse:
    """Returns the estimate that was quoted, with its quote."""
    response = pb.EstimateCostResponse.FromString(model.response)
    response.quote.CopyFrom(quote(model))
    return response


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
