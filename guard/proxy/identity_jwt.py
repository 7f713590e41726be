"""Signed tokens (RFC 7519, RFC 8725) in a header name the client. Imported only by policies that have a jwt source.

What is believed, and what is not:

* The key is one of the JWKS file's, never one that the token brings or points to: `jwk`, `x5c`, `jku` and `x5u` are not
  looked at.
* The algorithm is one of the policy's and fits the key's type, curve and `alg`. Only asymmetric public keys are loaded,
  so neither `none` nor an HMAC with a public key as its secret can verify anything.
* `kid` chooses among the file's keys by equality; nothing is looked up with it. Without it, exactly one key must fit.
* A token that makes any header critical (`crit`) or changes how it is signed (`b64`) is refused.
* `exp` and `aud` must be there; `iss` when the policy names one; `nbf` and `iat` when the token has them.

joserfc does the cryptography and the claims. A verified token is remembered until it expires, so that a client pays for
one verification; what failed is never remembered, so nobody can push others out with garbage.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from joserfc import jwa, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from guard.errors import InvariantError, Problem
from guard.model.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from joserfc.jwk import Key

    from guard.policy.schema import JwtIdentity

MAX_TOKEN_BYTES = 8 * 2**10
_MAX_NAME_CHARS = 256
_MAX_KEYS = 64
_HINT = 'a JSON Web Key Set: {"keys": [...]} with the issuer\'s public keys'
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: dict[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA", "Ed25519"),
}
"""Which algorithms a key's type and curve can serve."""
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))

Object = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key that may verify tokens.

    Args:
        kid: its id; None when it has none.
        algorithms: what it may be used with.
        key: joserfc's.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: Key


class _Registry(jws.JWSRegistry):
    """Allows exactly the policy's algorithms. joserfc's own warns at every use of `EdDSA`, which RFC 9864 renamed."""

    def get_alg(self, name: str) -> jwa.JWSAlgModel:
        if name not in (self.allowed or ()):
            raise JoseError("algorithm not allowed")
        return self.algorithms[name]


class JwtSource:
    """Finds the client of a token.

    Args:
        spec: the policy's.
        keys: from the JWKS file.
        suffix: tells apart the names of several issuers; empty for the first.
        wall_s: seconds since the epoch.
        cached: how many verified tokens are remembered.
    """

    def __init__(
        self,
        spec: JwtIdentity,
        keys: list[VerifyingKey],
        suffix: str,
        wall_s: Callable[[], float],
        cached: int = 4096,
    ) -> None:
        self._cached = cached
        self._keys = keys
        self._spec = spec
        self._prefix = f"jwt{suffix}:"
        self._group_prefix = f"jwt-group{suffix}:"
        self._wall_s = wall_s
        self._registry = _Registry(algorithms=spec.algorithms, strict_check_header=False)
        issuer: Any = {} if spec.issuer is None else {"iss": {"essential": True, "value": spec.issuer}}
        self._claims = JWTClaimsRegistry(
            now=lambda: int(wall_s()),
            leeway=spec.leeway_s,
            exp={"essential": True},
            aud={"essential": True, "value": spec.audience},
            **issuer,
        )
        self._verified: OrderedDict[bytes, tuple[Client, float]] = OrderedDict()

    def find(self, value: bytes) -> Client | None:
        """Return the token's client; None when anything about the token is wrong."""
        if len(value) > MAX_TOKEN_BYTES:
            return None
        digest = hashlib.sha256(value).digest()
        known = self._verified.get(digest)
        if known is not None:
            client, until_s = known
            if self._wall_s() < until_s:
                self._verified.move_to_end(digest)
                return client
            del self._verified[digest]
            return None
        try:
            claims = self._verify(value)
            self._claims.validate(claims)
            client = self._client(claims)
        except (JoseError, ValueError, TypeError, OverflowError, RecursionError):
            # What joserfc and the JSON decoder raise for tokens made to confuse them.
            return None
        # The same bound as joserfc's, which reads the clock in whole seconds.
        self._verified[digest] = (client, claims["exp"] + self._spec.leeway_s)
        if len(self._verified) > self._cached:
            self._verified.popitem(last=False)
        return client

    def _verify(self, value: bytes) -> Object:
        """Return the claims of a token whose signature holds."""
        token = jws.extract_compact(value, registry=self._registry)
        header = cast("object", token.protected)  # joserfc promises an object and does not check it
        if not isinstance(header, dict) or "crit" in header or "b64" in header:
            raise ValueError("header")
        key = self._key(cast("Object", header))
        if key is None or not jws.validate_compact(token, key, registry=self._registry):
            raise ValueError("signature")
        claims: object = json.loads(token.payload or b"")
        if not isinstance(claims, dict):
            raise ValueError("claims")
        return cast("Object", claims)

    def _key(self, header: Object) -> Key | None:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
            return None
        fitting = [key.key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 else None

    def _client(self, claims: Object) -> Client:
        name = self._prefix + _plain(claims.get(self._spec.claim))
        group = claims.get(self._spec.group_claim) if self._spec.group_claim is not None else None
        return Client(name, name if group is None else self._group_prefix + _plain(group), "jwt")


def _plain(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_CHARS or not value.isprintable():
        raise ValueError("name")
    return value


def read_key_set(data: bytes, algorithms: tuple[str, ...]) -> tuple[list[VerifyingKey], list[Problem], list[str]]:
    """Read a JWKS file.

    Args:
        data: its bytes.
        algorithms: the policy's.

    Returns:
        The keys that can verify a token, every mistake, and what is passed over. No message repeats key material.
    """
    try:
        document: Any = json.loads(data)
    except json.JSONDecodeError as error:
        return [], [Problem(f"not JSON: {error.msg}", line=error.lineno, hint=_HINT)], []
    except (ValueError, RecursionError):
        return [], [Problem("not JSON", hint=_HINT)], []
    listed: Any = cast("Object", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(cast("list[Any]", listed)) > _MAX_KEYS:
        return [], [Problem(f"no list of at most {_MAX_KEYS} keys", hint=_HINT)], []
    keys: list[VerifyingKey] = []
    problems: list[Problem] = []
    passed_over: list[str] = []
    for index, jwk in enumerate(cast("list[object]", listed)):
        try:
            keys.append(_read_key(jwk, algorithms))
        except _UnfitError as unfit:
            passed_over.append(f"keys[{index}] {unfit}")
        except ValueError as error:
            problems.append(Problem(f"keys[{index}] {error}", hint=_HINT))
    problems += _ambiguous(keys)
    if not keys and not problems:
        problems.append(Problem(f"no key can verify any of {', '.join(algorithms)}", hint=_HINT))
    return keys, problems, passed_over


class _UnfitError(Exception):
    """A key that a key set may hold and that is of no use here (RFC 7517, section 5)."""


def _read_key(jwk: object, algorithms: tuple[str, ...]) -> VerifyingKey:
    if not isinstance(jwk, dict):
        raise ValueError("is not an object")
    member = cast("Object", jwk)
    kind, curve, kid = member.get("kty"), member.get("crv", ""), member.get("kid")
    if kind == "oct":
        raise ValueError("is symmetric: whoever can check a token with it can also sign one")
    if _PRIVATE & member.keys():
        raise ValueError("is a private key, which Guard has no use for")
    if not isinstance(kind, str) or not isinstance(curve, str) or not (kid is None or isinstance(kid, str)):
        raise ValueError("has no kty, or a crv or kid that is not a text")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not isinstance(member.get("alg", ""), str):
        raise ValueError("is malformed")
    if member.get("use", "sig") != "sig" or "verify" not in operations:
        raise _UnfitError("is not for signatures")
    fitting = frozenset(_FITTING.get((kind, curve), ()))
    if "alg" in member:
        named = {"EdDSA", "Ed25519"} if member["alg"] in ("EdDSA", "Ed25519") else {member["alg"]}
        fitting &= named
    fitting &= frozenset(algorithms)
    if not fitting:
        raise _UnfitError("serves none of the policy's algorithms")
    return VerifyingKey(kid, fitting, _import(member))


def _import(jwk: Object) -> Key:
    try:
        with warnings.catch_warnings():
            # A short RSA key is only a warning to joserfc.
            warnings.simplefilter("error")
            key = JWKRegistry.import_key(jwk)
            if not isinstance(key, RSAKey | ECKey | OKPKey):
                raise InvariantError("a symmetric key was let in")
            _ = key.public_key  # reads the numbers, and refuses a point that is not on its curve
    except Warning as error:
        raise ValueError("is too short: RSA keys have at least 2048 bits") from error
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ValueError("is malformed") from error
    return key


def _ambiguous(keys: list[VerifyingKey]) -> list[Problem]:
    """Return a problem for each id that two keys have for the same algorithm."""
    seen: set[tuple[str, str]] = set()
    twice: dict[str, None] = {}
    for key in keys:
        for algorithm in key.algorithms if key.kid is not None else ():
            if (key.kid or "", algorithm) in seen:
                twice[key.kid or ""] = None
            seen.add((key.kid or "", algorithm))
    return [Problem(f"two keys have the id {kid!r}", hint="kid is unique") for kid in twice]
