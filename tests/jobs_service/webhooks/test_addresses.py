"""No webhook request is sent to an internal address: its URL is refused, or its host name."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pipeline.webhooks.v1 import webhooks_pb2

from jobs_service.errors import WebhookUrlRefused
from jobs_service.webhooks.addresses import NOT_PUBLIC, AddressGuard
from jobs_service.webhooks.client import WebhookClient
from tests.conftest import TestDatabase, metadata, open_stack
from tests.door import refused
from tests.jobs_service.webhooks.receiver import receiver
from tests.jobs_service.webhooks.test_webhooks import ANN, FAST, create, finished

PUBLIC = "93.184.215.14"
# Refused for what they are, before any name is looked up.
BAD_URLS = [
    "http://hook.example/",
    "ftp://hook.example/",
    "//hook.example/",
    "hook.example",
    "https://",
    "https:///path",
    "https://user@hook.example/",
    "https://user:password@hook.example/",
    "https://hook.example\\@10.0.0.1/",
    "https://hook.example/#fragment",
    "https://hook.example/ space",
    "https://hook.example/\t",
    "https://hook.example/\n",
    "https://hook.example\n.evil.example/",
    "https://hook.example/\r\nx-header: 1",
    "https://hook.example/{template}",
    "https://hook.example:22/",
    "https://hook.example:80/",
    "https://hook.example:0/",
    "https://hook.example:65536/",
    "https://hook.example:-1/",
    "https://hook.example:443:443/",
    "https://hook.example:/",
    "https://h\u00f6\u00f6k.example/",
    "https://hook\u3002example/",
    "https://\uff11\uff10.0.0.1/",
    "https://hook.example./",
    "https://hook..example/",
    "https://-hook.example/",
    "https://hook_.example/",
    "https://%68ook.example/",
    "https://1.1.1.1%2f@10.0.0.1/",
    "https://0x7f.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://1.1.1.1.1/",
    "https://1.1.1.256/",
    "https://1.1.1.1./",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.fe80]/",
    "https://[1.1.1.1]/",
    f"https://{'a' * 64}.example/",
    f"https://{'a.' * 130}example/",
]
# Not addresses of the internet, by any notation that gets this far.
PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "168.63.129.16",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:1.1.1.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1",
    "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "5f00::1", "4000::1",
]  # fmt: skip
GOOD = [
    ("https://hook.example", "hook.example", "/"),
    ("https://hook.example?x=1", "hook.example", "/?x=1"),
    ("https://HOOK.example/A?b=c@d:e/f", "hook.example", "/A?b=c@d:e/f"),
    ("https://xn--hk-fkaa.example:8443/", "xn--hk-fkaa.example:8443", "/"),
    ("https://1.1.1.1/", "1.1.1.1", "/"),
    ("https://[2606:4700:4700::1111]/", "[2606:4700:4700::1111]", "/"),
    ("https://hook.example:443/", "hook.example", "/"),
]


def guard(*addresses: str, **options: Any) -> AddressGuard:
    """A guard whose resolver returns these addresses."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if not addresses:
            raise OSError("no such host")
        return addresses

    return AddressGuard(resolve, **{"ports": {443, 8443}, **options})


@pytest.mark.parametrize("url", BAD_URLS)
async def test_odd_urls_are_refused(url: str) -> None:
    """Ambiguous and forbidden URLs are refused without a look-up."""
    with pytest.raises(WebhookUrlRefused) as caught:
        await guard(PUBLIC).check(url)
    assert caught.value.violations[0] != ("url", NOT_PUBLIC)


@pytest.mark.parametrize(("url", "authority", "path"), GOOD)
async def test_good_urls_are_taken(url: str, authority: str, path: str) -> None:
    """Names, addresses, allowed ports, paths and queries are accepted unchanged."""
    target = await guard(PUBLIC, "2606:4700:4700::1111").check(url)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize("address", PRIVATE)
async def test_names_that_point_inside_are_refused(address: str) -> None:
    """A host name is refused if any of its addresses is not public."""
    for result in ((address,), (PUBLIC, address), (address, PUBLIC)):
        with pytest.raises(WebhookUrlRefused) as caught:
            await guard(*result).check("https://hook.example/")
        assert caught.value.violations == [("url", NOT_PUBLIC)]


async def test_networks_that_the_operator_lists_are_refused() -> None:
    """Networks that the operator lists are refused, and so are names without addresses."""
    assert await guard(PUBLIC).check("https://hook.example/")
    for refusing in (guard(PUBLIC, refused=[ip_network("93.184.0.0/16")]), guard(), guard("nonsense")):
        with pytest.raises(WebhookUrlRefused):
            await refusing.check("https://hook.example/")


async def test_addresses_are_checked_at_creation_and_delivery(database: TestDatabase, tmp_path: Path) -> None:
    """A host that resolves to this machine is refused at creation, at update and before each delivery."""
    async with receiver() as inside, open_stack("local", database.url, tmp_path, **FAST) as lax:
        before = (await create(lax, inside.url)).webhook
        inside.always = None
        await lax.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=before.id), metadata=metadata(ANN))
        await finished(lax, before.id)
        assert len(inside.received) == 1
    strict = {**FAST, "webhook_allow_private": False, "webhook_ports": [inside.port, 443]}
    async with receiver() as inside, open_stack("local", database.url, tmp_path, **strict) as stack:
        for url in (
            f"https://localhost:{inside.port}/",
            f"https://127.0.0.1:{inside.port}/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            inside.url,
        ):
            update = webhooks_pb2.UpdateWebhookRequest(id=before.id, url=url)
            for call in (create(stack, url), stack.webhooks.UpdateWebhook(update, metadata=metadata(ANN))):
                error = await refused(call)
                assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "WEBHOOK_URL_REFUSED")
                assert list(error.violations) == ["url"]
        await stack.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=before.id), metadata=metadata(ANN))
        newest, _ = await finished(stack, before.id, 2)
        assert newest.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_FAILED
        assert newest.attempts[0].error == "It must begin with https://."
        assert inside.received == []


async def test_dns_rebinding_is_prevented() -> None:
    """DNS rebinding: a request is only sent to an address that was just checked."""
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    changing = AddressGuard(resolve, ports={443})
    await changing.check("https://hook.example/")
    async with WebhookClient.open(changing, timeout_seconds=1, connections=1) as client:
        answer = await client.post("https://hook.example/", {}, "{}")
    assert (answer.http_status, answer.error, answers) == (None, NOT_PUBLIC, [])


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side with a certificate for `name`, and a client's side that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


@pytest.mark.parametrize(
    ("url_name", "trusted", "error"),
    [
        ("hook.example", True, None),
        ("other.example", True, "Hostname mismatch"),
        ("hook.example", False, "self-signed certificate"),
    ],
)
async def test_tls_is_for_the_name_and_the_connection_for_the_address(
    tmp_path: Path, url_name: str, trusted: bool, error: str | None
) -> None:
    """The connection goes to the checked address, and the certificate must be trusted for the host name."""
    server, trust = certificates(tmp_path, "hook.example")
    async with receiver(server) as secure:
        # The first address refuses: the next one is tried.
        checked = guard("127.0.0.2", "127.0.0.1", allow_private=True)
        opened = WebhookClient.open(checked, timeout_seconds=5, connections=2, trust=trust if trusted else None)
        async with opened as client:
            answer = await client.post(f"https://{url_name}:{secure.port}/hook", {"webhook-id": "msg_1"}, "{}")
        if error is None:
            assert answer.delivered, answer
            (request,) = secure.received
            assert request.headers["host"] == f"hook.example:{secure.port}"
            assert "cookie" not in request.headers
        else:
            assert error in str(answer.error), answer
            assert secure.received == []
