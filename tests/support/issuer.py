"""An OpenID Connect provider on loopback: a discovery document, a set of keys, and tokens that it signs or forges."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from typing import Self

AUDIENCE = "api://overnight"
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey


class Issuer:
    """Serves what an identity provider serves. ``down`` makes it answer 503, ``asked`` counts what it was asked."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {"rsa-1": new_rsa(), "ec-1": ec.generate_private_key(ec.SECP256R1())}
        self.extra: list[Mapping[str, Any]] = []
        self.down = False
        self.asked = {"discovery": 0, "keys": 0}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The claim `iss` of its tokens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/tenant/v2.0"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def claims(self, **changed: object) -> dict[str, object]:
        """Give the claims of a good token; what is changed to ``None`` is left out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "azp": "team",
            "roles": ["overnight.submit"],
            "iat": now,
            "nbf": now,
            "exp": now + 3_600,
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def token(self, *, key: str = "rsa-1", **changed: object) -> str:
        """Sign the claims of a good token, or changed ones."""
        return self.signed(self.claims(**changed), key)

    def signed(self, claims: Mapping[str, object], key: str, **head: object) -> str:
        """Sign any claims, below any head."""
        private = self.keys[key]
        algorithm = "RS256" if isinstance(private, RSAPrivateKey) else "ES256"
        return jwt.encode(dict(claims), private, algorithm=algorithm, headers={"kid": key, **head})

    def public_pem(self, key: str) -> bytes:
        """Give a public key as text, which a forger may use as a shared secret."""
        return self.keys[key].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def key_set(self) -> dict[str, Any]:
        """Give the public keys."""
        return {"keys": [*(public_jwk(name, key) for name, key in self.keys.items()), *self.extra]}

    def _answer(self, path: str) -> object | None:
        if path == "/tenant/v2.0/.well-known/openid-configuration":
            self.asked["discovery"] += 1
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/tenant/v2.0/keys":
            self.asked["keys"] += 1
            return self.key_set()
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = issuer._answer(self.path)
                status = 503 if issuer.down else 404 if found is None else 200
                body = json.dumps(found).encode() if status == 200 else b""
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def new_rsa(bits: int = 2_048) -> RSAPrivateKey:
    """Make an RSA key."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def public_jwk(name: str, key: PrivateKey) -> dict[str, Any]:
    """Give the public half of a key as an issuer shows it."""
    kinds: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kinds.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}


def forged(head: Mapping[str, object], claims: Mapping[str, object], signature: bytes = b"") -> str:
    """Put a token together that no library would sign."""
    parts = (json.dumps(head).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
