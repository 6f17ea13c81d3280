"""Whom an address stands for when callers are counted by where they come from."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

# What one subscriber gets: counting single IPv6 addresses would count nothing.
_SUBSCRIBER_BITS = 64


@lru_cache(4096)
def neighbourhood(host: str) -> str:
    """Give an IPv4 address as it is, and of an IPv6 address the network of 64 bits that it is in."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _SUBSCRIBER_BITS), strict=False))
