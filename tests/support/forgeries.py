"""Tokens that nobody may accept, each with one thing wrong."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from tests.support.issuer import Issuer, forged, new_rsa


def hs256(issuer: Issuer) -> str:
    """Sign with the public key as if it were a shared secret."""
    unsigned = forged({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, issuer.claims())[:-1]
    signature = hmac.digest(issuer.public_pem("rsa-1"), unsigned.encode(), hashlib.sha256)
    return unsigned + forged({}, {}, signature)[len(forged({}, {})) - 1 :]


def signed_by_another(issuer: Issuer) -> str:
    with_other_key = Issuer()
    with_other_key.keys = {"rsa-1": new_rsa()}
    token = with_other_key.signed(issuer.claims(), "rsa-1")
    with_other_key._server.server_close()  # noqa: SLF001 - it was never started
    return token


BAD: dict[str, Callable[[Issuer], str]] = {
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 61),
    "without expiry": lambda issuer: issuer.token(exp=None),
    "expires never": lambda issuer: issuer.token(exp=float("inf")),
    "not yet valid": lambda issuer: issuer.token(nbf=int(time.time()) + 120),
    "issued later": lambda issuer: issuer.token(iat=int(time.time()) + 120),
    "wrong audience": lambda issuer: issuer.token(aud="api://another"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "wrong issuer": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "alg none": lambda issuer: forged({"alg": "none", "kid": "rsa-1"}, issuer.claims()),
    "alg None": lambda issuer: forged({"alg": "None", "kid": "rsa-1"}, issuer.claims(), b"x"),
    "HS256 with the public key": hs256,
    "RS256 for a key of EC": lambda issuer: forged({"alg": "RS256", "kid": "ec-1"}, issuer.claims(), b"x" * 256),
    "PS256, which is not allowed": lambda issuer: forged({"alg": "PS256", "kid": "rsa-1"}, issuer.claims(), b"x"),
    "signed by another": signed_by_another,
    "signature cut off": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "signature changed": lambda issuer: changed_signature(issuer.token()),
    "claims changed": lambda issuer: changed_claims(issuer.token(), issuer.claims(azp="other-team")),
    "critical extension": lambda issuer: issuer.signed(issuer.claims(), "rsa-1", crit=["exp"]),
    "no key id": lambda issuer: forged({"alg": "RS256"}, issuer.claims(), b"x"),
    "key id of another type": lambda issuer: forged({"alg": "RS256", "kid": 7}, issuer.claims(), b"x"),
    "unknown key id": lambda issuer: forged({"alg": "RS256", "kid": "nope"}, issuer.claims(), b"x"),
    "no JSON": lambda issuer: "a.b.c",
    "empty": lambda issuer: "..",
    "deep": lambda issuer: forged_text("[" * 7_000),
    "too long": lambda issuer: issuer.token(azp="x" * 16_000),
}


def forged_text(head: str) -> str:
    return forged({}, {}, head.encode())[len(forged({}, {})) :] + ".e30.e30"


def changed_signature(token: str) -> str:
    head, _, signature = token.rpartition(".")
    return f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def changed_claims(token: str, claims: dict[str, object]) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{forged({}, claims).split('.')[1]}.{signature}"
