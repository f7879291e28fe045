"""Quotes and figures of accuracy → contract messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.learning.corrections import Accuracy
from estimator_service.quotes.store import Quote

NO_FIGURE = "No figure yet: it takes finished jobs of at least {users} users that were forecast with a base model."


def costs(answer: pb.EstimateCostResponse) -> tuple[Decimal, Decimal | None]:
    """P50 and P90 of an answer. Its doubles are rounded to cents, so their shortest decimal is the amount meant."""
    worst = Decimal(str(answer.forecast.cost.p90)) if answer.HasField("forecast") else None
    return Decimal(str(answer.estimated_cost)), worst


def quote(model: Quote) -> pb.Quote:
    """A quote as its owner sees it."""
    request, response = (
        pb.CreateQuoteRequest.FromString(model.request),
        pb.EstimateCostResponse.FromString(model.answer),
    )
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
    """The answer that was quoted, with its quote."""
    response = pb.EstimateCostResponse.FromString(model.answer)
    response.quote.CopyFrom(quote(model))
    return response


def accuracy(figures_by_month: Sequence[Accuracy], min_users: int) -> pb.GetEstimateAccuracyResponse:
    """How good forecasts were; says so where there is no figure."""
    figures = [
        pb.AccuracyFigure(
            month=each.month or "", jobs=each.jobs, inside_p10_p90=round(each.inside, 4),
            median_error=round(each.median_error, 4),
        )
        for each in figures_by_month
    ]  # fmt: skip
    overall = next((figure for figure in figures if not figure.month), None)
    note = NO_FIGURE.format(users=min_users)
    if overall:
        note = f"{overall.jobs} finished jobs, {overall.inside_p10_p90:.0%} of them within P10 to P90."
    months = [figure for figure in figures if figure.month]
    return pb.GetEstimateAccuracyResponse(overall=overall, months=months[::-1], note=note)


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
