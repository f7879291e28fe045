"""TrainJobs of Kubeflow Trainer: made from leases, and read back as runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.workers.v1 import workers_pb2

from trainer.dispatcher.capacity import Pool
from trainer.dispatcher.engine import Phase, Run, name_of
from trainer.settings import LEASE_VARIABLE

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
# Labels of all objects of a dispatcher. The second one has its name.
MANAGED_BY, DISPATCHER = "app.kubernetes.io/managed-by", "pipeline.dispatcher/name"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# The Secret's only key; the runtime's replicated job in which training runs.
LEASE_KEY, NODE_JOB = "lease", "node"
PENDING_REASON = "Waiting for the cluster."
# Reasons of a pod's condition DisruptionTarget: preemption or a drained node, and a lost node.
PREEMPTED = frozenset({"PreemptionByScheduler", "EvictionByEvictionAPI", "TerminationByKubelet"})
LOST_NODE = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})


@dataclass(frozen=True)
class Naming:
    """Names that TrainJobs of one dispatcher share. `queue`: Kueue's LocalQueue; empty: without Kueue."""

    dispatcher: str
    runtime: str
    queue: str

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all its objects."""
        return {MANAGED_BY: "pipeline-dispatcher", DISPATCHER: self.dispatcher}

    @property
    def selector(self) -> str:
        """Label selector of its objects."""
        return ",".join(f"{name}={value}" for name, value in self.labels.items())


def train_job(lease: workers_pb2.Lease, naming: Naming, pool: Pool) -> dict[str, Any]:
    """Returns the TrainJob of a lease, for nodes with the GPU type."""
    layout = pool.layout(lease.gpu_config.count)
    # A node has to meet one of the terms.
    terms = [
        {"matchExpressions": [{"key": label, "operator": "In", "values": sorted(products)}]}
        for label, products in pool.products.items()
    ]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    pod = {"spec": {"affinity": affinity}}
    patch = {"name": NODE_JOB, "template": {"spec": {"template": pod}}}
    secret = {"name": LEASE_VARIABLE, "valueFrom": {"secretKeyRef": {"name": name_of(lease), "key": LEASE_KEY}}}
    gpus = {pool.resource: str(layout.gpus_per_node)}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name_of(lease),
            "labels": {**naming.labels, **({QUEUE_LABEL: naming.queue} if naming.queue else {})},
            "annotations": {"pipeline.dispatcher/job": lease.job_id, "pipeline.dispatcher/attempt": str(lease.attempt)},
        },
        "spec": {
            "runtimeRef": {"name": naming.runtime},
            # Kueue resumes it; without Kueue it starts at once.
            "suspend": bool(naming.queue),
            "trainer": {
                "numNodes": layout.nodes,
                "numProcPerNode": layout.gpus_per_node,
                "resourcesPerNode": {"requests": gpus, "limits": gpus},
                "env": [secret],
            },
            "runtimePatches": [
                {
                    "manager": "pipeline.dispatcher/placement",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
                }
            ],
        },
    }


def secret_of(lease: workers_pb2.Lease, naming: Naming, text: str) -> dict[str, Any]:
    """Returns the Secret of a lease. `text`: the lease with its token, as JSON."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name_of(lease), "labels": naming.labels},
        "stringData": {LEASE_KEY: text},
    }


def owner_patch(job: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a patch that makes a TrainJob the owner of a Secret: they are deleted together."""
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    return {"metadata": {"ownerReferences": [owner]}}


def run_of(
    lease: workers_pb2.Lease,
    job: Mapping[str, Any] | None,
    pods: Sequence[Mapping[str, Any]],
    workload: Mapping[str, Any] | None,
) -> Run:
    """Returns the run of a lease, from its TrainJob, the TrainJob's pods, and Kueue's Workload."""
    name = name_of(lease)
    if job is None:
        return Run(name, lease, Phase.RECORDED, PENDING_REASON)
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    conditions = _true_conditions(job)
    if "Complete" in conditions:
        return Run(name, lease, Phase.SUCCEEDED)
    if "Failed" in conditions:
        return _failed(name, lease, pods, conditions["Failed"])
    if "deletionTimestamp" in job["metadata"]:
        return Run(name, lease, Phase.STOPPING if alive else Phase.PREEMPTED, "Its TrainJob was deleted.")
    if job["spec"].get("suspend"):
        return Run(name, lease, Phase.STOPPING if alive else Phase.SUSPENDED, _queue_reason(workload))
    placed = [pod for pod in pods if pod.get("spec", {}).get("nodeName")]
    if len(placed) >= max(len(pods), job["spec"]["trainer"]["numNodes"]):
        return Run(name, lease, Phase.PLACED, _container_reason(placed))
    return Run(name, lease, Phase.WAITING, _scheduling_reason(pods))


def _true_conditions(resource: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    conditions = resource.get("status", {}).get("conditions", ())
    return {each["type"]: each for each in conditions if each["status"] == "True"}


def _failed(
    name: str, lease: workers_pb2.Lease, pods: Sequence[Mapping[str, Any]], condition: Mapping[str, Any]
) -> Run:
    """Returns a failed run. The reason of a pod that the cluster ended comes first: the other pods crash because of it."""
    failed, pods = Run(name, lease, Phase.FAILED), sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
    for classify in (_ended_by_cluster, _crashed):
        for pod in pods:
            run = classify(failed, pod)
            if run is not None:
                return run
    reason = condition.get("reason", "")
    text = f"The TrainJob failed ({reason}). {condition.get('message', '')}".strip()
    return Run(
        name, lease, Phase.FAILED, text, retryable=reason not in ("DeadlineExceeded", "TrainingRuntimeNotSupported")
    )


def _ended_by_cluster(failed: Run, pod: Mapping[str, Any]) -> Run | None:
    """Returns the run if the cluster ended the pod, with the reason; else None."""
    disruption = _true_conditions(pod).get("DisruptionTarget", {}).get("reason", "")
    status, message = pod.get("status", {}), pod.get("status", {}).get("message", "")
    if status.get("reason") == "Evicted":
        return replace(failed, reason=f"Its pod was evicted. {message}".strip())
    if disruption in PREEMPTED:
        return replace(failed, phase=Phase.PREEMPTED, reason=f"Its pod was preempted ({disruption}).")
    if disruption in LOST_NODE or status.get("reason") == "NodeLost":
        return replace(failed, reason=f"Its node was lost ({disruption or 'NodeLost'}). {message}".strip())
    if any(state.get("reason") == "OOMKilled" for state in _terminated(pod)):
        reason = "The pod ran out of memory (OOMKilled): its limit is in the ClusterTrainingRuntime."
        return replace(failed, reason=reason, retryable=False)
    return None


def _crashed(failed: Run, pod: Mapping[str, Any]) -> Run | None:
    """Returns the run if the pod's process failed, with the exit code; else None."""
    for state in _terminated(pod):
        if state.get("exitCode"):
            text = f"The pod ended with exit code {state['exitCode']}. {state.get('message', '')}"
            return replace(failed, reason=text.strip())
    return None


def _terminated(pod: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the `terminated` states of a pod's containers."""
    states = [container.get("state", {}) for container in pod.get("status", {}).get("containerStatuses", ())]
    return [state["terminated"] for state in states if state.get("terminated")]


def _queue_reason(workload: Mapping[str, Any] | None) -> str:
    """Returns Kueue's reason for not admitting a Workload."""
    for condition in (workload or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "QuotaReserved" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or PENDING_REASON)
    checks = [each.get("message") for each in (workload or {}).get("status", {}).get("admissionChecks", ())]
    return next((str(message) for message in checks if message), "Waiting for Kueue.")


def _scheduling_reason(pods: Sequence[Mapping[str, Any]]) -> str:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return str(condition.get("message") or condition.get("reason") or PENDING_REASON)
    return PENDING_REASON


def _container_reason(pods: Sequence[Mapping[str, Any]]) -> str:
    """Returns why a placed pod does not run yet."""
    for pod in pods:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                return f"{waiting.get('reason', 'Starting')}: {waiting.get('message', '')}".rstrip(": ")
    return "Starting."
