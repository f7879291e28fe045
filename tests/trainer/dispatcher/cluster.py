"""A cluster behind the API server: Kueue's admission, the scheduler, and TrainJobs whose pods are processes of this machine.

A pod has torchrun's variables as Kubeflow Trainer's plugin `torch` sets them; the first one's address is this machine's.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.trainer.dispatcher.api_server import ApiServer, Store

REPOSITORY = Path(__file__).parents[3]
GPU_RESOURCE, PRODUCT, FLAVOR = "nvidia.com/gpu", "NVIDIA-A100-SXM4-80GB", "a100"
JOBSET, QUEUE = "jobset.sigs.k8s.io/jobset-name", "kueue.x-k8s.io/queue-name"
TICK_SECONDS = 0.02


class Cluster:
    """Nodes with `gpus` each, and a LocalQueue `training` with as much quota. `environment`: what the runtime sets in pods."""

    def __init__(
        self, folder: Path, *, nodes: int = 1, gpus: int = 2, environment: Mapping[str, str], grace_seconds: float = 20
    ) -> None:
        self.store = Store()
        self.api = ApiServer(self.store)
        self.environment, self.grace_seconds = dict(environment), grace_seconds
        # Time that a deletion takes after its pods are gone, and an image takes to be pulled.
        self.delete_seconds = self.pull_seconds = 0.0
        # While it is set no image can be pulled; and Kueue admits nothing.
        self.pull_error = ""
        self.is_closed = False
        # The processes of each TrainJob's pods, by the number of their node.
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        # Every TrainJob whose pods ever ran: how often they were started, and when, as seconds since 1970; and how often
        # Kueue took them back, after which they may start again.
        self.started: dict[str, int] = {}
        self.preemptions: Counter[str] = Counter()
        self.started_at: dict[str, float] = {}
        self._log = (folder / "pods.log").open("ab")
        self._since: dict[tuple[str, str], float] = {}
        self._endings: dict[str, dict[str, Any]] = {}
        self._stopping = threading.Event()
        self._controller = threading.Thread(target=self._control, name="controller", daemon=True)
        self._make_infrastructure(nodes, gpus)

    def __enter__(self) -> Cluster:
        self.api.start()
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._controller.join()
        with suppress(Exception):
            self.api.stop()
        for process in (process for processes in self.processes.values() for process in processes):
            _signal(process, signal.SIGKILL)
            process.wait()
        self._log.close()

    def jobs(self) -> list[dict[str, Any]]:
        """The TrainJobs that there are."""
        return self.store.all("TrainJob")

    def preempt(self, name: str) -> None:
        """Kueue takes the quota back: the TrainJob is suspended, and not admitted again by itself."""
        self.is_closed = True
        self.preemptions[name] += 1
        self.store.change("TrainJob", name, lambda job: job["spec"].update(suspend=True))

    def kill_pod(self, name: str, node: int = 0, **ending: Any) -> None:
        """Kills a pod's processes. Its status has `ending` then: `reason`, `message`, `disruption`, `terminated`, `code`."""
        self._endings[_pod_name(name, node)] = ending
        _signal(self.processes[name][node], signal.SIGKILL)

    def is_alive(self, name: str) -> bool:
        """Whether a process of the TrainJob's pods runs."""
        return any(process.poll() is None for process in self.processes.get(name, ()))

    def kubeconfig(self, file: Path) -> Path:
        """Writes a configuration for kubectl."""
        file.write_text(
            f"""apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "{self.api.url}"}}}}]
users: [{{name: test, user: {{}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test, namespace: training}}}}]
"""
        )
        return file

    def _make_infrastructure(self, nodes: int, gpus: int) -> None:
        labels = {"nvidia.com/gpu.product": PRODUCT}
        for number in range(nodes):
            self.store.create(
                "Node",
                {
                    "metadata": {"name": f"gpu-node-{number}", "labels": labels},
                    "spec": {},
                    "status": {
                        "allocatable": {GPU_RESOURCE: str(gpus)},
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                },
            )
        self.store.create("ResourceFlavor", {"metadata": {"name": FLAVOR}, "spec": {"nodeLabels": labels}})
        quota = {"name": GPU_RESOURCE, "nominalQuota": str(nodes * gpus)}
        self.store.create(
            "ClusterQueue",
            {
                "metadata": {"name": "all"},
                "spec": {"resourceGroups": [{"flavors": [{"name": FLAVOR, "resources": [quota]}]}]},
            },
        )
        self.store.create("LocalQueue", {"metadata": {"name": "training"}, "spec": {"clusterQueue": "all"}})

    def _control(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            with self.store.lock:
                for job in self.jobs():
                    self._reconcile(job)
                self._reserve()

    def _reconcile(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        if "deletionTimestamp" in job["metadata"]:
            if self._end_pods(name) and self._has_passed(name, "deleted", self.delete_seconds):
                self.store.remove("TrainJob", name)
        elif _is_finished(job):
            # JobSet ends the pods that are left of one that failed.
            self._end_processes(name)
        elif job["spec"]["suspend"]:
            if self._end_pods(name):
                self._admit(job)
        elif name in self.processes:
            self._follow(job)
        else:
            placed = [self._schedule(job, number) for number in range(_nodes(job))]
            if all(placed):
                self._run(job)

    def _admit(self, job: dict[str, Any]) -> None:
        """Lets a TrainJob go once there is quota; else its Workload says why not."""
        name, needed = job["metadata"]["name"], _gpus(job)
        short = needed - (self._quota() - self._taken())
        message = (
            "ClusterQueue all is stopped"
            if self.is_closed
            else f"couldn't assign flavors to pod set node: insufficient unused quota for {GPU_RESOURCE} in flavor {FLAVOR}, "
            f"{short} more needed"
        )
        is_admitted = not self.is_closed and short <= 0
        condition = {"type": "QuotaReserved", "status": str(is_admitted), "message": "" if is_admitted else message}
        owner = {"kind": "TrainJob", "name": name, "uid": job["metadata"]["uid"]}
        if self.store.get("Workload", name) is None:
            self.store.create("Workload", {"metadata": {"name": name, "ownerReferences": [owner]}})
        self.store.change("Workload", name, lambda each: each.update(status={"conditions": [condition]}))
        if is_admitted:
            self.store.change("TrainJob", name, lambda each: each["spec"].update(suspend=False))

    def _schedule(self, job: dict[str, Any], number: int) -> bool:
        """Makes a pod of the TrainJob, and places it on a node that has room. Returns whether it has one."""
        name, resources = job["metadata"]["name"], job["spec"]["trainer"]["resourcesPerNode"]
        pod = self.store.get("Pod", _pod_name(name, number))
        if pod is not None and "nodeName" in pod["spec"]:
            return True
        needed = int(resources["requests"][GPU_RESOURCE])
        nodes = self.store.all("Node")
        free = [node["metadata"]["name"] for node in nodes if _size(node) - self._placed(node) >= needed]
        condition = {"type": "PodScheduled", "status": str(bool(free))}
        if not free:
            condition["message"] = f"0/{len(nodes)} nodes are available: {len(nodes)} Insufficient {GPU_RESOURCE}."
        if pod is None or free:
            self.store.remove("Pod", _pod_name(name, number))
            owner = {"kind": "TrainJob", "name": name, "uid": job["metadata"]["uid"]}
            metadata = {"name": _pod_name(name, number), "labels": {JOBSET: name}, "ownerReferences": [owner]}
            spec = {"containers": [{"name": "node", "resources": resources}]}
            status = {"phase": "Pending", "conditions": [condition]}
            placed = {"nodeName": free[0]} if free else {}
            self.store.create("Pod", {"metadata": metadata, "spec": {**spec, **placed}, "status": status})
        return bool(free)

    def _run(self, job: dict[str, Any]) -> None:
        """Pulls the image and starts the pods' processes."""
        name = job["metadata"]["name"]
        secret = self.store.get("Secret", job["spec"]["trainer"]["env"][0]["valueFrom"]["secretKeyRef"]["name"])
        if self.pull_error:
            self._set_waiting(job, "ImagePullBackOff", self.pull_error)
        elif secret is None:
            self._set_waiting(job, "CreateContainerConfigError", "secret not found")
        elif self._has_passed(name, "pulled", self.pull_seconds):
            self.started[name] = self.started.get(name, 0) + 1
            self.started_at.setdefault(name, time.time())
            lease, port = base64.b64decode(secret["data"]["lease"]).decode(), str(_free_port())
            self.processes[name] = [self._start(job, lease, port, number) for number in range(_nodes(job))]
            running = [{"name": "node", "state": {"running": {}}}]
            self._set_status(job, phase="Running", containerStatuses=running)

    def _start(self, job: dict[str, Any], lease: str, port: str, number: int) -> subprocess.Popen[bytes]:
        trainer = job["spec"]["trainer"]
        torchrun = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(number),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": port,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "trainer"],
            env={**os.environ, **self.environment, **torchrun, "PIPELINE_TRAINER_LEASE": lease},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _follow(self, job: dict[str, Any]) -> None:
        """Sees the pods end: the first that fails, or all of them."""
        name = job["metadata"]["name"]
        codes = [process.poll() for process in self.processes[name]]
        for number, code in enumerate(codes):
            if code is not None:
                self._finish_pod(_pod_name(name, number), code)
        failed = [pod for pod in self._pods(name) if pod["status"]["phase"] == "Failed"]
        if failed or all(code is not None for code in codes):
            condition = {"type": "Complete", "reason": "AllJobsCompleted", "message": "jobset completed successfully"}
            if failed:
                condition = {"type": "Failed", "reason": "FailedJobs", "message": "jobset failed"}
            status = {"conditions": [{**condition, "status": "True"}]}
            self.store.change("TrainJob", name, lambda each: each.update(status=status))

    def _finish_pod(self, pod_name: str, code: int) -> None:
        ending = self._endings.get(pod_name, {})
        code = ending.get("code", code)
        terminated = {"exitCode": code if code >= 0 else 128 - code, **ending.get("terminated", {})}
        status: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "node", "state": {"terminated": terminated}}],
            **{field: ending[field] for field in ("reason", "message") if field in ending},
        }
        if "disruption" in ending:
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": ending["disruption"]}]
        self.store.change("Pod", pod_name, lambda each: each["status"].update(status))

    def _end_processes(self, name: str) -> bool:
        """Sends SIGTERM, and SIGKILL when the time of grace is over. Returns whether nothing is left of them."""
        alive = [process for process in self.processes.get(name, ()) if process.poll() is None]
        if alive and (name, "term") not in self._since:
            for process in alive:
                _signal(process, signal.SIGTERM, whole=False)
        if alive and self._has_passed(name, "term", self.grace_seconds):
            for process in alive:
                _signal(process, signal.SIGKILL)
        return not alive

    def _end_pods(self, name: str) -> bool:
        """Ends the TrainJob's pods. Returns whether nothing is left of them."""
        if not self._end_processes(name):
            return False
        self.processes.pop(name, None)
        for event in ("term", "pulled"):
            self._since.pop((name, event), None)
        for pod in self._pods(name):
            self.store.remove("Pod", pod["metadata"]["name"])
        return True

    def _pods(self, name: str) -> list[dict[str, Any]]:
        return [pod for pod in self.store.all("Pod") if pod["metadata"]["labels"].get(JOBSET) == name]

    def _reserve(self) -> None:
        total = {"name": GPU_RESOURCE, "total": str(self._taken())}
        status = {"flavorsReservation": [{"name": FLAVOR, "resources": [total]}]}
        self.store.change("ClusterQueue", "all", lambda each: each.update(status=status))

    def _quota(self) -> int:
        return sum(_size(node) for node in self.store.all("Node"))

    def _taken(self) -> int:
        """GPUs of TrainJobs that were admitted."""
        return sum(_gpus(job) for job in self.jobs() if not job["spec"]["suspend"] and not _is_finished(job))

    def _placed(self, node: dict[str, Any]) -> int:
        """GPUs of a node that pods have."""
        pods = [pod for pod in self.store.all("Pod") if pod["spec"].get("nodeName") == node["metadata"]["name"]]
        alive = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
        return sum(int(pod["spec"]["containers"][0]["resources"]["requests"][GPU_RESOURCE]) for pod in alive)

    def _has_passed(self, name: str, event: str, seconds: float) -> bool:
        return time.monotonic() - self._since.setdefault((name, event), time.monotonic()) >= seconds

    def _set_waiting(self, job: dict[str, Any], reason: str, message: str) -> None:
        waiting = {"name": "node", "state": {"waiting": {"reason": reason, "message": message}}}
        self._set_status(job, phase="Pending", containerStatuses=[waiting])

    def _set_status(self, job: dict[str, Any], **status: Any) -> None:
        for pod in self._pods(job["metadata"]["name"]):
            self.store.change("Pod", pod["metadata"]["name"], lambda each: each["status"].update(status))


def _pod_name(name: str, node: int) -> str:
    return f"{name}-node-0-{node}"


def _nodes(job: dict[str, Any]) -> int:
    return int(job["spec"]["trainer"]["numNodes"])


def _size(node: dict[str, Any]) -> int:
    return int(node["status"]["allocatable"][GPU_RESOURCE])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _gpus(job: dict[str, Any]) -> int:
    return _nodes(job) * int(job["spec"]["trainer"]["resourcesPerNode"]["requests"][GPU_RESOURCE])


def _is_finished(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, *, whole: bool = True) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number) if whole else os.kill(process.pid, number)
