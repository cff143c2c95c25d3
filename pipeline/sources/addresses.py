"""Which web addresses may be asked: checked URLs, public hosts, connections to what was checked."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import anyio
import httpcore
import httpx

from pipeline.sources.base import BadRow
from pipeline.sources.fields import show_place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Azure answers machines about themselves from an address that looks public.
_CLOUD = frozenset({ipaddress.ip_address("168.63.129.16")})
_LONGEST_URL = 8192


def parse_url(text: str) -> httpx.URL:
    """A URL without its fragment; raises BadRow unless it is http(s), has a host and no credentials."""
    try:
        url = httpx.URL(text.strip()).copy_with(fragment=None)
        raw_host = url.raw_host
    except (httpx.InvalidURL, ValueError) as error:
        raise BadRow("not a URL", f"not a URL: {show_place(str(error))}") from None
    if url.scheme not in ("http", "https"):
        raise BadRow("not http", f"the scheme is {url.scheme or 'missing'!r}, must be http or https")
    if url.userinfo:
        raise BadRow("credentials in the URL", "the URL holds a user name or password; lists must not")
    if not raw_host or b"%" in raw_host:
        raise BadRow("not a URL", "the URL has no usable host")
    if url.port is not None and not 0 < url.port < 65536:
        raise BadRow("not a URL", f"the port is {url.port}, must be 1 to 65535")
    if len(str(url)) > _LONGEST_URL:
        raise BadRow("not a URL", f"the URL is longer than {_LONGEST_URL} characters")
    return url


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet; one wrapped into another is judged itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    odd = address.is_private or address.is_multicast or address.is_reserved or address in _CLOUD
    return address.is_global and not odd


@dataclass(frozen=True)
class AddressRule:
    """Which addresses may be connected to: public ones, and others if all or their network are allowed."""

    all_private: bool = False
    networks: tuple[Network, ...] = ()

    def permits(self, address: str) -> bool:
        """Whether a numeric address may be connected to."""
        parsed = ipaddress.ip_address(address)
        return self.all_private or is_public(parsed) or any(parsed in network for network in self.networks)

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise BadRow if any address of a host is refused: a host that mixes them is not to be trusted."""
        for address in addresses:
            if not self.permits(address):
                raise BadRow("private address", f"{host} has the address {address}, which is not public")


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a host once, checks what came out and connects to just that: no second look-up can differ."""

    def __init__(self, rule: AddressRule) -> None:
        self._rule = rule
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers; raises BadRow if the rule refuses one."""
        try:
            with anyio.fail_after(timeout):
                addresses = await _resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        self._rule.check(host, addresses)
        for last, address in enumerate(addresses, 1):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last == len(addresses):
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refused: a URL has no business there."""
        raise BadRow("private address", "unix sockets are not asked")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise httpcore.ConnectError(f"{host} could not be looked up") from None
        raise BadRow("unknown host", f"{host} is not known") from None
    except UnicodeError:
        raise BadRow("unknown host", f"{host} is no host name") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
