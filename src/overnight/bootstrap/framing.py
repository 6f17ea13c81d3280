"""What may not stand in the head of a request, beyond what the parser refuses: what two readers read in two ways."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]


class Malformed(Exception):
    """A head that is refused; its text says why, and holds nothing of it."""


def check_head(method: bytes, version: str, headers: Headers) -> None:
    """Refuse what a proxy in front may have read otherwise (RFC 9112, sections 3.2 and 6.1). Raises ``Malformed``."""
    if method == b"CONNECT":
        raise Malformed("This is no proxy")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and version != "1.1":
        raise Malformed(f"HTTP/{version} has no Transfer-Encoding")
    if codings and [coding.strip().lower() for coding in codings] != [b"chunked"]:
        raise Malformed("The only Transfer-Encoding is chunked")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise Malformed("There must be one Host")


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Give the head of a request that asks for another protocol as that of one that does not."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
