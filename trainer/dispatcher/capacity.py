"""Free GPUs of a Kubernetes cluster by the catalogue's types, from the cluster's objects as JSON. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainer.supervisor.gpus import type_of

# Names of GPUs as Kubernetes resources.
RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")
# Labels of nodes and Kueue's flavors that name the GPU: those of the vendors' feature discovery and of GKE.
PRODUCT_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
# Words in the product names of GPUs that pods share (time-slicing, MIG). The catalogue has no such types.
SHARED_PRODUCTS = ("SHARED", "MIG")
FINISHED_PODS = ("Succeeded", "Failed")


class Layout(NamedTuple):
    """How a job's GPUs are spread over nodes."""

    nodes: int
    gpus_per_node: int


@dataclass
class Pool:
    """GPUs of one type: their resource name, and the values of each label that names them.

    `free`: free GPUs of each node, or of each Kueue flavor. `node_size`: GPUs of the largest node; 0 without nodes.
    """

    resource: str
    products: dict[str, set[str]] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    node_size: int = 0

    def layout(self, count: int) -> Layout:
        """Returns the layout with the fewest nodes, for a job with `count` GPUs."""
        nodes = next(n for n in range(1, count + 1) if count % n == 0 and count // n <= max(1, self.node_size))
        return Layout(nodes, count // nodes)

    def largest_job(self, max_nodes: int) -> int:
        """Returns the most GPUs of a job that can be placed now, if every smaller job can be, too."""
        count = 0
        while self._fits(count + 1, max_nodes):
            count += 1
        return count

    def _fits(self, count: int, max_nodes: int) -> bool:
        nodes, gpus = self.layout(count)
        return nodes <= min(max_nodes, sum(free // gpus for free in self.free))


def product_type(product: str, types: Mapping[str, str]) -> str | None:
    """Returns the catalogue's type of a product label. `types`: the operator's own names. None: it has none."""
    if product in types:
        return types[product]
    name = product.replace("-", " ").replace("_", " ")
    return None if any(word in name.split() for word in SHARED_PRODUCTS) else type_of(name)


def of_nodes(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], types: Mapping[str, str]
) -> dict[str, Pool]:
    """Returns the pools of ready nodes that are schedulable, by GPU type."""
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in pods:
        if pod.get("status", {}).get("phase") not in FINISHED_PODS and (node_name := pod["spec"].get("nodeName")):
            used[node_name] += _requests(pod["spec"])
    pools = dict[str, Pool]()
    for node in nodes:
        if not _is_schedulable(node):
            continue
        for resource in RESOURCES:
            size = _gpu_count(node, resource)
            pool = _pool(pools, _labels(node), resource, types) if size else None
            if pool is not None:
                pool.free.append(max(0, size - used[node["metadata"]["name"]][resource]))
                pool.node_size = max(pool.node_size, size)
    return pools


def of_queue(
    local_queue: Mapping[str, Any],
    cluster_queue: Mapping[str, Any],
    flavors: Sequence[Mapping[str, Any]],
    nodes: Iterable[Mapping[str, Any]],
    types: Mapping[str, str],
) -> dict[str, Pool]:
    """Returns the pools of a Kueue LocalQueue: its ClusterQueue's own quota less reservations, without what it may borrow.

    A flavor without a label that names its GPU is left out: no pod could select that GPU. `nodes` give the size of a node.
    """
    if any(queue["spec"].get("stopPolicy", "None") != "None" for queue in (local_queue, cluster_queue)):
        return {}
    labels = {each["metadata"]["name"]: each.get("spec", {}).get("nodeLabels", {}) for each in flavors}
    reserved = {
        (flavor["name"], resource["name"]): int(resource.get("total", 0))
        for flavor in cluster_queue.get("status", {}).get("flavorsReservation", ())
        for resource in flavor.get("resources", ())
        if resource["name"] in RESOURCES  # amounts of others are not integers: 500m, 32Gi
    }
    pools = dict[str, Pool]()
    for group in cluster_queue["spec"].get("resourceGroups", ()):
        for flavor in group["flavors"]:
            for quota in flavor["resources"]:
                of_flavor = labels.get(flavor["name"], {})
                pool = _pool(pools, of_flavor, quota["name"], types) if quota["name"] in RESOURCES else None
                if pool is not None:
                    free = int(quota["nominalQuota"]) - reserved.get((flavor["name"], quota["name"]), 0)
                    pool.free.append(max(0, free))
    for node in nodes:
        for pool in pools.values():
            if any(_labels(node).get(label) in products for label, products in pool.products.items()):
                pool.node_size = max(pool.node_size, _gpu_count(node, pool.resource))
    return pools


def _is_schedulable(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and not node.get("spec", {}).get("unschedulable")


def _labels(node: Mapping[str, Any]) -> Mapping[str, str]:
    return dict(node["metadata"].get("labels") or {})


def _gpu_count(node: Mapping[str, Any], resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def _pool(pools: dict[str, Pool], labels: Mapping[str, str], resource: str, types: Mapping[str, str]) -> Pool | None:
    for label in PRODUCT_LABELS:
        if label in labels and (gpu_type := product_type(labels[label], types)):
            pool = pools.setdefault(gpu_type, Pool(resource))
            pool.products.setdefault(label, set()).add(labels[label])
            return pool
    return None


def _requests(spec: Mapping[str, Any]) -> Counter[str]:
    """Returns the GPUs that a pod's containers request. Init containers run before them and do not add to it."""
    counts = Counter[str]()
    for container in spec.get("containers", ()):
        resources = container.get("resources", {})
        for resource in RESOURCES:
            requested = resources.get("requests", {}).get(resource) or resources.get("limits", {}).get(resource, 0)
            counts[resource] += int(requested)
    return counts
