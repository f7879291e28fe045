"""What the gateway serves beside the RPCs."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api import annotations_pb2

from gateway.__main__ import ESTIMATOR, JOBS
from gateway.app import Gateway
from gateway.http_server import http_server
from gateway.settings import GatewaySettings
from rpc.identity.tokens import SharedSecret, Verifier
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET, NewDataset
from tests.gateway.conftest import new_request


async def test_the_document_has_every_call(http: httpx.AsyncClient) -> None:
    """The OpenAPI document has each RPC with a rule, with its limits, its descriptions and the error body."""
    document = (await http.get("/api/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    rules = [
        method.GetOptions().Extensions[annotations_pb2.http]
        for service in (*ESTIMATOR, *JOBS)
        for method in service.methods
        if method.GetOptions().HasExtension(annotations_pb2.http)
    ]
    for rule in rules:
        verb = rule.WhichOneof("pattern")
        operation = document["paths"][getattr(rule, verb)][verb]
        assert operation["description"]
        assert operation["responses"]["401"]
    schemas = document["components"]["schemas"]
    count = schemas["GpuConfig"]["properties"]["count"]
    assert (count["minimum"], count["maximum"]) == (1, 8)
    assert schemas["GpuConfig"]["required"] == ["type", "count"]
    assert "totalPages" in schemas["Pagination"]["required"]
    assert "IDEMPOTENCY_KEY_REUSED" in schemas["ErrorBody"]["properties"]["reason"]["enum"]
    listing = {each["name"]: each["schema"] for each in document["paths"]["/api/jobs"]["get"]["parameters"]}
    assert (listing["limit"]["maximum"], listing["status"]["enum"][0]) == (100, "queued")


async def test_every_reference_of_the_document_is_there(http: httpx.AsyncClient) -> None:
    """Nothing in the OpenAPI document points at something that is not in it."""
    document = (await http.get("/api/openapi.json")).json()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [each for value in node.values() for each in references(value)]
        return [each for item in node for each in references(item)] if isinstance(node, list) else []

    for reference in references(document):
        _, *path = reference.split("/")
        node = document
        for part in path:
            node = node[part]


async def test_the_documentation_works_offline(http: httpx.AsyncClient) -> None:
    """The documentation page asks for nothing but our own files, and each of them is there."""
    page = (await http.get("/api/docs")).text
    asked_for = [part.partition('"')[0] for part in page.split('="')[1:] if part.startswith(("/api", "http"))]
    assert len(asked_for) == 4
    for path in asked_for:
        assert path.startswith("/api/docs/")
        assert (await http.get(path)).status_code == 200
    assert "/api/openapi.json" in (await http.get("/api/docs/start.js")).text
    assert (await http.get("/api/docs/other.js")).status_code == 404


async def test_large_answers_are_compressed(gateway_url: str, api: httpx.AsyncClient) -> None:
    """An answer worth it is sent with gzip to those that take it, and only to them."""
    for path, declined in (("/api/catalogue", "gzip;q=0, identity"), ("/api/openapi.json", "identity")):
        plain = await api.get(path, headers={"accept-encoding": declined})
        async with api.stream("GET", path, headers={"accept-encoding": "gzip"}) as packed:
            body = b"".join([part async for part in packed.aiter_raw()])
        assert ("content-encoding" in plain.headers, packed.headers["content-encoding"]) == (False, "gzip")
        assert gzip.decompress(body) == plain.content
        assert len(body) < len(plain.content) / 2


async def gateway(page: Path, up: bool, *, dev_issuer: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway without services."""
    settings = GatewaySettings(jwt_secret=SECRET, jwt_issuer=ISSUER, ui_dir=page, dev_issuer=dev_issuer)
    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)

    async def ready() -> Mapping[str, bool]:
        return {"estimator": True, "jobs": up}

    app = Gateway(settings, {}, verifier, ready)
    async with (
        http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1) as port,
        http_client(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@pytest.mark.parametrize("up", [True, False])
async def test_ready_means_that_everything_answers(tmp_path: Path, up: bool) -> None:
    """A gateway is alive by itself, and ready when what is behind it is."""
    async for client in gateway(tmp_path, up):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        answer = await client.get("/readyz")
        assert answer.status_code == (200 if up else 503)
        assert answer.json()["checks"] == {"estimator": True, "jobs": up}


async def test_the_page_is_the_folder(tmp_path: Path) -> None:
    """Files of the page are served as they are; a person's address gets its index; anything else is not there."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>page</p>")
    (tmp_path / "assets" / "a-1.js").write_text("1")
    (tmp_path.parent / "secret.txt").write_text("secret")
    person = {"accept": "text/html,*/*"}
    async for client in gateway(tmp_path, True):
        for path in ("/", "/login", "/training/jobs/1"):
            answer = await client.get(path, headers=person)
            assert (answer.status_code, answer.text) == (200, "<p>page</p>")
            assert answer.headers["cache-control"] == "no-cache"
        script = await client.get("/assets/a-1.js")
        assert (script.text, "immutable" in script.headers["cache-control"]) == ("1", True)
        for path in ("/assets/none.js", "/api/none", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/assets", "/training"):
            answer = await client.get(path, headers={"accept": "*/*"})
            assert (answer.status_code, answer.json()["reason"]) == (404, "ROUTE_NOT_FOUND"), path
        assert (await client.post("/login")).status_code == 404


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        ("gzip, deflate, br", "br"),
        ("gzip;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br; q=0.000", None),
        ("zstd, identity", None),
        ("", None),
    ],
)
async def test_what_was_compressed_is_sent_so(tmp_path: Path, accepted: str, sent: str | None) -> None:
    """A file that lies there compressed is sent so to those that take it, under its own type and for ever."""
    (tmp_path / "assets").mkdir()
    for suffix in ("", ".br", ".gz"):
        (tmp_path / "assets" / f"a-1.js{suffix}").write_text(suffix or "plain")
    async for client in gateway(tmp_path, True):
        async with client.stream("GET", "/assets/a-1.js", headers={"accept-encoding": accepted}) as answer:
            body = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers.get("content-encoding") == sent
        assert body == {"br": b".br", "gzip": b".gz", None: b"plain"}[sent]
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["vary"].lower() == "accept-encoding"


async def test_nobody_signs_in_without_the_development_issuer(tmp_path: Path) -> None:
    """The development issuer is off unless asked for by name: then there is no sign-in, and nobody is signed in."""
    async for client in gateway(tmp_path, True):
        assert (await client.post("/api/session", headers={"sec-fetch-site": "same-origin"})).status_code == 404
        assert (await client.get("/api/session")).json()["data"] == {"user_id": None, "dev_issuer": False}


async def test_the_document_says_what_lists_and_absent_things_are(http: httpx.AsyncClient) -> None:
    """Limits of lists and of what is in them are told; what may be null says so; a key to repeat is for what changes things."""
    result = (await http.get("/api/openapi.json")).json()
    schemas = result["components"]["schemas"]
    compared = schemas["CompareConfigurationsRequest"]["properties"]
    assert (compared["gpu_types"]["maxItems"], compared["gpu_types"]["uniqueItems"]) == (64, True)
    assert compared["gpu_counts"]["items"]["maximum"] == 8
    assert {"type": "null"} in schemas["GetEstimateAccuracyResponse"]["properties"]["overall"]["anyOf"]
    for path, operations in result["paths"].items():
        for verb, operation in operations.items():
            headers = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}
            assert verb != "get" or "Idempotency-Key" not in headers, path
    assert "Idempotency-Key" in {each["name"] for each in result["paths"]["/api/jobs"]["post"]["parameters"]}
    assert "403" in result["paths"]["/api/session"]["post"]["responses"]


async def test_answers_are_as_the_document_says(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """Every field of an answer is in the document, every field of the document in the answer, null only where it may be."""
    result = (await api.get("/api/openapi.json")).json()
    schemas = result["components"]["schemas"]
    dataset = await new_dataset(me)
    job = (await api.post("/api/jobs", json=new_request(dataset, preset_id="fast"))).json()["data"]
    answers = {
        "/api/jobs": await api.get("/api/jobs"),
        "/api/jobs/{id}": await api.get(f"/api/jobs/{job['id']}"),
        "/api/datasets": await api.get("/api/datasets"),
        "/api/datasets/{id}": await api.get(f"/api/datasets/{dataset}"),
        "/api/notifications": await api.get("/api/notifications"),
        "/api/catalogue": await api.get("/api/catalogue"),
        "/api/estimates/accuracy": await api.get("/api/estimates/accuracy"),
        "/api/webhooks": await api.get("/api/webhooks"),
    }
    for path, answer in answers.items():
        results = result["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        conforms(answer.json(), results, schemas, path)


def conforms(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> None:
    """Holds a value against a schema as far as our document goes; fails with the path of what differs."""
    if "$ref" in schema:
        return conforms(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, where)
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        assert value is not None or len(kinds) < len(schema["anyOf"]), where
        return None if value is None or len(kinds) > 1 else conforms(value, kinds[0], schemas, where)
    kinds_of = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if "type" in schema:
        assert isinstance(value, kinds_of[schema["type"]]), f"{where}: {value!r} is not of type {schema['type']}"
    if "enum" in schema:
        assert value in schema["enum"], where
    if "properties" in schema:
        assert set(value) == set(schema["properties"]), where
        for name, each in value.items():
            conforms(each, schema["properties"][name], schemas, f"{where}.{name}")
    for number, each in enumerate(value if "items" in schema else ()):
        conforms(each, schema["items"], schemas, f"{where}[{number}]")
    return None
