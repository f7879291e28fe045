"""Sends webhook requests over connections to checked addresses only, and reads a bounded answer."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache

import httpcore
import httpx

from jobs_service.errors import WebhookUrlRefused
from jobs_service.webhooks.addresses import AddressGuard
from jobs_service.webhooks.delivery import AttemptResult, parse_retry_after

# Addresses of a host that one attempt tries.
MAX_ADDRESSES = 3
# Bytes of an answer that are read: interim answers (1xx), headers and the beginning of the body.
MAX_ANSWER_BYTES = 16 * 1024
# Bytes of the body that are kept, and seconds that are spent on reading them once the status has come.
BODY_BYTES = 1024
BODY_SECONDS = 1.0
HEADERS = {"content-type": "application/json", "user-agent": "Pipeline-Webhooks", "connection": "close"}


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A connection that reads at most MAX_ANSWER_BYTES. An endless answer ends here."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._remaining = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        if not self._remaining:
            raise httpcore.ReadError(f"the answer has more than {MAX_ANSWER_BYTES} bytes before its end")
        data = await self._stream.read(min(max_bytes, self._remaining), timeout)
        self._remaining -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the same
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
    ) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _GuardedBackend(httpcore.AnyIOBackend):
    """Connects to addresses that the guard has checked just now; the host's name is not looked up again.

    The name stays in the request, for the Host header and the certificate.
    """

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = (await self._guard.resolve(host, port))[:MAX_ADDRESSES]
        for address in others:
            # Nothing was sent yet, so another address may be tried.
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _BoundedStream(await super().connect_tcp(str(address), port, timeout))
        return _BoundedStream(await super().connect_tcp(str(last), port, timeout))


class WebhookClient:
    """Posts requests. Follows no redirects, keeps no cookies, uses no proxy; each request has its own connection."""

    def __init__(self, guard: AddressGuard, pool: httpcore.AsyncConnectionPool, *, timeout_seconds: float) -> None:
        self._guard = guard
        self._pool = pool
        self._timeout_seconds = timeout_seconds

    @classmethod
    @asynccontextmanager
    async def open(
        cls, guard: AddressGuard, *, timeout_seconds: float, connections: int, trust: ssl.SSLContext | None = None
    ) -> AsyncIterator[WebhookClient]:
        """Opens a client with at most `connections`. `trust`: whose certificates are valid; default: the public ones."""
        async with httpcore.AsyncConnectionPool(
            trust or _public_trust(),
            max_connections=connections,
            # A connection to the same address may have been verified for another name.
            max_keepalive_connections=0,
            network_backend=_GuardedBackend(guard),
        ) as pool:
            yield cls(guard, pool, timeout_seconds=timeout_seconds)

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> AttemptResult:
        """Sends a request and returns its outcome. Raises nothing for what the receiver does."""
        started = time.monotonic()
        status, error, response, retry_after = None, None, "", None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, retry_after, response = await self._post(url, headers, body)
        except TimeoutError:
            error = f"No answer within {self._timeout_seconds:g} seconds."
        except WebhookUrlRefused as refused:
            error = refused.violations[0][1]
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
            error = f"Could not connect: {str(failed) or 'no answer'}"
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as broken:
            error = f"The connection broke: {broken}"
        duration_ms = int((time.monotonic() - started) * 1000)
        if status is not None and not 200 <= status < 300:
            error = f"The receiver answered {status}."
        pause = parse_retry_after(retry_after, datetime.now(UTC)) if error else None
        return AttemptResult(duration_ms, status, error[:300] if error else None, response, pause)

    async def _post(self, url: str, headers: Mapping[str, str], body: str) -> tuple[int, str | None, str]:
        """Returns status, Retry-After header and the beginning of the body."""
        target = self._guard.parse(url)
        connect = self._timeout_seconds / MAX_ADDRESSES
        async with self._pool.stream(
            "POST",
            httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path),
            headers=[("host", target.authority), *HEADERS.items(), *headers.items()],
            content=body.encode(),
            extensions={"timeout": {"connect": connect}},
        ) as response:
            retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
            text = await _beginning(response)
        return response.status, retry_after.decode("latin-1") if retry_after else None, text


@cache
def _public_trust() -> ssl.SSLContext:
    # Reading the certificates takes longer than all other work of opening a client.
    return httpx.create_ssl_context()


async def _beginning(response: httpcore.Response) -> str:
    """Returns the first bytes of a body, as far as they come soon, as text that Postgres accepts (no NUL)."""
    data = b""
    with suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in response.aiter_stream():
                data += chunk[:BODY_BYTES]
                if len(data) >= BODY_BYTES:
                    break
    text = data[:BODY_BYTES].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    # A replacement character takes three bytes.
    return text.encode()[:BODY_BYTES].decode(errors="ignore")
