"""Checks of webhook URLs and addresses, so that no request is sent to an address of an internal network."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from jobs_service.errors import WebhookUrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# Returns the addresses of a host and port. Raises OSError if there are none.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# Public IPv6. Outside of it are loopback, local, link-local and multicast addresses and IPv4 in IPv6 (::ffff:0:0/96,
# 64:ff9b::/96).
GLOBAL_IPV6 = IPv6Network("2000::/3")
# Networks that are not public, from IANA's special-purpose registries.
SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers (CGNAT); some clouds' metadata
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocols; a cloud's metadata
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "168.63.129.16/32",  # a cloud's host, under a public address
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "2001::/23",  # protocols: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: IPv4 in IPv6
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# Strict: a URL that two parsers could read differently is refused. The last label of a name begins with a letter, so that
# no other notation of an IPv4 address (`0x7f.1`, `2130706433`, `127.1`) counts as a name.
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME = rf"(?:{LABEL}\.)*[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
URL = re.compile(
    rf"(?P<scheme>https?)://(?:(?P<name>{NAME})|(?P<v4>[0-9.]+)|\[(?P<v6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)",
    re.IGNORECASE,
)
FORBIDDEN = frozenset('"<>\\^`{|}#')
MAX_NAME = 253
DEFAULT_PORTS = {"https": 443, "http": 80}
# The same message for every cause: different ones would reveal names of the internal network.
NOT_PUBLIC = "Its host must have public addresses only, so that no request ends inside this network."


@dataclass(frozen=True, slots=True)
class Target:
    """Parts of a URL. `host` is lower-case and without brackets; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@asynccontextmanager
async def open_resolver(threads: int) -> AsyncIterator[Resolver]:
    """Opens the system's resolver, with threads of its own: a look-up that hangs delays no other part of the process."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="webhook-dns")

    async def resolve(host: str, port: int) -> Sequence[str]:
        answers = await asyncio.get_running_loop().run_in_executor(
            executor, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in answers))

    try:
        yield resolve
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


class AddressGuard:
    """Decides which URLs and addresses requests may go to. `allow_private`, for development, allows all, over http too."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        ports: Collection[int],
        refused: Sequence[Network] = (),
        allow_private: bool = False,
    ) -> None:
        """`ports`: the allowed ones. `refused`: networks that are public and yet off limits."""
        self._resolver = resolver
        self._ports = ports
        self._refused = (*SPECIAL, *refused)
        self._allow_private = allow_private

    async def check(self, url: str) -> Target:
        """Returns the parts of a URL whose host has public addresses only. Raises WebhookUrlRefused."""
        target = self.parse(url)
        await self.resolve(target.host, target.port)
        return target

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Returns the addresses of a host, at least one and each of them allowed. Raises WebhookUrlRefused."""
        try:
            addresses = [ip_address(each) for each in await self._resolver(host, port)]
        except (OSError, ValueError):
            addresses = []
        if not addresses or not all(map(self.allows, addresses)):
            raise WebhookUrlRefused(NOT_PUBLIC)
        return addresses

    def parse(self, url: str) -> Target:
        """Splits a URL into its parts without a look-up. Raises WebhookUrlRefused if it is malformed or not allowed."""
        match = URL.fullmatch(url)
        if match is None or FORBIDDEN & set(url):
            raise WebhookUrlRefused(
                "Write it as https://host/path in plain ASCII: no user name, no fragment, no spaces; "
                "IPv4 addresses as four decimal numbers, IPv6 ones in brackets, other names as xn--…."
            )
        scheme = match["scheme"].lower()
        if scheme != "https" and not self._allow_private:
            raise WebhookUrlRefused("It must begin with https://.")
        port = int(match["port"] or DEFAULT_PORTS[scheme])
        if not 0 < port < 65536 or (port not in self._ports and not self._allow_private):
            raise WebhookUrlRefused(f"Its port must be one of {', '.join(map(str, sorted(self._ports)))}.")
        path = match["target"] if match["target"].startswith("/") else f"/{match['target']}"
        return Target(scheme, _host(match), port, path)

    def allows(self, address: Address) -> bool:
        """Returns whether requests may go to an address."""
        if self._allow_private:
            return True
        if isinstance(address, IPv6Address) and (address not in GLOBAL_IPV6 or address.scope_id is not None):
            return False
        return address.is_global and not any(address in network for network in self._refused)


def _host(match: re.Match[str]) -> str:
    if match["name"]:
        if len(match["name"]) > MAX_NAME:
            raise WebhookUrlRefused(f"Its host name must have at most {MAX_NAME} characters.")
        return match["name"].lower()
    try:
        # These classes accept no leading zeros and no other notation.
        return str(IPv4Address(match["v4"]) if match["v4"] else IPv6Address(match["v6"]))
    except ValueError:
        raise WebhookUrlRefused("Its address must be four decimal numbers, or an IPv6 address in brackets.") from None
