"""A Ray cluster as an engine: one job of its job API for each lease. Needs no Ray here: the API is HTTP.

Ray has no secrets. Whoever may call its job API may read a job's lease there; the trainer's token is a file on its nodes.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
from google.protobuf import json_format
from pipeline.workers.v1 import workers_pb2

from trainer.client import TrainerError
from trainer.dispatcher.capacity import product_type
from trainer.dispatcher.engine import EngineRefused, EngineUnavailable, Phase, Run, name_of, read_lease, write_lease
from trainer.settings import LEASE_VARIABLE, DispatcherSettings

CALL_SECONDS = 15.0
ACCELERATOR = "accelerator_type:"
DISPATCHER = "pipeline.dispatcher"
# Share of a node's accelerator type that a run takes: it says where, and takes nothing from others.
SLICE = 0.001
PHASES = {
    "PENDING": Phase.WAITING,
    "RUNNING": Phase.PLACED,
    "STOPPED": Phase.PREEMPTED,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}
MAX_NODES = 10_000
# What an answer says in an error message, at most.
MAX_SHOWN = 300
# Time that an ended job is kept.
KEPT_SECONDS = 10.0


class RayEngine:
    """Jobs of a Ray cluster whose dashboard is at `address`: `http://HOST:8265`. Raises TrainerError for another address."""

    def __init__(self, address: str, settings: DispatcherSettings) -> None:
        if not address.startswith(("http://", "https://")):
            raise TrainerError(f"{address} is not the address of a Ray dashboard, such as http://ray-head:8265")
        self._client = httpx.Client(base_url=address, timeout=CALL_SECONDS)
        self._settings = settings
        # When an ended job was first seen so, by name.
        self._ended_at: dict[str, float] = {}

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def runs(self) -> Sequence[Run]:
        """Every job with this dispatcher's name."""
        runs = []
        for job in self._request("GET", "/api/jobs/"):
            if (job.get("metadata") or {}).get(DISPATCHER) != self._settings.dispatcher_name:
                continue
            # A job without a lease is somebody else's mistake, and not ours to delete.
            with suppress(json_format.ParseError, KeyError, TypeError):
                lease = read_lease(job["runtime_env"]["env_vars"][LEASE_VARIABLE])
                if name_of(lease) != job["submission_id"]:
                    continue
                reason = str(job.get("message") or "")
                runs.append(Run(job["submission_id"], lease, PHASES[job["status"]], reason))
        names = {run.name for run in runs}
        self._ended_at = {name: ended_at for name, ended_at in self._ended_at.items() if name in names}
        return runs

    def offers(self) -> Mapping[str, int]:
        """The most GPUs of each type that one node has free: a Ray job runs on one."""
        free: defaultdict[str, int] = defaultdict(int)
        for gpu_type, _, count in self._nodes():
            free[gpu_type] = max(free[gpu_type], count)
        return {gpu_type: count for gpu_type, count in free.items() if count > 0}

    def start(self, lease: workers_pb2.Lease) -> None:
        """Submits the job, unless it is there."""
        resource = next((name for gpu_type, name, _ in self._nodes() if gpu_type == lease.gpu_config.type), None)
        if resource is None:
            raise EngineRefused(f"The cluster has no GPUs of type {lease.gpu_config.type} any more.")
        variables = {LEASE_VARIABLE: write_lease(lease), **self._settings.ray_variables}
        job = {
            "submission_id": name_of(lease),
            "entrypoint": shlex.join(["python", "-m", "trainer"]),
            "entrypoint_num_gpus": lease.gpu_config.count,
            "entrypoint_resources": {resource: SLICE},
            "runtime_env": {"env_vars": variables},
            "metadata": {DISPATCHER: self._settings.dispatcher_name, "job": lease.job_id},
        }
        try:
            self._request("POST", "/api/jobs/", job)
        except EngineRefused:
            # Ray refuses a name that is taken as it refuses anything else.
            if not self._exists(name_of(lease)):
                raise

    def delete(self, run: Run) -> None:
        """Stops the job, and deletes it some time after it has ended: until then Ray may write of it again."""
        with suppress(EngineRefused):
            if run.phase in (Phase.WAITING, Phase.PLACED):
                self._request("POST", f"/api/jobs/{run.name}/stop")
            elif time.monotonic() - self._ended_at.setdefault(run.name, time.monotonic()) > KEPT_SECONDS:
                self._request("DELETE", f"/api/jobs/{run.name}")

    def _nodes(self) -> list[tuple[str, str, int]]:
        """GPU type, Ray's name of it as a resource, and free GPUs of each node that is alive."""
        used = defaultdict[str, Counter[str]](Counter)
        listed = self._request("GET", f"/api/v0/nodes?detail=true&limit={MAX_NODES}")["data"]["result"]["result"]
        usage = self._request("GET", "/api/cluster_status?format=0")["data"]["clusterStatus"]
        for node, resources in (usage.get("loadMetricsReport") or {}).get("usageByNode", {}).items():
            # A GPU of which a part is used is not free.
            used[node]["GPU"] = math.ceil(resources.get("GPU", (0, 0))[0])
        nodes = []
        for node in listed:
            total = node["resources_total"]
            names = [name for name in total if name.startswith(ACCELERATOR)]
            for name in names if node["state"] == "ALIVE" else ():
                gpu_type = product_type(name.removeprefix(ACCELERATOR), self._settings.dispatcher_gpu_types)
                if gpu_type is not None:
                    nodes.append((gpu_type, name, int(total.get("GPU", 0)) - used[node["node_id"]]["GPU"]))
        return nodes

    def _exists(self, name: str) -> bool:
        return any(job["submission_id"] == name for job in self._request("GET", "/api/jobs/"))

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The body of the response. Raises EngineUnavailable, and EngineRefused where something was to change."""
        try:
            response = self._client.request(method, path, json=body)
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        message = f"{method} {path}: {response.status_code} {response.text[-MAX_SHOWN:]}"
        # Ray answers 500 to what is the caller's own, with its reason at the end.
        if method == "GET" or response.status_code in (429, 502, 503, 504):
            raise EngineUnavailable(message)
        raise EngineRefused(message)
