"""The interface of engines that run trainings (Kubernetes, Ray)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from google.protobuf import json_format
from pipeline.workers.v1 import workers_pb2

UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Phase(Enum):
    """Phase of a run on an engine."""

    # Recorded, and not yet handed to the scheduler.
    RECORDED = auto()
    # Handed to the scheduler, which has not placed it yet.
    WAITING = auto()
    # Suspended or not yet admitted by the scheduler; it has no processes.
    SUSPENDED = auto()
    # On nodes: pulling its image, starting or training.
    PLACED = auto()
    # Its processes are being ended.
    STOPPING = auto()
    # Ended by the scheduler or with its node, without an error of the job.
    PREEMPTED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Run:
    """A lease on an engine. `reason`: text for the job's owner, why the run waits or failed."""

    name: str
    lease: workers_pb2.Lease
    phase: Phase
    reason: str = ""
    # Of a failed run: whether another attempt may succeed.
    retryable: bool = True


class Unavailable(Exception):
    """A service cannot be reached or is overloaded. A retry after `pause_seconds` may succeed."""

    def __init__(self, message: str, pause_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class EngineUnavailable(Unavailable):
    """The engine is unavailable."""


class EngineRefused(Exception):
    """The engine refuses a run permanently. The message, for the operator, says why."""


class Engine(Protocol):
    """Runs leases. Methods raise EngineUnavailable."""

    def runs(self) -> Sequence[Run]:
        """Returns every run of a dispatcher with this name, including those that an earlier process started."""

    def offers(self) -> Mapping[str, int]:
        """Returns the most GPUs that one more job can have, by GPU type of the catalogue."""

    def start(self, lease: workers_pb2.Lease) -> None:
        """Starts a lease. Idempotent. Raises EngineRefused."""

    def delete(self, run: Run) -> None:
        """Ends a run and removes it. Idempotent."""

    def close(self) -> None:
        """Closes its connections."""


def name_of(lease: workers_pb2.Lease) -> str:
    """Returns the run's name, a DNS label. It is the same in every process: made from the job and the number of its lease."""
    return f"job-{uuid.UUID(lease.job_id).hex}-{lease.lease_epoch}"


def write_lease(lease: workers_pb2.Lease) -> str:
    """Returns a lease as JSON for `PIPELINE_TRAINER_LEASE`.

    Dollar signs are escaped: Ray expands `$NAME` in values, so a dataset's name could read the node's variables.
    """
    text = json_format.MessageToJson(lease, indent=None, preserving_proto_field_name=True)
    return text.replace("$", "\\u0024")


def read_lease(text: str) -> workers_pb2.Lease:
    """Reads what `write_lease` wrote. Raises json_format.ParseError, also for ids that are no UUIDs."""
    lease: workers_pb2.Lease = json_format.Parse(text, workers_pb2.Lease(), ignore_unknown_fields=True)
    for name in ("job_id", "lease_token"):
        if UUID.fullmatch(getattr(lease, name)) is None:
            raise json_format.ParseError(f"{name} is not a UUID")
    return lease
