"""Where a webhook may go: never to an address inside our own network. Pure, but for asking a resolver."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from jobs_service.errors import WebhookUrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# Looks a host's addresses up; raises OSError where there are none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# IPv6 outside this is no address of the internet: loopback, local, link-local, multicast, and IPv4 in disguise
# (::ffff:0:0/96, 64:ff9b::/96).
GLOBAL_IPV6 = IPv6Network("2000::/3")
# Inside the internet's ranges and yet not hosts of it, from IANA's special-purpose registries.
SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers (CGNAT); some clouds' metadata
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local; most clouds' metadata
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
            "2002::/16",  # 6to4: IPv4 in disguise
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# Strict on purpose: what two parsers could read in two ways is refused. A name's last label begins with a letter, so that
# no other notation of an IPv4 address (`0x7f.1`, `2130706433`, `127.1`) is a name.
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
# One sentence for all of it: the difference would tell strangers what our own resolver knows.
NOT_PUBLIC = "Its host must have public addresses only, so that no request ends inside this network."


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. `host` is as the Host header has it, without the port; `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class Guard:
    """Decides where requests may go. `allow_private`, for development, lets them go anywhere, over http as well."""

    def __init__(
        self, resolve: Resolve, *, ports: Collection[int], refused: Sequence[Network] = (), allow_private: bool = False
    ) -> None:
        self._resolve = resolve
        self._ports = ports
        self._refused = (*SPECIAL, *refused)
        self._allow_private = allow_private

    async def check(self, url: str) -> tuple[Target, list[Address]]:
        """The target and all addresses it has now, each of which was looked at. Raises WebhookUrlRefused."""
        target = self.parse(url)
        try:
            found = [ip_address(each) for each in await self._resolve(target.host, target.port)]
        except (OSError, ValueError):
            found = []
        if not found or not all(map(self.allows, found)):
            raise WebhookUrlRefused(NOT_PUBLIC)
        return target, found

    def parse(self, url: str) -> Target:
        """Takes a URL apart. Raises WebhookUrlRefused for what is none that we would ever call."""
        found = URL.fullmatch(url)
        if found is None or FORBIDDEN & set(url):
            raise WebhookUrlRefused(
                "Write it as https://host/path in plain ASCII: no user name, no fragment, no spaces; "
                "IPv4 addresses as four decimal numbers, IPv6 ones in brackets, other names as xn--…."
            )
        scheme = found["scheme"].lower()
        if scheme != "https" and not self._allow_private:
            raise WebhookUrlRefused("It must begin with https://.")
        port = int(found["port"] or DEFAULT_PORTS[scheme])
        if not 0 < port < 65536 or (port not in self._ports and not self._allow_private):
            raise WebhookUrlRefused(f"Its port must be one of {', '.join(map(str, sorted(self._ports)))}.")
        path = found["target"] if found["target"].startswith("/") else f"/{found['target']}"
        return Target(scheme, _host(found), port, path)

    def allows(self, address: Address) -> bool:
        """Whether requests may go to this address."""
        if self._allow_private:
            return True
        if isinstance(address, IPv6Address) and (address not in GLOBAL_IPV6 or address.scope_id is not None):
            return False
        return address.is_global and not any(address in network for network in self._refused)


def _host(found: re.Match[str]) -> str:
    if found["name"]:
        if len(found["name"]) > MAX_NAME:
            raise WebhookUrlRefused(f"Its host name must have at most {MAX_NAME} characters.")
        return found["name"].lower()
    try:
        # Without leading zeros or any other notation: these classes take none.
        return str(IPv4Address(found["v4"]) if found["v4"] else IPv6Address(found["v6"]))
    except ValueError:
        raise WebhookUrlRefused("Its address must be four decimal numbers, or an IPv6 address in brackets.") from None
