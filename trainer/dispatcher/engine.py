"""What an engine that runs trainings (Kubernetes, Ray) is to a dispatcher."""

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
    """Where an engine has a run."""

    # Recorded, and not yet handed to the scheduler.
    RECORDED = auto()
    # With the scheduler, which has no place for it yet.
    WAITING = auto()
    # Taken back by the scheduler, or not yet let go; none of its processes is there.
    SUSPENDED = auto()
    # Placed: its image is pulled, it starts, or it trains.
    PLACED = auto()
    # Its processes are being ended.
    STOPPING = auto()
    # Ended for others: the job is as good as before.
    PREEMPTED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Run:
    """A lease on an engine. `reason` says for people why it waits or how it failed."""

    name: str
    lease: workers_pb2.Lease
    phase: Phase
    reason: str = ""
    # Whether another attempt may succeed; of failed runs.
    retryable: bool = True


class Unavailable(Exception):
    """What a dispatcher needs cannot be reached or has too much to do: the same may succeed after `pause_seconds`."""

    def __init__(self, message: str, pause_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class EngineUnavailable(Unavailable):
    """The engine is."""


class EngineRefused(Exception):
    """The engine refuses a run, however often it is asked: says why, for the operator."""


class Engine(Protocol):
    """Runs leases. Its methods raise EngineUnavailable."""

    def runs(self) -> Sequence[Run]:
        """Every run of this dispatcher, whoever started it."""

    def offers(self) -> Mapping[str, int]:
        """Free GPUs by the catalogue's types, as many as one job may have."""

    def start(self, lease: workers_pb2.Lease) -> None:
        """Starts a lease; again is the same. Raises EngineRefused."""

    def delete(self, run: Run) -> None:
        """Ends a run and removes it; again is the same."""

    def close(self) -> None:
        """Closes its connections."""


def name_of(lease: workers_pb2.Lease) -> str:
    """The run's name: a DNS label that the job and the number of its lease make, and so the same for whoever starts it."""
    return f"job-{uuid.UUID(lease.job_id).hex}-{lease.lease_epoch}"


def write_lease(lease: workers_pb2.Lease) -> str:
    """A lease as JSON, which `PIPELINE_TRAINER_LEASE` takes.

    Without a dollar sign: Ray expands `$NAME` in values of variables, and a dataset's name would show its owner the node's.
    """
    text = json_format.MessageToJson(lease, indent=None, preserving_proto_field_name=True)
    return text.replace("$", "\\u0024")


def read_lease(text: str) -> workers_pb2.Lease:
    """Reads what `write_lease` wrote. Raises json_format.ParseError, also where its ids are none: no call would take them."""
    lease: workers_pb2.Lease = json_format.Parse(text, workers_pb2.Lease(), ignore_unknown_fields=True)
    for name in ("job_id", "lease_token"):
        if UUID.fullmatch(getattr(lease, name)) is None:
            raise json_format.ParseError(f"{name} is not a UUID")
    return lease
