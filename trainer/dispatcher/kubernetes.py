"""Kubernetes as an engine: one TrainJob of Kubeflow Trainer for each lease, with Kueue or without.

A lease is recorded in a Secret before its TrainJob is created. Every pass lists all objects instead of watching them.
All requests go through the official client, as plain JSON.
"""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from google.protobuf import json_format
from kubernetes.config import ConfigException
from pipeline.workers.v1 import workers_pb2

from trainer.client import TrainerError
from trainer.dispatcher import capacity
from trainer.dispatcher.engine import EngineRefused, EngineUnavailable, Phase, Run, name_of, read_lease, write_lease
from trainer.dispatcher.trainjob import (
    GROUP,
    LEASE_KEY,
    VERSION,
    Naming,
    owner_patch,
    run_of,
    secret_of,
    train_job,
)
from trainer.settings import DispatcherSettings

CALL_SECONDS = 15.0
# Objects of one page of a list, and attempts at a list that expires between its pages.
PAGE_SIZE, MAX_LIST_ATTEMPTS = 250, 5
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
KUEUE = "kueue.x-k8s.io/v1beta2"
# Statuses after which the same request may succeed, beside those from 500 on.
TRANSIENT = frozenset({408, 425, 429})
# Longest pause that Retry-After may set, seconds: the leases of waiting runs have to be renewed meanwhile.
MAX_PAUSE_SECONDS = 10.0
# Passes for which free GPUs are cached while no run changes: a large cluster has many nodes and pods.
POOL_PASSES = 3
# Characters of a response in an error message.
MAX_QUOTED = 300


class ApiError(Exception):
    """A request that the API server refused, and would refuse again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def connect() -> tuple[kubernetes.client.ApiClient, str]:
    """Returns a client with the pod's or kubectl's configuration, and its namespace. Raises TrainerError."""
    with suppress(ConfigException):
        kubernetes.config.load_incluster_config()  # type: ignore[no-untyped-call]
        return kubernetes.client.ApiClient(), NAMESPACE_FILE.read_text().strip()
    try:
        kubernetes.config.load_kube_config()  # type: ignore[no-untyped-call]
        _, context = kubernetes.config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise TrainerError(f"no Kubernetes cluster is configured: set KUBECONFIG, or run in a pod ({error})") from error
    return kubernetes.client.ApiClient(), context["context"].get("namespace", "default")


class KubernetesEngine:
    """TrainJobs of one namespace."""

    def __init__(self, client: kubernetes.client.ApiClient, namespace: str, settings: DispatcherSettings) -> None:
        self._client, self._settings = client, settings
        self._naming = Naming(settings.dispatcher_name, settings.kubernetes_runtime, settings.kubernetes_queue)
        self._core = f"/api/v1/namespaces/{namespace}"
        self._train_jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trainjobs"
        self._kueue, self._own_kueue = f"/apis/{KUEUE}", f"/apis/{KUEUE}/namespaces/{namespace}"
        # Phases of the last list of runs; cached pools, and until when they are used (monotonic seconds).
        self._phases: Mapping[str, Phase] = {}
        self._pools: Mapping[str, capacity.Pool] = {}
        self._pools_until = 0.0

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def runs(self) -> Sequence[Run]:
        """Returns the run of every lease that has a Secret."""
        runs = self._list_runs()
        phases = {run.name: run.phase for run in runs}
        if phases != self._phases:
            self._phases, self._pools_until = phases, 0.0
        return runs

    def offers(self) -> Mapping[str, int]:
        """Returns the GPUs of the largest job that fits into the queue's free quota, or on the nodes' free GPUs."""
        max_nodes = self._settings.kubernetes_nodes_per_job
        counts = {gpu_type: pool.largest_job(max_nodes) for gpu_type, pool in self._read_pools().items()}
        return {gpu_type: count for gpu_type, count in counts.items() if count > 0}

    def start(self, lease: workers_pb2.Lease) -> None:
        """Creates Secret and TrainJob if they are missing."""
        pool = self._read_pools().get(lease.gpu_config.type)
        if pool is None:
            raise EngineRefused(f"The cluster has no GPUs of type {lease.gpu_config.type} any more.")
        job = train_job(lease, self._naming, pool)
        secret = f"{self._core}/secrets/{name_of(lease)}"
        try:
            self._create(f"{self._core}/secrets", secret_of(lease, self._naming, write_lease(lease)))
            created = self._create(self._train_jobs, job)
        except ApiError as error:
            self._delete(secret)
            raise EngineRefused(str(error)) from error
        try:
            self._request("PATCH", secret, body=owner_patch(created))
        except ApiError as error:
            # The Secret was deleted meanwhile: the next pass creates it again.
            raise EngineUnavailable(str(error)) from error

    def delete(self, run: Run) -> None:
        """Deletes the TrainJob after its pods, and the Secret."""
        self._delete(f"{self._train_jobs}/{run.name}")
        # A Secret is deleted with its TrainJob, but that of a lease without a TrainJob has no owner.
        self._delete(f"{self._core}/secrets/{run.name}")

    def _list_runs(self) -> Sequence[Run]:
        secrets = list(self._list(f"{self._core}/secrets", self._naming.selector))
        jobs = {job["metadata"]["name"]: job for job in self._list(self._train_jobs, self._naming.selector)}
        self._delete_orphans(jobs, {secret["metadata"]["name"] for secret in secrets})
        if not secrets:
            return []
        pods = defaultdict[str, list[Any]](list)
        for pod in self._list(f"{self._core}/pods", JOBSET_LABEL):
            pods[pod["metadata"]["labels"][JOBSET_LABEL]].append(pod)
        workloads = {
            owner["uid"]: workload
            for workload in (self._list(f"{self._own_kueue}/workloads", "") if self._naming.queue else ())
            for owner in workload["metadata"].get("ownerReferences", ())
        }
        runs = []
        for secret in secrets:
            name = secret["metadata"]["name"]
            job = jobs.get(name)
            # A Secret with these labels that has no lease is not deleted: another program created it.
            with suppress(json_format.ParseError, KeyError, ValueError):
                lease = read_lease(base64.b64decode(secret["data"][LEASE_KEY]).decode())
                if name_of(lease) != name:
                    continue
                workload = workloads.get(job["metadata"]["uid"]) if job is not None else None
                runs.append(run_of(lease, job, pods[name], workload))
        return runs

    def _delete_orphans(self, jobs: Mapping[str, Any], recorded: Set[str]) -> None:
        """Deletes TrainJobs whose Secret was deleted: their lease is lost and their pods cannot start."""
        for name in jobs.keys() - recorded:
            # Another process of this dispatcher may have created both since the Secrets were listed.
            if "deletionTimestamp" not in jobs[name]["metadata"] and not self._exists(f"{self._core}/secrets/{name}"):
                self._delete(f"{self._train_jobs}/{name}")

    def _read_pools(self) -> Mapping[str, capacity.Pool]:
        """Returns the pools of each GPU type, at most POOL_PASSES passes old."""
        if time.monotonic() >= self._pools_until:
            self._pools = self._list_pools()
            self._pools_until = time.monotonic() + POOL_PASSES * self._settings.dispatcher_poll_seconds
        return self._pools

    def _list_pools(self) -> Mapping[str, capacity.Pool]:
        types = self._settings.dispatcher_gpu_types
        nodes = self._list("/api/v1/nodes", "")
        if not self._naming.queue:
            return capacity.of_nodes(nodes, self._list("/api/v1/pods", ""), types)
        local = self._get(f"{self._own_kueue}/localqueues/{self._naming.queue}")
        queue = self._get(f"{self._kueue}/clusterqueues/{local['spec']['clusterQueue']}")
        flavors = list(self._list(f"{self._kueue}/resourceflavors", ""))
        pools = capacity.of_queue(local, queue, flavors, nodes, types)
        for pool in pools.values():
            # An autoscaler may have no node of the type yet.
            pool.node_size = pool.node_size or self._settings.kubernetes_gpus_per_node
        return pools

    def _list(self, path: str, selector: str) -> Iterator[dict[str, Any]]:
        """Returns all objects of a list, read in pages. Starts again if the list expires between pages."""
        for _ in range(MAX_LIST_ATTEMPTS):
            items, token = list[dict[str, Any]](), ""
            try:
                while True:
                    query = [("limit", str(PAGE_SIZE)), ("labelSelector", selector), ("continue", token)]
                    page = self._request("GET", path, query=[each for each in query if each[1]])
                    items += page.get("items") or []
                    token = page["metadata"].get("continue", "")
                    if not token:
                        return iter(items)
            except ApiError as error:
                if error.status != 410:
                    raise EngineUnavailable(str(error)) from error
        raise EngineUnavailable(f"GET {path}: the list expired {MAX_LIST_ATTEMPTS} times before its end.")

    def _get(self, path: str) -> dict[str, Any]:
        try:
            return self._request("GET", path)
        except ApiError as error:
            raise EngineUnavailable(str(error)) from error

    def _exists(self, path: str) -> bool:
        try:
            self._request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise EngineUnavailable(str(error)) from error
        return True

    def _create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an object and returns it. Returns an existing object of that name: an earlier attempt created it."""
        try:
            return self._request("POST", path, body=body)
        except ApiError as error:
            if error.status != 409:
                raise
        return self._get(f"{path}/{body['metadata']['name']}")

    def _delete(self, path: str) -> None:
        try:
            self._request("DELETE", path, body={"propagationPolicy": "Foreground"})
        except ApiError as error:
            if error.status != 404:
                raise EngineUnavailable(str(error)) from error

    def _request(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = (), body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the body of the response. Raises EngineUnavailable, ApiError."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", **({"Content-Type": kind} if body is not None else {})}
        request = self._client.param_serialize(
            method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            response = self._client.call_api(*request, _request_timeout=CALL_SECONDS)
            text = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, kubernetes.client.ApiException, OSError) as error:
            raise EngineUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status < 300:
            return dict(json.loads(text))
        message = f"{method} {path}: {response.status} {_error_message(text)}"
        if response.status in TRANSIENT or response.status >= 500:
            raise EngineUnavailable(message, _retry_after_seconds(response.headers.get("Retry-After")))
        raise ApiError(response.status, message)


def _error_message(text: bytes) -> str:
    """Returns the message of an error response."""
    try:
        return str(json.loads(text)["message"])[:MAX_QUOTED]
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace")[:MAX_QUOTED]


def _retry_after_seconds(header: str | None) -> float:
    return min(float(header), MAX_PAUSE_SECONDS) if header and header.isdecimal() else 0.0
