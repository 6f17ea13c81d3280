"""Which addresses a webhook may reach: those of the public internet, and what the operator allows besides.

A URL is a caller's choice, and the service stands where the caller does not: beside databases, on machines whose cloud
hands out credentials at a fixed address. So the rule is asked of the very address that is connected to, not of a name.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARS = 2_048
"""The longest URL that is taken."""

_REFUSED_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address of a provider's own network"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "an address of a cloud's own services"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a relay address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for measurements"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_REFUSED_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("::ffff:0:0/96", "an IPv4 address inside an IPv6 one"),
        ("64:ff9b::/96", "an IPv4 address inside an IPv6 one"),
        ("64:ff9b:1::/48", "an IPv4 address inside an IPv6 one"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for documentation"),
        ("2002::/16", "an IPv4 address inside an IPv6 one"),
        ("3fff::/20", "an address for documentation"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a private address"),
        ("ff00::/8", "a multicast address"),
    )
)

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})?")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]+")
_PRINTABLE = re.compile(r"[!-~]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MOST_PARTS = 4


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a URL leads: ``host`` without brackets and in lower case, ``path`` with the query."""

    secure: bool
    host: str
    port: int
    path: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed although it is not public: networks, and hosts whatever their address; all by the operator."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    def problem(self, host: str, address: Address) -> str | None:
        """Say why this address of a host may not be connected to; ``None`` if it may."""
        if host in self.hosts or self._allows(address):
            return None
        if isinstance(address, IPv4Address):
            return next((why for network, why in _REFUSED_V4 if address in network), None)
        why = next((why for network, why in _REFUSED_V6 if address in network), None)
        return why if why or address in _PUBLIC_V6 else "a reserved address"

    def _allows(self, address: Address) -> bool:
        # To a socket, ::ffff:10.0.0.1 is 10.0.0.1.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any(address in network or (mapped is not None and mapped in network) for network in self.networks)

    def problem_of_host(self, host: str) -> str | None:
        """Say why a host may not be named at all: it is an address, in any notation, that may not be reached."""
        if host in self.hosts:
            return None
        if host == "localhost" or host.endswith(".localhost"):
            return self.problem(host, IPv4Address("127.0.0.1"))
        address = literal(host)
        return None if address is None else self.problem(host, address)


def parse_policy(entries: Sequence[str]) -> Policy:
    """Read what an operator allows: networks as ``10.0.0.0/8``, addresses, names of hosts. Raises ``ValueError``."""
    networks: list[Network] = []
    hosts: set[str] = set()
    for entry in entries:
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            if "/" in entry or literal(entry) is not None or not _HOST.fullmatch(entry):
                message = f"`{entry}` is neither a network such as 10.0.0.0/8 nor the name of a host"
                raise ValueError(message) from error
            hosts.add(entry.lower().rstrip("."))
    return Policy(networks=tuple(networks), hosts=frozenset(hosts))


def literal(host: str) -> Address | None:
    """Read a host that is an address, in any notation that the system's resolver takes; ``None`` if it is a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return _old_notation(host)


def _old_notation(host: str) -> IPv4Address | None:
    """Read what ``inet_aton`` reads: parts, the last one wide, octal after ``0``, hexadecimal after ``0x``."""
    parts = host.split(".")
    if len(parts) > _MOST_PARTS or not all(map(_NUMBER.fullmatch, parts)):
        return None
    try:
        numbers = [_number(part) for part in parts]
        *leading, last = numbers
        value = int.from_bytes(bytes(leading), "big") << 8 * (_MOST_PARTS - len(leading))
        if last >= 1 << 8 * (_MOST_PARTS - len(leading)):
            return None
        return IPv4Address(value | last)
    except ValueError:
        return None


def _number(part: str) -> int:
    if part[:2].lower() == "0x":
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") else int(part)


def parse_url(url: str) -> Target:
    """Read the URL of a receiver. Raises ``ValueError`` with what is wrong with it; the URL is not quoted."""
    if len(url) > URL_CHARS:
        raise ValueError(f"it has more than {URL_CHARS:,} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise ValueError("it has characters that must be percent-encoded; write a host with others in punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    _check(parts, port)
    return Target(
        secure=parts.scheme == "https",
        host=(parts.hostname or "").rstrip("."),
        port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _check(parts: SplitResult, port: int | None) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("it must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("a user or password does not belong into it")
    if parts.fragment:
        raise ValueError("a fragment (`#…`) is never sent to a server; leave it out")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) and not _is_address(host):
        raise ValueError("it names no host")
    if port == 0:
        raise ValueError("port 0 cannot be called")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host
