"""Models of events, metrics and watches → messages of JobsService."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

from pipeline.jobs.v1 import jobs_pb2 as pb

from jobs_service.events.model import JobEvent, MetricPoint
from jobs_service.events.watch import End, Ping, Snapshot, WatchMessage
from jobs_service.jobs.model import cost_limit_share
from jobs_service.jobs.wire import ACTIONS, REASONS, STATUSES, reforecast
from jobs_service.wire import cents, cents_or_none, time


def event(model: JobEvent) -> pb.JobEvent:
    """Returns an event as its owner sees it."""
    data = model.data
    limit, reason = data.get("max_cost_usd"), data.get("status_reason")
    cost = Decimal(str(data.get("current_cost", 0)))
    final = data.get("final_cost")
    return pb.JobEvent(
        id=model.cursor.render(model.user_id),
        job_id=str(model.job_id),
        revision=model.revision,
        type=pb.JobEventType.Value(f"JOB_EVENT_TYPE_{model.type.upper()}"),
        status=STATUSES[model.status],
        current_stage=data.get("current_stage", ""),
        progress=data.get("progress", 0),
        current_epoch=data.get("current_epoch", 0),
        current_step=data.get("current_step", 0),
        current_metrics=data.get("current_metrics", {}),
        current_cost=cents(cost),
        final_cost=cents_or_none(None if final is None else Decimal(str(final))),
        attempt=data.get("attempt", 1),
        error_message=data.get("error_message"),
        status_reason=REASONS[reason] if reason else None,
        is_final=model.is_final,
        allowed_actions=ACTIONS[model.status],
        cost_limit_share=cost_limit_share(cost, None if limit is None else Decimal(str(limit))),
        seconds_left=data.get("seconds_left"),
        log_lines=data.get("log_lines", []),
        reforecast=reforecast(data.get("reforecast", {})),
        created_at=time(model.created_at),
    )


def metrics(model: MetricPoint) -> pb.JobMetrics:
    """Returns a trainer's metrics at one step."""
    return pb.JobMetrics(step=model.step, epoch=model.epoch, values=model.values, created_at=time(model.created_at))


Response = TypeVar("Response", pb.WatchJobResponse, pb.WatchJobsResponse)


def watch_message(response: type[Response], model: WatchMessage, user_id: str, jobs: Sequence[pb.Job]) -> Response:
    """Returns a message of a watch. `jobs`: those of a snapshot."""
    update: dict[str, Any]
    match model.content:
        case JobEvent():
            update = {"event": event(model.content)}
        case Snapshot(_, reset):
            update = {"reset" if reset else "snapshot": {"jobs": jobs}}
        case Ping(behind_seconds):
            update = {"ping": pb.WatchPing(behind_seconds=behind_seconds)}
        case End(reason):
            code = pb.WatchEndReason.Value(f"WATCH_END_REASON_{reason.upper()}")
            update = {"end": pb.WatchEnd(reason=code)}
    return response(id=model.cursor.render(user_id), **update)
