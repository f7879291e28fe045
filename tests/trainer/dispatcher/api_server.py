"""A Kubernetes API server with the habits that a client must live with. What is behind it, is in cluster.py.

It has optimistic locking, names that are taken (409), lists in pages that expire (410), deletion with finalizers and owners,
validation against the CRD's schema (422), throttling (429), and answers that never arrive though the request was done.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.deploy.custom_resources import problems

NAMESPACE = "training"
FOREGROUND = "foregroundDeletion"
# Collections by their path, with the kind of what is in them.
KINDS = {
    f"/api/v1/namespaces/{NAMESPACE}/secrets": "Secret",
    f"/api/v1/namespaces/{NAMESPACE}/pods": "Pod",
    "/api/v1/pods": "Pod",
    "/api/v1/nodes": "Node",
    f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs": "TrainJob",
    f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads": "Workload",
    f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues": "LocalQueue",
    "/apis/kueue.x-k8s.io/v1beta2/clusterqueues": "ClusterQueue",
    "/apis/kueue.x-k8s.io/v1beta2/resourceflavors": "ResourceFlavor",
}
OBJECTS = list(
    yaml.safe_load_all((Path(__file__).parents[3] / "deploy/kubernetes/trainer/dispatcher.yaml").read_text())
)
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
# What a request may be answered beside a status: as ever, or not at all once it is done.
PASS, DROP = -1, 0


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Store:
    """Objects by kind and name, with a resource version for each change, as in etcd."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS.values()}
        self._version = 0
        # How often each name of a kind was created.
        self.created: dict[tuple[str, str], int] = {}

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Every object of a kind, by name."""
        with self.lock:
            return [copy.deepcopy(value) for _, value in sorted(self._objects[kind].items())]

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object."""
        with self.lock:
            return copy.deepcopy(self._objects[kind].get(name))

    def create(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        """A new object."""
        with self.lock:
            name = value["metadata"]["name"]
            if name in self._objects[kind]:
                raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
            metadata = {**value["metadata"], "uid": str(uuid.uuid4()), "namespace": NAMESPACE}
            self.created[kind, name] = self.created.get((kind, name), 0) + 1
            return self._put(kind, {**value, "metadata": metadata})

    def change(self, kind: str, name: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """Changes an object in place; None where it is gone."""
        with self.lock:
            value = self.get(kind, name)
            if value is None:
                return None
            before = copy.deepcopy(value)
            change(value)
            return value if value == before else self._put(kind, value)

    def remove(self, kind: str, name: str) -> None:
        """Removes an object and what it owns."""
        with self.lock:
            value = self._objects[kind].pop(name, None)
            if value is None:
                return
            for other, objects in self._objects.items():
                for owned in list(objects.values()):
                    owners = owned["metadata"].get("ownerReferences", ())
                    if any(owner["uid"] == value["metadata"]["uid"] for owner in owners):
                        self.remove(other, owned["metadata"]["name"])

    def _put(self, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        value["metadata"]["resourceVersion"] = str(self._version)
        self._objects[kind][value["metadata"]["name"]] = value
        return copy.deepcopy(value)


class ApiServer:
    """Serves a store. `faults`: responses to the next requests with a matching method, one each."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.faults: deque[tuple[str, int]] = deque()
        self.requests: list[tuple[str, str]] = []
        # Pages of a list that go before it expires; None: it never does.
        self.pages_before_gone: int | None = None
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, on the same port as before."""
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])])
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_level="critical", timeout_graceful_shutdown=1
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="api-server", daemon=True)
        self._thread.start()
        while not server.started:
            assert self._thread.is_alive(), "the API server did not start"
            threading.Event().wait(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stops like a killed process: connections break. The store stays."""
        assert self._server is not None
        assert self._thread is not None
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()

    @contextmanager
    def away(self) -> Any:
        """Nothing listens while its body runs."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    async def _answer(self, request: Request) -> Response:
        path, method = request.url.path, request.method
        self.requests.append((method, path))
        fault = self._fault(method)
        if fault is not None and fault > 0:
            status = Refused(fault, "TooManyRequests" if fault == 429 else "InternalError", "the test says so")
            return _failure(status, {"Retry-After": "1"} if fault == 429 else {})
        body = json.loads(await request.body() or b"{}")
        try:
            with self.store.lock:
                result = self._do(method, path, dict(request.query_params), body, request.headers)
        except Refused as refused:
            return _failure(refused, {})
        # The connection breaks after the work is done: less comes than was announced.
        return Response("{", headers={"content-length": "1000"}) if fault == DROP else JSONResponse(result)

    def _fault(self, method: str) -> int | None:
        if self.faults and self.faults[0][0] in (method, "*"):
            return self.faults.popleft()[1]
        return None

    def _do(self, method: str, path: str, query: dict[str, str], body: dict[str, Any], headers: Any) -> dict[str, Any]:
        self._authorize("list" if method == "GET" and path in KINDS else VERBS.get(method, "get"), path)
        if path in KINDS:
            return self._list(KINDS[path], query) if method == "GET" else self._create(KINDS[path], body)
        collection, _, name = path.rpartition("/")
        if collection not in KINDS:
            raise Refused(404, "NotFound", f"the server could not find the requested resource {path}")
        kind = KINDS[collection]
        value = self.store.get(kind, name)
        if value is None:
            raise Refused(404, "NotFound", f'{kind} "{name}" not found')
        if method == "PATCH":
            assert headers["content-type"] == "application/merge-patch+json"
            return self._patch(kind, name, value, body)
        return self._delete(kind, name, value, body) if method == "DELETE" else value

    def _authorize(self, verb: str, path: str) -> None:
        """RBAC, with the roles that the dispatcher's manifest gives it."""
        groups, _, rest = path.removeprefix("/apis/").removeprefix("/api/").partition("/")
        version, _, rest = ("v1", "", rest) if path.startswith("/api/") else rest.partition("/")
        is_namespaced = rest.startswith("namespaces/")
        resource = rest.split("/")[2 if is_namespaced else 0]
        group = "" if path.startswith("/api/") else groups
        kinds = ("Role", "ClusterRole") if is_namespaced else ("ClusterRole",)
        rules = [rule for role in OBJECTS if role["kind"] in kinds for rule in role["rules"]]
        if not any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"] for rule in rules
        ):
            raise Refused(403, "Forbidden", f"cannot {verb} resource {resource} in API group {group!r} ({version})")

    def _list(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        selected = [each for each in self.store.all(kind) if _matches(each, query.get("labelSelector", ""))]
        start = 0
        if token := query.get("continue"):
            start, page = json.loads(base64.b64decode(token))
            if self.pages_before_gone is not None and page >= self.pages_before_gone:
                self.pages_before_gone = None
                raise Refused(410, "Expired", "The provided continue parameter is too old")
        limit = int(query.get("limit", "500"))
        metadata = {"resourceVersion": "1"}
        if start + limit < len(selected):
            token = base64.b64encode(json.dumps([start + limit, start // limit + 1]).encode()).decode()
            metadata["continue"] = token
        return {"kind": f"{kind}List", "metadata": metadata, "items": selected[start : start + limit]}

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "TrainJob" and (found := problems(body)):
            raise Refused(422, "Invalid", "; ".join(found))
        if kind == "Secret":
            values = body.pop("stringData", {})
            body["data"] = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
        return self.store.create(kind, body)

    def _patch(self, kind: str, name: str, value: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, value["metadata"]["resourceVersion"]):
            raise Refused(409, "Conflict", "the object has been modified")
        changed = self.store.change(kind, name, lambda each: _merge(each, body))
        assert changed is not None
        return changed

    def _delete(self, kind: str, name: str, value: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """TrainJobs are deleted after their pods: until then they have a finalizer."""
        if kind != "TrainJob":
            self.store.remove(kind, name)
            return {"kind": "Status", "status": "Success"}
        assert body.get("propagationPolicy") == "Foreground"

        def mark(each: dict[str, Any]) -> None:
            each["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            each["metadata"]["finalizers"] = [FOREGROUND]

        changed = self.store.change(kind, name, mark)
        assert changed is not None
        return changed


def _failure(refused: Refused, headers: dict[str, str]) -> Response:
    body = {"kind": "Status", "status": "Failure", "reason": refused.reason, "message": str(refused)}
    return JSONResponse({**body, "code": refused.status}, refused.status, headers)


def _matches(value: dict[str, Any], selector: str) -> bool:
    labels = value["metadata"].get("labels", {})
    for part in filter(None, selector.split(",")):
        name, equals, wanted = part.partition("=")
        if name not in labels or (equals and labels[name] != wanted):
            return False
    return True


def _merge(value: dict[str, Any], patch: dict[str, Any]) -> None:
    for name, change in patch.items():
        if isinstance(change, dict) and isinstance(value.get(name), dict):
            _merge(value[name], change)
        elif change is None:
            value.pop(name, None)
        else:
            value[name] = copy.deepcopy(change)
