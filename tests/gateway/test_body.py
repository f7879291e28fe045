"""Group 4 of the faults: what a JSON body may be."""

from __future__ import annotations

import time
from typing import Any

import httpx
import orjson
import pytest

from tests.conftest import NewDataset
from tests.gateway.conftest import new_request

ID = "aaaaaaaa-0000-4000-8000-00000000000a"
AS_JSON = {"content-type": "application/json"}


def body(**fields: Any) -> bytes:
    """A good request with some fields changed."""
    return orjson.dumps({**new_request(ID, preset_id="fast"), **fields})


def changed(path: str, text: str) -> bytes:
    """A good request in which one value is this very text."""
    group, _, name = path.rpartition(".")
    whole: Any = new_request(ID, preset_id="fast")
    (whole[group] if group else whole)[name] = "@"
    return orjson.dumps(whole).replace(b'"@"', text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ("J01", b""),
        *[("J02", text) for text in (b"null", b"[]", b'"x"', b"5", b"true")],
        ("J04", body().replace(b'"fast"', b'"fast","preset_id":"custom"')),
        ("J04", changed("gpu_config.count", '1,"count":2')),
        ("J04", b'{"%b":1,"%b":2}' % ((b"x" * 100_000,) * 2)),
        *[("J09", changed("hyperparameters.learning_rate", text)) for text in ("NaN", "Infinity", "-Infinity")],
        ("J12", changed("gpu_config.type", '"\ud800"')),
        ("J12", body().replace(b"H100", b"\xff").replace(b"A100", b"\xff")),
        ("J12", b"\xef\xbb\xbf" + body()),
        ("J12", changed("gpu_config.type", r'"\ud800"')),
        ("J14", body() + b"x"),
        ("J14", body()[:-1] + b",}"),
        ("J14", b"/* */" + body()),
        ("J14", body().replace(b'"', b"'")),
        ("J14", b"{dataset_id:1}"),
        *[("J15", b"[" * depth + b"]" * depth) for depth in (33, 200, 5_000, 100_000)],
        *[("J15", b'{"a":' * depth + b"1" + b"}" * depth) for depth in (5_000, 100_000)],
        ("J16", b"[" * (1024 * 1024)),
        ("J16", orjson.dumps({f"key{number}": 1 for number in range(60_000)})),
        ("J17", changed("gpu_config.count", "1" * 1_000_000)),
    ],
)
async def test_what_is_not_json_is_refused_at_once(api: httpx.AsyncClient, row: str, content: bytes) -> None:
    """A body that is not a JSON object as it must be gets 400 with one sentence, in no time, whatever its size."""
    started = time.process_time()
    answer = await api.post("/api/jobs", content=content, headers=AS_JSON)
    seconds = time.process_time() - started
    data = answer.json()
    assert (answer.status_code, data["reason"], type(data["details"])) == (400, "MALFORMED_REQUEST", str), row
    assert len(answer.content) < 1000
    # Of the processor, client and services included; a blow-up takes seconds.
    assert seconds < 0.5


@pytest.mark.parametrize(
    ("row", "content", "field"),
    [
        ("J03", body(stray=1), "stray"),
        ("J03", body(**{"@type": "x"}), "@type"),
        ("J03", body(**{"[ext.field]": 1}), "[ext.field]"),
        ("J03", body(**{"x" * 100_000: 1}), f"{'x' * 100}…"),
        ("J15", b'{"a":' * 200 + b"1" + b"}" * 200, "a"),
        ("J04", body(presetId="fast"), "presetId"),
        ("J22", body(owner=ID), "owner"),
        ("J23", body(__proto__={}), "__proto__"),
        *[
            ("J06", changed("gpu_config.count", text), "gpu_config.count")
            for text in (
                "2147483648",
                "-2147483649",
                "5.5",
                '"5.0"',
                '"1_000"',
                '" 5"',
                '""',
                "true",
                '"1e3"',
                '"05"',
                "1.5",
                "1e400",
                "[]",
            )
        ],
        ("J06", changed("hyperparameters.batch_size", "4.5"), "hyperparameters.batch_size"),
        *[
            ("J09", changed("hyperparameters.learning_rate", text), "hyperparameters.learning_rate")
            for text in ('"NaN"', '"Infinity"', '"0,0001"', '" 5e-5"', '"0x1"', '"1_0"', '""', "1e400", "true", "{}")
        ],
        *[
            ("J10", changed("hyperparameters.learning_rate", text), "hyperparameters.learning_rate")
            for text in ("-0.0", "5e-324", "1e308")
        ],
        *[("J10", changed("estimated_cost", text), "estimated_cost") for text in ("1e308", "-1", "1e400")],
        *[
            ("J07", changed("max_duration_seconds", text), "max_duration_seconds")
            for text in ('"9223372036854775808"', "9223372036854775808", "1e400", "9007199254740993")
        ],
        ("J13", changed("gpu_config.type", r'"a\u0000b"'), "gpu_config.type"),
        ("J18", changed("gpu_config.type", f'"{"x" * 4097}"'), "gpu_config.type"),
        ("J19", body(base_model="mistral-7b", training={"target_modules": ["q_proj"] * 9}), "training.target_modules"),
        ("J20", body(base_model="mistral-7b", training={"target_modules": [None]}), "training.target_modules[0]"),
        ("J20", changed("gpu_config", "null"), "gpu_config"),
        ("J20", changed("hyperparameters", "null"), "hyperparameters"),
        ("enum", changed("preset_id", '"FAST"'), "preset_id"),
        ("enum", changed("preset_id", '"unspecified"'), "preset_id"),
        ("enum", changed("preset_id", "1"), "preset_id"),
        ("uuid", changed("dataset_id", f'"{{{ID}}}"'), "dataset_id"),
        ("object", changed("gpu_config", '"H100"'), "gpu_config"),
    ],
)
async def test_a_field_that_is_wrong_is_named(api: httpx.AsyncClient, row: str, content: bytes, field: str) -> None:
    """A field that is unknown, of the wrong type or outside its limits gets 400 with its path and what it must be."""
    answer = await api.post("/api/jobs", content=content, headers=AS_JSON)
    data = answer.json()
    assert (answer.status_code, data["error"], list(data["details"])) == (400, "Validation error", [field]), row
    assert data["details"][field][0]


@pytest.mark.parametrize(
    ("count", "epochs", "learning_rate"), [("2", "3.0", '"5e-5"'), ('"2"', '"3"', '"0.00005"'), ("2.0", "3e0", "5E-5")]
)
async def test_numbers_are_taken_as_protobuf_json_takes_them(
    api: httpx.AsyncClient, new_dataset: NewDataset, me: str, count: str, epochs: str, learning_rate: str
) -> None:
    """Case 30: numbers as text, and whole numbers with a fraction of zero, price as the numbers that they are."""
    plain = new_request(await new_dataset(me))
    text = orjson.dumps(plain).replace(b'"count":2', b'"count":%b' % count.encode())
    text = text.replace(b'"epochs":3', b'"epochs":%b' % epochs.encode()).replace(b"0.00005", b"5e-05")
    text = text.replace(b'"learning_rate":5e-05', b'"learning_rate":%b' % learning_rate.encode())
    answer = await api.post("/api/jobs/estimate", content=text, headers=AS_JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == (await api.post("/api/jobs/estimate", json=plain)).json()["data"]


async def test_half_an_epoch_is_refused_by_name(api: httpx.AsyncClient) -> None:
    """Case 30: 1.5 epochs, as a number or as text, lose something as a whole number."""
    for text in ("1.5", '"1.5"', "9007199254740993.0", "1e300"):
        answer = await api.post("/api/jobs", content=changed("hyperparameters.epochs", text), headers=AS_JSON)
        assert (answer.status_code, list(answer.json()["details"])) == (400, ["hyperparameters.epochs"])


async def test_what_only_we_can_say_is_not_a_clients_to_set(
    api: httpx.AsyncClient, new_dataset: NewDataset, me: str
) -> None:
    """J21, J22: a job sent back as it was told makes a new one, and nothing that only we can say is taken from it."""
    answer = await api.post("/api/jobs", json=new_request(await new_dataset(me), preset_id="fast"))
    body = answer.json()["data"]
    said = {
        "status": "completed",
        "user_id": ID,
        "created_at": "2001-01-01T00:00:00Z",
        "current_cost": 5,
        "progress": 1,
    }
    answer = await api.post("/api/jobs", json={**body, **said})
    assert answer.status_code == 201, answer.text
    job = answer.json()["data"]
    assert job["id"] != body["id"]
    assert {name: job[name] for name in said} == {
        **{name: body[name] for name in said},
        "created_at": job["created_at"],
    }
    assert job["created_at"] > body["created_at"]


async def test_a_quote_is_not_lost_in_silence(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """J21: a job that has a quote's price, sent back, says nothing of that price: the quote's id is asked for, and enough."""
    body = new_request(await new_dataset(me))
    quote = (await api.post("/api/quotes", json=body)).json()["data"]
    body |= {"preset_id": "fast"}
    data = (await api.post("/api/jobs", json={**body, "quote_id": quote["id"]})).json()["data"]
    refused = await api.post("/api/jobs", json=data)
    assert (refused.status_code, list(refused.json()["details"])) == (400, ["quote"])
    assert "`quote_id`" in refused.json()["details"]["quote"][0]
    again = await api.post("/api/jobs", json={**data, "quote_id": data["quote"]["id"]})
    assert (again.status_code, again.json()["data"]["quote"]) == (201, data["quote"]), again.text


async def test_what_a_client_writes_is_in_no_header(api: httpx.AsyncClient) -> None:
    """M09: text with a line's end in it comes back in the body, and the headers are those of any refusal."""
    answer = await api.post("/api/jobs", content=changed("gpu_config.type", r'"x\r\nset-cookie: a=b"'), headers=AS_JSON)
    refusal = await api.post("/api/jobs", content=changed("gpu_config.type", '"x"'), headers=AS_JSON)
    assert "x\r\nset-cookie: a=b" in answer.json()["details"]["gpu_config.type"][0]
    assert list(answer.headers) == list(refusal.headers)


async def test_every_missing_field_is_named(api: httpx.AsyncClient) -> None:
    """G02: an empty request names each field that it needs."""
    answer = await api.post("/api/jobs", json={})
    assert set(answer.json()["details"]) == {"dataset_id", "gpu_config", "hyperparameters", "preset_id"}
    answer = await api.post("/api/jobs", json=new_request(ID, preset_id="fast", gpu_config={}))
    assert set(answer.json()["details"]) == {"gpu_config.type", "gpu_config.count"}


@pytest.mark.parametrize(
    "name",
    ["x" * 200, "👩‍👩‍👧‍👦" * 25, "\u202eabc\u200b", "<script>alert(1)</script>", "'; drop table lora_datasets; --"],
)
async def test_text_is_kept_to_the_letter(api: httpx.AsyncClient, name: str) -> None:
    """J18: a name up to its limit comes back as it went in, whatever is in it; one character more is refused."""
    sent = {"headers": {"content-type": "application/jsonl"}, "content": b'{"prompt":"a","completion":"b"}'}
    answer = await api.post("/api/datasets", params={"name": name}, **sent)
    assert (answer.status_code, answer.json()["data"]["name"]) == (201, name)
    result = await api.get("/api/datasets", params={"search": name})
    assert result.json()["data"]["pagination"]["total"] == 1
    refused = await api.post("/api/datasets", params={"name": "x" * 201}, **sent)
    assert (refused.status_code, list(refused.json()["details"])) == (400, ["name"])


async def test_limits_are_inclusive(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """Both ends of every range are inside it, and alpha and dropout may be left out or be null."""
    dataset = await new_dataset(me)
    for values in (
        {"batch_size": 1, "epochs": 1, "learning_rate": 1e-5, "rank": 4, "alpha": 1e-9, "dropout": 0},
        {"batch_size": 64, "epochs": 20, "learning_rate": 1e-3, "rank": 128, "alpha": None, "dropout": 0.999},
    ):
        answer = await api.post("/api/jobs/estimate", json=new_request(dataset, hyperparameters=values))
        assert answer.status_code == 200, answer.text
