"""Metrics of leases and finished jobs."""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from jobs_service.jobs.model import JobState
from jobs_service.queue.model import Outcome
from rpc.telemetry.metrics import Metrics

WAIT_BUCKETS = (1, 5, 15, 30, 60, 300, 900, 3_600, 14_400, 86_400)
RATIO_BUCKETS = (0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)


class QueueMetrics:
    """Counts this process's changes of jobs, after their transaction."""

    def __init__(self, metrics: Metrics) -> None:
        self._leases = metrics.counter("pipeline_leases_total", "Jobs leased to trainers.", ["gpu_type"])
        self._ended = metrics.counter("pipeline_leases_ended_total", "Leases that ended, by outcome.", ["outcome"])
        self._finished = metrics.counter("pipeline_jobs_finished_total", "Jobs that became final.", ["state"])
        self._wait = metrics.histogram(
            "pipeline_queue_wait_seconds", "Time from a job's creation to its first lease.", buckets=WAIT_BUCKETS
        )
        self._ratio = metrics.histogram(
            "pipeline_forecast_duration_ratio",
            "Duration of a completed job that trained in one go, divided by the median of its forecast.",
            buckets=RATIO_BUCKETS,
        )
        self._cost = metrics.counter(
            "pipeline_final_cost_usd_total",
            "Final cost of jobs, by what they were created with: an access token or an API key.",
            ["credential"],
        )
        # A series that begins at its first event would hide that event from rate().
        for outcome in Outcome:
            self._ended.labels(outcome)
        for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED):
            self._finished.labels(state)
        for credential in ("token", "api_key"):
            self._cost.labels(credential)

    def leased(self, rows: Iterable[asyncpg.Record]) -> None:
        """Counts leases, the rows of a claim."""
        for row in rows:
            self._leases.labels(row["gpu_type"]).inc()
            if row["waited_seconds"] is not None:
                self._wait.observe(row["waited_seconds"])

    def ended(self, outcome: Outcome, state: JobState, job: asyncpg.Record) -> None:
        """Counts a lease that ended, and the job if that made it final."""
        self._ended.labels(outcome).inc()
        if state != JobState.QUEUED:
            self.finished(state, job)

    def finished(self, state: JobState, job: asyncpg.Record) -> None:
        """Counts a job that became final, and what it cost."""
        self._finished.labels(state).inc()
        self._cost.labels(job["credential"]).inc(float(job["final_cost"]))

    def completed(self, job: asyncpg.Record) -> None:
        """Counts a completed job. Its `duration_ratio` is its duration, divided by the median of its forecast."""
        self.ended(Outcome.COMPLETED, JobState.COMPLETED, job)
        if job["duration_ratio"] is not None:
            self._ratio.observe(job["duration_ratio"])
