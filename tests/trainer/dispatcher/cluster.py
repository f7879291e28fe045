"""A cluster behind the API server: Kueue's admission, the scheduler, and TrainJobs whose pods are processes of this machine."""

from __future__ import annotations

import base64
import os
import signal
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
GPU_RESOURCE, PRODUCT, FLAVOR, NODE = "nvidia.com/gpu", "NVIDIA-A100-SXM4-80GB", "a100", "gpu-node"
JOBSET, QUEUE = "jobset.sigs.k8s.io/jobset-name", "kueue.x-k8s.io/queue-name"
TICK_SECONDS = 0.02


class Cluster:
    """One node with GPUs, and a LocalQueue `training` with as much quota. `environment`: what the runtime sets in pods."""

    def __init__(
        self, folder: Path, *, gpus: int = 2, environment: Mapping[str, str], grace_seconds: float = 20
    ) -> None:
        self.store = Store()
        self.api = ApiServer(self.store)
        self.environment, self.grace_seconds = dict(environment), grace_seconds
        # Time that a deletion takes after its pods are gone, and an image takes to be pulled.
        self.delete_seconds = self.pull_seconds = 0.0
        # While it is set no image can be pulled; and Kueue admits nothing.
        self.pull_error = ""
        self.is_closed = False
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Every pod that ever ran, by its TrainJob: how often it was started, and when, as seconds since 1970; and how often
        # Kueue took it back, after which it may start again.
        self.started: dict[str, int] = {}
        self.preemptions: Counter[str] = Counter()
        self.started_at: dict[str, float] = {}
        self._log = (folder / "pods.log").open("ab")
        self._since: dict[tuple[str, str], float] = {}
        self._endings: dict[str, dict[str, Any]] = {}
        self._stopping = threading.Event()
        self._controller = threading.Thread(target=self._control, name="controller", daemon=True)
        self._make_infrastructure(gpus)

    def __enter__(self) -> Cluster:
        self.api.start()
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._controller.join()
        with suppress(Exception):
            self.api.stop()
        for process in self.processes.values():
            if process.poll() is None:
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

    def kill_pod(self, name: str, **ending: Any) -> None:
        """Kills the pod's processes. Its status has `ending` then: `reason`, `message`, `disruption`, `terminated`, `code`."""
        self._endings[name] = ending
        _signal(self.processes[name], signal.SIGKILL)

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

    def _make_infrastructure(self, gpus: int) -> None:
        labels = {"nvidia.com/gpu.product": PRODUCT}
        self.store.create(
            "Node",
            {
                "metadata": {"name": NODE, "labels": labels},
                "spec": {},
                "status": {
                    "allocatable": {GPU_RESOURCE: str(gpus)},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )
        self.store.create("ResourceFlavor", {"metadata": {"name": FLAVOR}, "spec": {"nodeLabels": labels}})
        quota = {"name": GPU_RESOURCE, "nominalQuota": str(gpus)}
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
        pod = self.store.get("Pod", f"{name}-node-0-0")
        if "deletionTimestamp" in job["metadata"]:
            if self._end_pod(name, pod) and self._has_passed(name, "deleted", self.delete_seconds):
                self.store.remove("TrainJob", name)
        elif _is_finished(job):
            return
        elif job["spec"]["suspend"]:
            if self._end_pod(name, pod):
                self._admit(job)
        elif pod is None:
            self._schedule(job)
        else:
            self._run(job, pod)

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

    def _schedule(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        is_free = _gpus(job) <= self._quota() - self._taken(placed=True)
        condition = {"type": "PodScheduled", "status": str(is_free)}
        if not is_free:
            condition["message"] = f"0/1 nodes are available: 1 Insufficient {GPU_RESOURCE}."
        owner = {"kind": "TrainJob", "name": name, "uid": job["metadata"]["uid"]}
        resources = job["spec"]["trainer"]["resourcesPerNode"]
        pod = {
            "metadata": {"name": f"{name}-node-0-0", "labels": {JOBSET: name}, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "node", "resources": resources}]}
            | ({"nodeName": NODE} if is_free else {}),
            "status": {"phase": "Pending", "conditions": [condition]},
        }
        if is_free or self.store.get("Pod", pod["metadata"]["name"]) is None:
            self.store.create("Pod", pod)

    def _run(self, job: dict[str, Any], pod: dict[str, Any]) -> None:
        """Pulls the image, starts the process, and sees it end."""
        name = job["metadata"]["name"]
        if "nodeName" not in pod["spec"]:
            if _gpus(job) <= self._quota() - self._taken(placed=True):
                self.store.remove("Pod", pod["metadata"]["name"])
            return
        process = self.processes.get(name)
        if process is None:
            secret = self.store.get("Secret", job["spec"]["trainer"]["env"][0]["valueFrom"]["secretKeyRef"]["name"])
            if self.pull_error:
                self._set_waiting(pod, "ImagePullBackOff", self.pull_error)
            elif secret is None:
                self._set_waiting(pod, "CreateContainerConfigError", "secret not found")
            elif self._has_passed(name, "pulled", self.pull_seconds):
                self._start(name, secret)
                self._set_status(pod, phase="Running", containerStatuses=[{"name": "node", "state": {"running": {}}}])
        elif process.poll() is not None:
            self._finish(job, pod, process.returncode)

    def _start(self, name: str, secret: dict[str, Any]) -> None:
        lease = base64.b64decode(secret["data"]["lease"]).decode()
        self.started[name] = self.started.get(name, 0) + 1
        self.started_at.setdefault(name, time.time())
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "trainer"],
            env={**os.environ, **self.environment, "PIPELINE_TRAINER_LEASE": lease},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _finish(self, job: dict[str, Any], pod: dict[str, Any], code: int) -> None:
        name = job["metadata"]["name"]
        ending = self._endings.get(name, {})
        code = ending.get("code", code)
        terminated = {"exitCode": code if code >= 0 else 128 - code, **ending.get("terminated", {})}
        status: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "node", "state": {"terminated": terminated}}],
            **{field: ending[field] for field in ("reason", "message") if field in ending},
        }
        if "disruption" in ending:
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": ending["disruption"]}]
        self._set_status(pod, **status)
        kind = "Complete" if code == 0 else "Failed"
        condition = {"type": kind, "status": "True", "reason": "FailedJobs" if code else "AllJobsCompleted"}
        condition["message"] = "jobset failed" if code else "jobset completed successfully"
        self.store.change("TrainJob", name, lambda each: each.update(status={"conditions": [condition]}))

    def _end_pod(self, name: str, pod: dict[str, Any] | None) -> bool:
        """Sends SIGTERM, and SIGKILL when the time of grace is over. Returns whether nothing of the pod is left."""
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            if (name, "term") not in self._since:
                _signal(process, signal.SIGTERM, whole=False)
            if self._has_passed(name, "term", self.grace_seconds):
                _signal(process, signal.SIGKILL)
            return False
        self.processes.pop(name, None)
        for event in ("term", "pulled"):
            self._since.pop((name, event), None)
        if pod is not None:
            self.store.remove("Pod", pod["metadata"]["name"])
        return True

    def _reserve(self) -> None:
        total = {"name": GPU_RESOURCE, "total": str(self._taken())}
        status = {"flavorsReservation": [{"name": FLAVOR, "resources": [total]}]}
        self.store.change("ClusterQueue", "all", lambda each: each.update(status=status))

    def _quota(self) -> int:
        node = self.store.get("Node", NODE)
        assert node is not None
        return int(node["status"]["allocatable"][GPU_RESOURCE])

    def _taken(self, *, placed: bool = False) -> int:
        """GPUs of TrainJobs that were admitted, or of pods that have a node."""
        if placed:
            pods = [pod for pod in self.store.all("Pod") if "nodeName" in pod["spec"]]
            alive = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
            return sum(int(pod["spec"]["containers"][0]["resources"]["requests"][GPU_RESOURCE]) for pod in alive)
        return sum(_gpus(job) for job in self.jobs() if not job["spec"]["suspend"] and not _is_finished(job))

    def _has_passed(self, name: str, event: str, seconds: float) -> bool:
        return time.monotonic() - self._since.setdefault((name, event), time.monotonic()) >= seconds

    def _set_waiting(self, pod: dict[str, Any], reason: str, message: str) -> None:
        waiting = {"name": "node", "state": {"waiting": {"reason": reason, "message": message}}}
        self._set_status(pod, phase="Pending", containerStatuses=[waiting])

    def _set_status(self, pod: dict[str, Any], **status: Any) -> None:
        self.store.change("Pod", pod["metadata"]["name"], lambda each: each["status"].update(status))


def _gpus(job: dict[str, Any]) -> int:
    trainer = job["spec"]["trainer"]
    return int(trainer["numNodes"]) * int(trainer["resourcesPerNode"]["requests"][GPU_RESOURCE])


def _is_finished(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, *, whole: bool = True) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number) if whole else os.kill(process.pid, number)
