"""Templates of the notifications about jobs, except `job_queued`: `create_job.sql` writes it in the transaction of the job."""

from __future__ import annotations

from typing import NamedTuple


class NotificationTemplate(NamedTuple):
    """One type of notification.

    `template` takes the job (%1$s: `"name"`, or `for "dataset"` without a name), the error (%2$s), the attempt (%3$s), the
    number of attempts (%4$s) and the note of the last forecast (%5$s).
    """

    type: str
    title: str
    template: str
    priority: str


STARTED = NotificationTemplate("job_started", "Training Started", "Your training job %1$s has started", "low")
COMPLETED = NotificationTemplate(
    "job_completed", "Training Completed", "Your training job %1$s has completed; the adapter is ready", "medium"
)
SIMULATED = NotificationTemplate(
    "job_completed",
    "Training Completed",
    "Your training job %1$s has completed; it was simulated, so there is no adapter",
    "medium",
)
FAILED = NotificationTemplate("job_failed", "Training Failed", "Your training job %1$s has failed: %2$s", "high")
CANCELLED = NotificationTemplate(
    "job_cancelled", "Training Cancelled", "Your training job %1$s has been cancelled", "low"
)
LEASE_LOST = NotificationTemplate(
    "job_lease_lost",
    "Trainer Lost",
    "Your training job %1$s lost its trainer and is queued again, for attempt %3$s of %4$s",
    "medium",
)
RETRIED = NotificationTemplate(
    "job_retried",
    "Training Retried",
    "Your training job %1$s met an error and is queued again, for attempt %3$s of %4$s: %2$s",
    "medium",
)
COST_WARNING = NotificationTemplate(
    "job_cost_warning",
    "80 % of the Cost Limit",
    "Your training job %1$s has used 80 %% of its cost limit",
    "medium",
)
COST_LIMIT = NotificationTemplate(
    "job_cost_limit",
    "Cost Limit Reached",
    "Your training job %1$s has used 100 %% of its cost limit and was stopped",
    "high",
)
LONGER = NotificationTemplate(
    "job_reforecast",
    "Training Takes Longer",
    "Your training job %1$s takes longer than forecast. %5$s",
    "medium",
)
COST_LIMIT_AHEAD = NotificationTemplate(
    "job_reforecast",
    "Cost Limit Ahead",
    "Your training job %1$s will reach its cost limit before its end. %5$s",
    "high",
)
DURATION_LIMIT_AHEAD = NotificationTemplate(
    "job_reforecast",
    "Time Limit Ahead",
    "Your training job %1$s will reach its time limit before its end. %5$s",
    "high",
)
