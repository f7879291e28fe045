"""Free GPUs of a Kubernetes cluster by the catalogue's types, from its own objects as JSON: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.supervisor.gpus import type_of

# Resources that GPUs are requested as.
RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")
# Labels of nodes and of Kueue's flavors that name the GPU: of the vendors' feature discovery, and of GKE.
PRODUCT_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
# Products that are shares of a GPU, which the catalogue does not have.
SHARES = ("SHARED", "MIG")
FINISHED_PODS = ("Succeeded", "Failed")


@dataclass
class Pool:
    """GPUs of one type: the resource they are requested as, and the values of each label that names them."""

    resource: str
    products: dict[str, set[str]] = field(default_factory=dict)
    free: int = 0


def product_type(product: str, types: Mapping[str, str]) -> str | None:
    """The catalogue's type of a product label; `types` are the operator's own names. None: it is not offered."""
    if product in types:
        return types[product]
    name = product.replace("-", " ").replace("_", " ")
    return None if any(word in name.split() for word in SHARES) else type_of(name)


def of_nodes(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], types: Mapping[str, str]
) -> dict[str, Pool]:
    """Pools of the nodes that take pods. Free is what one job may have: what one node has free."""
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in pods:
        if pod.get("status", {}).get("phase") not in FINISHED_PODS and (node_name := pod["spec"].get("nodeName")):
            used[node_name] += _requests(pod["spec"])
    pools = dict[str, Pool]()
    for node in nodes:
        metadata, status = node["metadata"], node.get("status", {})
        is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
        if not is_ready or node.get("spec", {}).get("unschedulable"):
            continue
        for resource in RESOURCES:
            size = int(status.get("allocatable", {}).get(resource, 0))
            pool = _pool(pools, metadata.get("labels", {}), resource, types) if size else None
            if pool is not None:
                pool.free = max(pool.free, size - used[metadata["name"]][resource])
    return pools


def of_queue(
    local_queue: Mapping[str, Any],
    cluster_queue: Mapping[str, Any],
    flavors: Sequence[Mapping[str, Any]],
    types: Mapping[str, str],
) -> dict[str, Pool]:
    """Pools of a Kueue LocalQueue: its ClusterQueue's own quota, less what is reserved. What it might borrow is not counted.

    A flavor without a label that names its GPU is left out: no pod could ask for that GPU.
    """
    if any(queue["spec"].get("stopPolicy", "None") != "None" for queue in (local_queue, cluster_queue)):
        return {}
    labels = {each["metadata"]["name"]: each.get("spec", {}).get("nodeLabels", {}) for each in flavors}
    reserved = {
        (flavor["name"], resource["name"]): int(resource.get("total", 0))
        for flavor in cluster_queue.get("status", {}).get("flavorsReservation", ())
        for resource in flavor.get("resources", ())
        if resource["name"] in RESOURCES  # amounts of others are no whole numbers: 500m, 32Gi
    }
    pools = dict[str, Pool]()
    for group in cluster_queue["spec"].get("resourceGroups", ()):
        for flavor in group["flavors"]:
            for quota in flavor["resources"]:
                of_flavor = labels.get(flavor["name"], {})
                pool = _pool(pools, of_flavor, quota["name"], types) if quota["name"] in RESOURCES else None
                if pool is not None:
                    free = int(quota["nominalQuota"]) - reserved.get((flavor["name"], quota["name"]), 0)
                    pool.free += max(0, free)
    return pools


def _pool(pools: dict[str, Pool], labels: Mapping[str, str], resource: str, types: Mapping[str, str]) -> Pool | None:
    for label in PRODUCT_LABELS:
        if label in labels and (gpu_type := product_type(labels[label], types)):
            pool = pools.setdefault(gpu_type, Pool(resource))
            pool.products.setdefault(label, set()).add(labels[label])
            return pool
    return None


def _requests(spec: Mapping[str, Any]) -> Counter[str]:
    """GPUs that a pod's containers request. Init containers run before them, and request no more."""
    counts = Counter[str]()
    for container in spec.get("containers", ()):
        resources = container.get("resources", {})
        for resource in RESOURCES:
            requested = resources.get("requests", {}).get(resource) or resources.get("limits", {}).get(resource, 0)
            counts[resource] += int(requested)
    return counts
