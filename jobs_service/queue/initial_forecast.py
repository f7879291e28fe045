"""The forecast that a job was created with, read from its stored estimate."""

from __future__ import annotations

from pipeline.estimator.v1 import estimator_pb2 as pb

from jobs_service.queue.reforecast import MAX_FACTOR, ROUGH_SPREAD, SECONDS_PER_HOUR, InitialForecast


def initial_forecast(estimate: bytes) -> InitialForecast:
    """Returns the forecast of a job's time in its estimate, seconds."""
    response = pb.EstimateCostResponse.FromString(estimate)
    if not response.HasField("forecast"):
        total = response.estimated_duration_hours * SECONDS_PER_HOUR
        return InitialForecast(
            total=total,
            total_p90=total * ROUGH_SPREAD,
            training_p10=total / ROUGH_SPREAD,
            training=total,
            training_p90=total * ROUGH_SPREAD,
            validation=0.0,
            save=0.0,
            fastest_training=total / MAX_FACTOR,
            is_rough=True,
        )
    forecast = response.forecast
    return InitialForecast(
        total=forecast.seconds.p50,
        total_p90=forecast.seconds.p90,
        training_p10=forecast.training_seconds.p10,
        training=forecast.training_seconds.p50,
        training_p90=forecast.training_seconds.p90,
        validation=forecast.validation_seconds,
        save=forecast.save_seconds,
        fastest_training=forecast.fastest_training_seconds,
        is_rough=False,
    )
