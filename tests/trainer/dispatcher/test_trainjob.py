"""Pure functions: TrainJobs, runs and free GPUs from a cluster's objects."""

from __future__ import annotations

import os
from typing import Any

import pytest
from google.protobuf import json_format
from pipeline.workers.v1 import workers_pb2

from tests.deploy.custom_resources import problems
from trainer.dispatcher.capacity import Pool, of_nodes, of_queue, product_type
from trainer.dispatcher.engine import Phase, name_of, read_lease, write_lease
from trainer.dispatcher.trainjob import Naming, run_of, train_job

GPU = "nvidia.com/gpu"
LEASE = workers_pb2.Lease(
    job_id="0d4f1d5e-6a1c-4a6f-9f0e-2f4a35b0c001",
    lease_token="aaaaaaaa-0000-4000-8000-000000000001",
    lease_epoch=12,
    attempt=2,
    gpu_config={"type": "A100-80GB", "count": 4},
)
POOL = Pool(
    GPU,
    {
        "nvidia.com/gpu.product": {"NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"},
        "cloud.google.com/gke-accelerator": {"nvidia-a100-80gb"},
    },
    [8],
    8,
)


def node(
    name: str, product: str, gpus: int, *, ready: str = "True", label: str = "nvidia.com/gpu.product", **spec: Any
) -> dict[str, Any]:
    """A node with GPUs."""
    status = {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name, "labels": {label: product}}, "spec": spec, "status": status}


def pod(node_name: str | None, gpus: int, phase: str = "Running") -> dict[str, Any]:
    """A pod that requests GPUs."""
    container = {"name": "c", "resources": {"limits": {GPU: str(gpus)}}}
    spec = {"containers": [container], **({"nodeName": node_name} if node_name else {})}
    return {"metadata": {"name": "pod"}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("product", "gpu_type"),
    [
        ("NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA-H100-80GB-HBM3", "H100"),
        ("nvidia-h100-80gb", "H100"),
        ("NVIDIA-GeForce-RTX-4090", "RTX-4090"),
        ("NVIDIA-L4", "L4"),
        ("NVIDIA-L40S", "L40S"),
        ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ("spot", "H200"),
        # A share of a GPU is none of the catalogue's.
        ("NVIDIA-A100-SXM4-80GB-SHARED", None),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", None),
        ("NVIDIA-GeForce-RTX-4090-Laptop-GPU", None),
        ("NVIDIA-GH200-480GB", None),
        ("NVIDIA-T4", None),
    ],
)
def test_products_are_the_catalogues_types(product: str, gpu_type: str | None) -> None:
    """Labels of NVIDIA, AMD and GKE name the catalogue's types; the operator's own names come first."""
    assert product_type(product, {"spot": "H200"}) == gpu_type


def test_the_free_gpus_of_nodes_are_those_without_pods() -> None:
    """Pods that ended use no GPUs, and unschedulable nodes offer none."""
    nodes = [
        node("a", "NVIDIA-A100-SXM4-80GB", 8),
        node("b", "NVIDIA-A100-80GB-PCIe", 4),
        node("c", "NVIDIA-A100-SXM4-80GB", 8, unschedulable=True),
        node("d", "NVIDIA-H100-80GB-HBM3", 8, ready="False"),
        node("e", "NVIDIA-L4", 2),
        node("f", "nvidia-a100-80gb", 2, label="cloud.google.com/gke-accelerator"),
    ]
    pods = [pod("a", 5), pod("a", 8, "Succeeded"), pod(None, 8), pod("e", 2)]
    pools = of_nodes(nodes, pods, {})
    assert {gpu_type: (pool.free, pool.node_size) for gpu_type, pool in pools.items()} == {
        "A100-80GB": ([3, 4, 2], 8),
        "L4": ([0], 2),
    }
    assert pools["A100-80GB"].products == POOL.products


QUEUE = {"metadata": {"name": "training"}, "spec": {"clusterQueue": "all"}}
FLAVORS = [
    {"metadata": {"name": "a100"}, "spec": {"nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}}},
    {"metadata": {"name": "h100"}, "spec": {"nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}},
    {"metadata": {"name": "l4"}},
    {"metadata": {"name": "cpu"}},
]


def cluster_queue(**spec: Any) -> dict[str, Any]:
    """A ClusterQueue with quota for two types of GPUs."""
    flavors = [
        {"name": name, "resources": [{"name": GPU, "nominalQuota": quota}, {"name": "cpu", "nominalQuota": "10"}]}
        for name, quota in (("a100", "8"), ("h100", 4), ("l4", 2), ("cpu", "0"))
    ]
    others = [{"name": "cpu", "total": "500m"}, {"name": "memory", "total": "32Gi"}]
    reserved = [{"name": "a100", "resources": [{"name": GPU, "total": "6", "borrowed": "0"}, *others]}]
    return {"spec": {"resourceGroups": [{"flavors": flavors}], **spec}, "status": {"flavorsReservation": reserved}}


def test_the_free_quota_of_a_queue_is_by_flavor() -> None:
    """Quota less reservations, by the type that a flavor's labels name, whatever its own name is; a stopped queue has none."""
    nodes = [node("a", "NVIDIA-A100-SXM4-80GB", 4, unschedulable=True), node("b", "NVIDIA-L4", 8)]
    pools = of_queue(QUEUE, cluster_queue(), FLAVORS, nodes, {})
    assert {gpu_type: (pool.free, pool.node_size) for gpu_type, pool in pools.items()} == {
        "A100-80GB": ([2], 4),
        "H100": ([4], 0),
    }
    assert of_queue(QUEUE, cluster_queue(stopPolicy="Hold"), FLAVORS, [], {}) == {}
    stopped = {**QUEUE, "spec": {"clusterQueue": "all", "stopPolicy": "HoldAndDrain"}}
    assert of_queue(stopped, cluster_queue(), [], [], {}) == {}


@pytest.mark.parametrize(
    ("free", "node_size", "largest"),
    [
        ([8], 8, 8),
        ([3, 4, 2], 8, 4),
        # 5 and 7 GPUs are on as many nodes, 6 on two; for 8 on two there is no room.
        ([4, 3], 4, 7),
        ([4, 4], 4, 8),
        ([1] * 12, 1, 8),
        ([0], 4, 0),
        ([], 0, 0),
    ],
)
def test_the_largest_job_has_room_whole(free: list[int], node_size: int, largest: int) -> None:
    """The largest offered job, and every smaller one, fits on the fewest nodes that it fills evenly."""
    assert Pool(GPU, {}, free, node_size).largest_job(8) == largest


@pytest.mark.parametrize(
    ("count", "node_size", "layout"), [(8, 8, (1, 8)), (8, 4, (2, 4)), (6, 4, (2, 3)), (5, 4, (5, 1)), (2, 1, (2, 1))]
)
def test_a_job_has_the_fewest_nodes(count: int, node_size: int, layout: tuple[int, int]) -> None:
    """A TrainJob has the fewest nodes, with the same number of GPUs each."""
    lease = workers_pb2.Lease(job_id=LEASE.job_id, gpu_config={"type": "A100-80GB", "count": count})
    trainer = train_job(lease, Naming("pipeline", "pipeline-trainer", ""), Pool(GPU, {}, [8], node_size))["spec"][
        "trainer"
    ]
    assert (trainer["numNodes"], int(trainer["resourcesPerNode"]["limits"][GPU])) == layout
    assert trainer["numProcPerNode"] == layout[1]


@pytest.mark.parametrize("queue", ["", "training"])
def test_a_train_job_follows_kubeflow_trainers_schema(queue: str) -> None:
    """The TrainJob has no field that the CRD lacks, GPUs on nodes of the type, and a name that leaves room for its pods'."""
    job = train_job(LEASE, Naming("pipeline", "pipeline-trainer", queue), POOL)
    assert problems(job) == []
    # JobSet adds `-node-0-0` and five letters of its own; a DNS label has 63.
    assert len(job["metadata"]["name"]) + len("-node-0-0-abcde") <= 63
    assert job["spec"]["suspend"] is bool(queue)
    assert LEASE.lease_token not in str(job)
    (patch,) = job["spec"]["runtimePatches"]
    (node_job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    affinity = node_job["template"]["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    expressions = [each for term in terms for each in term["matchExpressions"]]
    assert {each["key"]: set(each["values"]) for each in expressions} == POOL.products
    assert len(terms) == len(POOL.products)


def test_a_train_job_with_an_unknown_field_is_refused() -> None:
    """The schema check refuses a TrainJob with an unknown field."""
    job = train_job(LEASE, Naming("pipeline", "pipeline-trainer", ""), POOL)
    job["spec"]["trainer"]["numberOfNodes"] = 1
    assert problems(job) != []


def test_a_lease_is_read_as_it_was_written() -> None:
    """The pod reads the lease as it was written; unknown fields are ignored."""
    assert read_lease(write_lease(LEASE)) == LEASE
    assert read_lease(write_lease(LEASE).replace("{", '{"later": 1, ', 1)) == LEASE


@pytest.mark.parametrize("field", ["job_id", "lease_token"])
def test_a_lease_without_ids_is_refused(field: str) -> None:
    """A lease with invalid ids is refused when it is read, so that a broken record does not end the dispatcher."""
    lease = workers_pb2.Lease()
    lease.CopyFrom(LEASE)
    setattr(lease, field, "x")
    with pytest.raises(json_format.ParseError):
        read_lease(write_lease(lease))


def test_an_expanded_lease_shows_no_variable_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's expansion of variables (`os.path.expandvars`) does not change names that users chose."""
    monkeypatch.setenv("NODE_SECRET", "s3cret")
    lease = workers_pb2.Lease(dataset={"name": "$NODE_SECRET ${NODE_SECRET} ${UNSET}"})
    lease.MergeFrom(LEASE)
    assert read_lease(os.path.expandvars(write_lease(lease))) == lease


def job(status: dict[str, Any] | None = None, *, suspend: bool = False, **metadata: Any) -> dict[str, Any]:
    """A TrainJob as the API server has it."""
    spec = {"suspend": suspend, "trainer": {"numNodes": 1}}
    return {"metadata": {"name": name_of(LEASE), "uid": "1", **metadata}, "spec": spec, "status": status or {}}


def condition(kind: str, status: str = "True", **fields: str) -> dict[str, Any]:
    """A status with one condition."""
    return {"conditions": [{"type": kind, "status": status, **fields}]}


PLACED = {"metadata": {"name": "p"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}}
UNPLACED = {
    "metadata": {"name": "p"},
    "spec": {},
    "status": {"phase": "Pending", **condition("PodScheduled", "False", message="0/3 nodes are available")},
}
PULLING = {
    **PLACED,
    "status": {
        "phase": "Pending",
        "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}],
    },
}
FAILED = condition("Failed", reason="FailedJobs", message="jobset failed")


def failed(**status: Any) -> dict[str, Any]:
    """A pod that failed."""
    return {"metadata": {"name": "p"}, "spec": {"nodeName": "a"}, "status": {"phase": "Failed", **status}}


def terminated(**state: Any) -> dict[str, Any]:
    """A pod whose container ended."""
    return failed(containerStatuses=[{"state": {"terminated": state}}])


WORKLOAD = {"status": condition("QuotaReserved", "False", message="insufficient unused quota")}
CASES: list[tuple[str, dict[str, Any] | None, list[dict[str, Any]], Phase, str]] = [
    ("recorded", None, [], Phase.RECORDED, "Waiting"),
    ("in Kueue", job(suspend=True), [], Phase.SUSPENDED, "insufficient unused quota"),
    ("being suspended", job(suspend=True), [PLACED], Phase.STOPPING, ""),
    ("not scheduled", job(), [UNPLACED], Phase.WAITING, "0/3 nodes are available"),
    ("without pods", job(), [], Phase.WAITING, "Waiting"),
    ("pulling", job(), [PULLING], Phase.PLACED, "ErrImagePull: not found"),
    ("running", job(), [PLACED], Phase.PLACED, ""),
    ("complete", job(condition("Complete")), [], Phase.SUCCEEDED, ""),
    ("deleted", job(deletionTimestamp="now"), [], Phase.PREEMPTED, "deleted"),
    ("being deleted", job(deletionTimestamp="now"), [PLACED], Phase.STOPPING, "deleted"),
    ("preempted", job(FAILED), [failed(**condition("DisruptionTarget", reason="PreemptionByScheduler"))], Phase.PREEMPTED, ""),
    ("drained", job(FAILED), [failed(**condition("DisruptionTarget", reason="EvictionByEvictionAPI"))], Phase.PREEMPTED, ""),
    ("lost", job(FAILED), [failed(**condition("DisruptionTarget", reason="DeletionByPodGC"))], Phase.FAILED, "node was lost"),
    ("lost long ago", job(FAILED), [failed(reason="NodeLost")], Phase.FAILED, "node was lost"),
    ("evicted", job(FAILED), [failed(reason="Evicted", message="low on memory")], Phase.FAILED, "evicted. low on memory"),
    ("crashed", job(FAILED), [terminated(exitCode=1, message="Traceback")], Phase.FAILED, "exit code 1. Traceback"),
    ("of two, lost", job(FAILED), [terminated(exitCode=1), failed(reason="NodeLost")], Phase.FAILED, "node was lost"),
    ("without a pod", job(FAILED), [], Phase.FAILED, "(FailedJobs). jobset failed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "resource", "pods", "phase", "words"), CASES, ids=[case[0] for case in CASES])
def test_the_state_of_objects_is_one_phase(
    name: str, resource: dict[str, Any] | None, pods: list[dict[str, Any]], phase: Phase, words: str
) -> None:
    """TrainJob, pods and Workload give one phase and a reason for the job's owner."""
    run = run_of(LEASE, resource, pods, WORKLOAD)
    assert (run.phase, words in run.reason, run.retryable) == (phase, True, True), run


@pytest.mark.parametrize(
    ("resource", "pods"),
    [
        (job(FAILED), [terminated(exitCode=137, reason="OOMKilled")]),
        (job(condition("Failed", reason="DeadlineExceeded")), []),
        (job(condition("Failed", reason="TrainingRuntimeNotSupported")), []),
    ],
    ids=["memory", "deadline", "runtime"],
)
def test_what_would_fail_again_is_not_tried_again(resource: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    """Running out of memory, deadlines and a missing runtime end a job at once."""
    run = run_of(LEASE, resource, pods, None)
    assert (run.phase, run.retryable) == (Phase.FAILED, False)
