"""A Ray cluster as an engine: one job of its job API for each lease. The API is HTTP, so Ray need not be installed.

Ray has no secrets: every client of its job API can read the leases of jobs. The trainer's token is a file on Ray's nodes.
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
ACCELERATOR_PREFIX = "accelerator_type:"
DISPATCHER_KEY = "pipeline.dispatcher"
# Amount of a node's accelerator resource that a run requests: enough to select a node with that GPU type.
ACCELERATOR_AMOUNT = 0.001
PHASES = {
    "PENDING": Phase.WAITING,
    "RUNNING": Phase.PLACED,
    "STOPPED": Phase.PREEMPTED,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}
MAX_NODES = 10_000
# Characters of a response in an error message.
MAX_QUOTED = 300
# Time between the end of a job and its deletion, seconds.
DELETE_DELAY_SECONDS = 10.0


class RayEngine:
    """Jobs of a Ray cluster whose dashboard is at `address`: `http://HOST:8265`. Raises TrainerError for another address."""

    def __init__(self, address: str, settings: DispatcherSettings) -> None:
        if not address.startswith(("http://", "https://")):
            raise TrainerError(f"{address} is not the address of a Ray dashboard, such as http://ray-head:8265")
        self._client = httpx.Client(base_url=address, timeout=CALL_SECONDS)
        self._settings = settings
        # When a job was first seen to have ended, by name, in monotonic seconds.
        self._ended_at: dict[str, float] = {}

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def runs(self) -> Sequence[Run]:
        """Returns the run of every job with this dispatcher's name."""
        runs = []
        for job in self._request("GET", "/api/jobs/"):
            if (job.get("metadata") or {}).get(DISPATCHER_KEY) != self._settings.dispatcher_name:
                continue
            # A job of this name without a lease is not deleted: another program submitted it.
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
        """Returns the most free GPUs of one node, by type: a Ray job runs on one node."""
        free: defaultdict[str, int] = defaultdict(int)
        for gpu_type, _, count in self._nodes():
            free[gpu_type] = max(free[gpu_type], count)
        return {gpu_type: count for gpu_type, count in free.items() if count > 0}

    def start(self, lease: workers_pb2.Lease) -> None:
        """Submits the job if it does not exist."""
        resource = next((name for gpu_type, name, _ in self._nodes() if gpu_type == lease.gpu_config.type), None)
        if resource is None:
            raise EngineRefused(f"The cluster has no GPUs of type {lease.gpu_config.type} any more.")
        variables = {LEASE_VARIABLE: write_lease(lease), **self._settings.ray_variables}
        job = {
            "submission_id": name_of(lease),
            "entrypoint": shlex.join(["python", "-m", "trainer"]),
            "entrypoint_num_gpus": lease.gpu_config.count,
            "entrypoint_resources": {resource: ACCELERATOR_AMOUNT},
            "runtime_env": {"env_vars": variables},
            "metadata": {DISPATCHER_KEY: self._settings.dispatcher_name, "job": lease.job_id},
        }
        try:
            self._request("POST", "/api/jobs/", job)
        except EngineRefused:
            # Ray gives the same error for a name that exists as for any other fault.
            if not self._exists(name_of(lease)):
                raise

    def delete(self, run: Run) -> None:
        """Stops the job. Deletes it DELETE_DELAY_SECONDS after its end: until then Ray may write its state again."""
        with suppress(EngineRefused):
            if run.phase in (Phase.WAITING, Phase.PLACED):
                self._request("POST", f"/api/jobs/{run.name}/stop")
            elif time.monotonic() - self._ended_at.setdefault(run.name, time.monotonic()) > DELETE_DELAY_SECONDS:
                self._request("DELETE", f"/api/jobs/{run.name}")

    def _nodes(self) -> list[tuple[str, str, int]]:
        """Returns GPU type, its resource name in Ray and free GPUs of each node that is alive."""
        used = defaultdict[str, Counter[str]](Counter)
        listed = self._request("GET", f"/api/v0/nodes?detail=true&limit={MAX_NODES}")["data"]["result"]["result"]
        usage = self._request("GET", "/api/cluster_status?format=0")["data"]["clusterStatus"]
        for node, resources in (usage.get("loadMetricsReport") or {}).get("usageByNode", {}).items():
            # A partly used GPU is not free.
            used[node]["GPU"] = math.ceil(resources.get("GPU", (0, 0))[0])
        nodes = []
        for node in listed:
            total = node["resources_total"]
            names = [name for name in total if name.startswith(ACCELERATOR_PREFIX)]
            for name in names if node["state"] == "ALIVE" else ():
                gpu_type = product_type(name.removeprefix(ACCELERATOR_PREFIX), self._settings.dispatcher_gpu_types)
                if gpu_type is not None:
                    nodes.append((gpu_type, name, int(total.get("GPU", 0)) - used[node["node_id"]]["GPU"]))
        return nodes

    def _exists(self, name: str) -> bool:
        return any(job["submission_id"] == name for job in self._request("GET", "/api/jobs/"))

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Returns the body of the response. Raises EngineUnavailable, and for calls other than GET EngineRefused."""
        try:
            response = self._client.request(method, path, json=body)
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        message = f"{method} {path}: {response.status_code} {response.text[-MAX_QUOTED:]}"
        # Ray responds with 500 to errors of the caller, with the reason at the end.
        if method == "GET" or response.status_code in (429, 502, 503, 504):
            raise EngineUnavailable(message)
        raise EngineRefused(message)
