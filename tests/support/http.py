"""Plain HTTP, so that tests see the very bytes: paths, headers and bodies go out and come back as they are."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 30.0
BOUNDARY = "----overnight-tests"

_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a multipart body; ``filename`` and ``kind`` may be left out."""

    name: str
    data: bytes | str
    filename: str | None = None
    kind: str | None = None

    def encode(self) -> bytes:
        """Give the part as it is sent, as SDKs write it: names in plain UTF-8."""
        head = f'Content-Disposition: form-data; name="{self.name}"'
        if self.filename is not None:
            head += f'; filename="{self.filename}"'
        if self.kind is not None:
            head += f"\r\nContent-Type: {self.kind}"
        data = self.data.encode() if isinstance(self.data, str) else self.data
        return b"".join((f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode(), data, b"\r\n"))


class Http:
    """Calls one server; ``headers`` go with every call."""

    def __init__(self, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        self._url = url
        self._headers = headers

    def with_headers(self, headers: Mapping[str, str]) -> Http:
        """Give the same with other headers."""
        return Http(self._url, headers)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Reply:
        """Make one call on a connection of its own."""
        connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=TIMEOUT)
        try:
            connection.request(method, path, body=body, headers={**self._headers, **headers})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=names, body=response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] = _NO_HEADERS) -> Reply:
        """GET."""
        return self.call("GET", path, headers=headers)

    def delete(self, path: str) -> Reply:
        """DELETE."""
        return self.call("DELETE", path)

    def post(self, path: str, content: object = None) -> Reply:
        """POST with a JSON body, or with none."""
        body = b"" if content is None else json.dumps(content).encode()
        return self.call("POST", path, body, {"content-type": "application/json"})

    def post_form(self, path: str, parts: Sequence[Part]) -> Reply:
        """POST a multipart body, its parts in this order."""
        body = b"".join(part.encode() for part in parts) + f"--{BOUNDARY}--\r\n".encode()
        return self.call("POST", path, body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
