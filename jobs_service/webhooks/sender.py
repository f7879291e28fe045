"""Sends one webhook request to an address that was looked at, and to no other."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache

import httpx

from jobs_service.errors import WebhookUrlRefused
from jobs_service.webhooks.addresses import Address, Guard, Resolve, Target
from jobs_service.webhooks.model import Answer

# Addresses of a host that one attempt tries.
MAX_ADDRESSES = 3
# Of the answer's body this much is kept, and waited for no longer than this once its status is known.
RESPONSE_BYTES = 1024
RESPONSE_SECONDS = 1.0
HEADERS = {"content-type": "application/json", "user-agent": "Pipeline-Webhooks", "connection": "close"}


@asynccontextmanager
async def open_resolver(threads: int) -> AsyncIterator[Resolve]:
    """The system's resolver, in threads of its own: one that hangs holds up nobody else's."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="webhook-dns")

    async def resolve(host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            executor, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    try:
        yield resolve
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


class Sender:
    """Posts to targets that a guard lets through.

    Neither redirects nor cookies nor proxies: the transport alone, which knows none. Each request has a connection of its own,
    since one to the same address may have been made, and verified, for another name.
    """

    def __init__(self, guard: Guard, transport: httpx.AsyncHTTPTransport, *, timeout_seconds: float) -> None:
        self._guard = guard
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._timeouts = httpx.Timeout(timeout_seconds, connect=timeout_seconds / MAX_ADDRESSES).as_dict()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, guard: Guard, *, timeout_seconds: float, connections: int, trust: ssl.SSLContext | None = None
    ) -> AsyncIterator[Sender]:
        """A sender with at most that many connections. `trust` says whose certificates hold; default: the public ones."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
        async with httpx.AsyncHTTPTransport(
            verify=trust or _public_trust(), limits=limits, trust_env=False
        ) as transport:
            yield cls(guard, transport, timeout_seconds=timeout_seconds)

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Sends a request and says what came of it; never raises for what the other side does."""
        began = time.monotonic()

        def answer(status: int | None = None, error: str | None = None, response: str = "") -> Answer:
            return Answer(int((time.monotonic() - began) * 1000), status, error, response)

        try:
            async with asyncio.timeout(self._timeout_seconds):
                target, addresses = await self._guard.check(url)
                status, response = await self._post(target, addresses, headers, body)
        except TimeoutError:
            return answer(error=f"No answer within {self._timeout_seconds:g} seconds.")
        except WebhookUrlRefused as refused:
            return answer(error=refused.violations[0][1])
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return answer(error=f"Could not connect: {str(error) or 'no answer'}"[:300])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return answer(error=f"The connection broke: {error}"[:300])
        return answer(status, None if 200 <= status < 300 else f"The receiver answered {status}.", response)

    async def _post(
        self, target: Target, addresses: Sequence[Address], headers: Mapping[str, str], body: str
    ) -> tuple[int, str]:
        *others, last = addresses[:MAX_ADDRESSES]
        for address in others:
            # Nothing was sent yet: another address may answer.
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post_to(target, address, headers, body)
        return await self._post_to(target, last, headers, body)

    async def _post_to(
        self, target: Target, address: Address, headers: Mapping[str, str], body: str
    ) -> tuple[int, str]:
        # The address is in the URL, so nothing is looked up again; the name is what TLS verifies and Host says.
        request = httpx.Request(
            "POST",
            httpx.URL(scheme=target.scheme, host=str(address), port=target.port, raw_path=target.path.encode()),
            headers={**HEADERS, **headers, "host": target.authority},
            content=body.encode(),
            extensions={"sni_hostname": target.host, "timeout": self._timeouts},
        )
        response = await self._transport.handle_async_request(request)
        try:
            return response.status_code, await _beginning(response)
        finally:
            await response.aclose()


@cache
def _public_trust() -> ssl.SSLContext:
    # Reading the certificates takes longer than all else that opens a service.
    return httpx.create_ssl_context()


async def _beginning(response: httpx.Response) -> str:
    """The first bytes of a body, as far as they come soon, as text that Postgres takes."""
    read = b""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(RESPONSE_SECONDS):
            async for chunk in response.aiter_raw():
                read += chunk[:RESPONSE_BYTES]
                if len(read) >= RESPONSE_BYTES:
                    break
    text = read[:RESPONSE_BYTES].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    # What takes the place of a byte has three.
    return text.encode()[:RESPONSE_BYTES].decode(errors="ignore")
