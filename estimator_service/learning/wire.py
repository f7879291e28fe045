"""Converts the accuracy of forecasts to a message of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.learning.corrections import Accuracy

NO_FIGURE = "No figure yet: it takes finished jobs of at least {users} users that were forecast with a base model."


def accuracy(by_month: Sequence[Accuracy], min_users: int) -> pb.GetEstimateAccuracyResponse:
    """Returns the accuracy with a note, which says why there is none."""
    figures = [
        pb.AccuracyFigure(
            month=each.month or "",
            jobs=each.jobs,
            inside_p10_p90=round(each.inside, 4),
            median_error=round(each.median_error, 4),
        )
        for each in by_month
    ]
    overall = next((figure for figure in figures if not figure.month), None)
    note = NO_FIGURE.format(users=min_users)
    if overall:
        note = f"{overall.jobs} finished jobs, {overall.inside_p10_p90:.0%} of them within P10 to P90."
    months = [figure for figure in figures if figure.month]
    return pb.GetEstimateAccuracyResponse(overall=overall, months=months[::-1], note=note)
