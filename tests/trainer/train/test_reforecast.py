"""New forecasts of real trainings, judged by their real end: `make test-train`."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.queue.reforecast import MIN_STEPS
from tests.conftest import Stack, metadata
from tests.jobs_service.jobs.test_create_job import ANN
from tests.trainer.train.trainings import ROWS, is_final, queue, trainer, until

pytestmark = pytest.mark.train

JOBS = 5
# The largest error of a forecast. Where later steps of a training vary by more, how much larger it may be than theirs.
TOLERANCE, FACTOR = 0.05, 1.5


async def events_of(stack: Stack, job: jobs_pb2.Job) -> list[jobs_pb2.JobEvent]:
    """Returns the events of a job, oldest first."""
    events: list[jobs_pb2.JobEvent] = []
    for page in itertools.count(1):
        request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100, page=page)
        response = await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))
        events += response.events
        if page >= response.pagination.total_pages:
            break
    return events[::-1]


def seconds(event: jobs_pb2.JobEvent) -> float:
    """Returns the time of an event."""
    return event.created_at.ToNanoseconds() / 1e9


def errors_of(job: jobs_pb2.Job, events: list[jobs_pb2.JobEvent]) -> tuple[float, float]:
    """Returns the error of the last new forecast of a training's end, and the largest one from any later 20 steps.

    Both are shares of the training's time. Saving the result, which is forecast separately, is left out. The second error
    shows how much the speed of this machine changed.
    """
    began = next(seconds(event) for event in events if event.type == jobs_pb2.JOB_EVENT_TYPE_STARTED)
    end = next(seconds(event) for event in events if event.current_step == job.total_steps)
    made = [event for event in events if event.type == jobs_pb2.JOB_EVENT_TYPE_REFORECAST][-1]
    billed_from = job.completed_at.ToNanoseconds() / 1e9 - job.billed_seconds
    forecast = billed_from + made.reforecast.seconds.p50 - job.forecast.save_seconds
    later = [event for event in events if seconds(event) >= seconds(made) and event.current_step < job.total_steps]
    others = []
    for index, first in enumerate(later):
        last = next((each for each in later[index:] if each.current_step - first.current_step >= MIN_STEPS), None)
        if last is not None:
            step_seconds = (seconds(last) - seconds(first)) / (last.current_step - first.current_step)
            others.append(seconds(made) + step_seconds * (job.total_steps - made.reforecast.step))
    return abs(forecast - end) / (end - began), max(abs(each - end) for each in others) / (end - began)


async def test_new_forecasts_are_as_good_as_the_steps_allow(stack: Stack, models: Path, tmp_path: Path) -> None:
    """Four of five are off by 5 % at most, or by 1.5 times what a forecast from later steps is where those vary more."""
    jobs = [
        await queue(stack, ROWS * 4, hyperparameters={"batch_size": 1, "epochs": 1 + number % 2, "rank": 4 * 2**number})
        for number in range(JOBS)
    ]
    async with trainer(stack, tmp_path / "trainer", models):
        done = [await until(stack, job, is_final) for job in jobs]
    assert all(job.status == jobs_pb2.JOB_STATUS_COMPLETED for job in done)
    errors = [errors_of(job, await events_of(stack, job)) for job in done]
    within = [error <= (TOLERANCE if other <= TOLERANCE else FACTOR * other) for error, other in errors]
    assert sum(within) >= 0.8 * JOBS, errors
