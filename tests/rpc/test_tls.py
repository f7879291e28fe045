"""TLS between servers, with certificates made on the spot."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pydantic import ValidationError

from rpc.channels import open_channel
from rpc.process.settings import CommonSettings
from rpc.process.tls import channel_credentials
from tests.certificates import Authority
from tests.clients import http_client
from tests.conftest import ISSUER, SECRET, TestDatabase, metadata
from tests.processes import ROOT, environment, run, running
from tests.rpc.conftest import SERVICE, Servicer, boundary
from tests.serving import serving


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The authority that our servers believe."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    """Another one."""
    return Authority(tmp_path, "theirs")


def settings(**value: Any) -> CommonSettings:
    """Settings of a process."""
    return CommonSettings(jwt_secret=SECRET, jwt_issuer=ISSUER, drain_seconds=0.2, **value)


def served(value: CommonSettings) -> AbstractAsyncContextManager[str]:
    """A server with these settings; yields its address."""
    return serving({SERVICE: Servicer()}, boundary(), value)


async def answer(address: str, value: CommonSettings) -> str:
    """What a caller with these settings gets: OK, or a status."""
    async with open_channel(address, [SERVICE], channel_credentials(value)) as channel:
        try:
            call = EstimatorServiceStub(channel).GetCatalogue(
                estimator_pb2.GetCatalogueRequest(), metadata=metadata(), timeout=10
            )
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def test_callers_speak_tls_to_whom_they_believe(ours: Authority, theirs: Authority) -> None:
    """A22 and N07: a server that the caller's authority signed is answered by; in the clear, for another name, expired, no."""
    believing, others = settings(tls_ca_file=ours.ca), settings(tls_ca_file=theirs.ca)
    async with served(settings(**ours.issue("server"))) as address:
        assert await answer(address, believing) == "OK"
        assert await answer(address, others) == "UNAVAILABLE"
        assert await answer(address, settings()) == "UNAVAILABLE"
    async with served(settings(**ours.issue("late", days=-1))) as address:
        assert await answer(address, believing) == "UNAVAILABLE"
    async with served(settings(**ours.issue("else", address=x509.DNSName("elsewhere.example")))) as address:
        assert await answer(address, believing) == "UNAVAILABLE"
    async with served(settings()) as address:
        assert await answer(address, believing) == "UNAVAILABLE"


async def test_a_server_may_ask_callers_who_they_are(ours: Authority, theirs: Authority) -> None:
    """A22: a caller without a certificate, with an expired one or another authority's finishes no handshake."""
    asking = settings(tls_ca_file=ours.ca, tls_require_client=True, **ours.issue("server"))
    async with served(asking) as address:
        assert await answer(address, settings(tls_ca_file=ours.ca, **ours.issue("gateway"))) == "OK"
        assert await answer(address, settings(tls_ca_file=ours.ca)) == "UNAVAILABLE"
        assert await answer(address, settings(tls_ca_file=ours.ca, **theirs.issue("stranger"))) == "UNAVAILABLE"
        assert await answer(address, settings(tls_ca_file=ours.ca, **ours.issue("old", days=-1))) == "UNAVAILABLE"


@pytest.mark.slow
async def test_probes_reach_servers_that_speak_tls(ours: Authority, database: TestDatabase) -> None:
    """The readiness probe of the manifests, over plain HTTP, says what health says to those with a certificate."""
    manifest = (ROOT / "deploy" / "kubernetes" / "estimator.yaml").read_text()
    (deployment,) = [each for each in yaml.safe_load_all(manifest) if each["kind"] == "Deployment"]
    probe = deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]
    assert probe["port"] == "metrics"
    files = {name.upper(): str(path) for name, path in ours.issue("server").items()}
    variables = {f"PIPELINE_{name}": path for name, path in files.items()}
    variables |= {"PIPELINE_TLS_CA_FILE": str(ours.ca), "PIPELINE_TLS_REQUIRE_CLIENT": "1"}
    nowhere = f"{database.url.partition('?')[0]}?host=/nowhere"
    for url, expected in ((database.url, 200), (nowhere, 503)):
        async with running("estimator_service", environment(url, **variables)) as server, http_client() as client:
            await server.address()
            await server.logged("database")
            address = (await server.logged("metrics"))["address"].replace("/metrics", probe["path"])
            async with asyncio.timeout(30):
                while (await client.get(address)).status_code != expected:
                    await asyncio.sleep(0.05)


async def test_a_certificate_is_replaced_without_a_restart(ours: Authority) -> None:
    """N07: new connections get the new certificate, open ones go on; a broken file changes nothing."""

    async def shown(address: str) -> str:
        host, _, port = address.rpartition(":")
        return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))

    believing = settings(tls_ca_file=ours.ca)
    value = settings(**ours.issue("server"))
    async with served(value) as address, open_channel(address, [SERVICE], channel_credentials(believing)) as channel:
        stub = EstimatorServiceStub(channel)
        await stub.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=metadata())
        first = await shown(address)
        ours.issue("server")
        second = await shown(address)
        assert second != first
        value.tls_key_file.write_text("broken")
        assert await shown(address) == second
        await stub.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=metadata())
        assert await answer(address, believing) == "OK"


async def test_half_of_it_stops_the_start(ours: Authority, theirs: Authority) -> None:
    """N10: a certificate without its key, with another's, with one that has a passphrase, or no file is one line and 2."""
    pair, other = ours.issue("server"), theirs.issue("other")
    locked = pair["tls_key_file"].with_name("locked.key")
    key = serialization.load_pem_private_key(pair["tls_key_file"].read_bytes(), None)
    kind = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
    keys = [{**pair, "tls_key_file": each} for each in (other["tls_key_file"], locked)]
    for wrong in (*keys, {**pair, "tls_require_client": True}):
        with pytest.raises(ValidationError):
            settings(**wrong)
    half = {"PIPELINE_TLS_CERTIFICATE_FILE": str(pair["tls_certificate_file"]), "PIPELINE_TLS_CA_FILE": "nowhere.pem"}
    code, said = await run("estimator_service", environment("postgresql://localhost/x", **half))
    assert (code, said.count("\n")) == (2, 1), said
    assert "PIPELINE_TLS_CA_FILE" in said
