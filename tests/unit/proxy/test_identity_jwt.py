from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from guard.errors import Denied, PolicyError
from guard.model.client import Client
from guard.policy.schema import JwtIdentity
from guard.proxy.identity import Identity
from guard.proxy.identity_jwt import JwtSource, VerifyingKey, read_key_set

NOW = 1_800_000_000
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
FOREIGN = RSAKey.generate_key(2048, {"kid": "rsa"})
HEADER = "authorization"

Object = dict[str, Any]  # Any: JSON


@dataclass
class Now:
    """A clock that tests move."""

    s: float = NOW

    def __call__(self) -> float:
        return self.s


@dataclass
class Bench:
    """An identity with one token source, and a clock."""

    folder: Path
    now: Now = field(default_factory=Now)

    def spec(self, keys: list[Object], **parameters: Any) -> JwtIdentity:  # Any: the spec's fields
        path = self.folder / f"{parameters.pop('name', 'jwks')}.json"
        path.write_text(json.dumps({"keys": keys}))
        return JwtIdentity(
            kind="jwt", jwks_file=str(path), audience=parameters.pop("audience", "scoring"), **parameters
        )

    def identity(self, *keys: Key, **parameters: Any) -> Identity:  # Any: the spec's fields
        specs = (self.spec([public(key) for key in keys or (RSA, EC, ED)], **parameters),)
        return Identity.load(specs, wall_s=self.now)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def public(key: Key, **parameters: object) -> Object:
    return {**key.as_dict(private=False), **parameters}


def claims(**more: object) -> Object:
    made: Object = {"sub": "alice", "aud": "scoring", "exp": NOW + 600, **more}
    return {key: value for key, value in made.items() if value is not None}


def token(key: Key = RSA, alg: str = "RS256", body: Object | None = None, **header: object) -> str:
    made = {"alg": alg, "kid": key.kid, **header}
    registry = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms), strict_check_header=False)
    payload = json.dumps(body or claims())
    return jws.serialize_compact({k: v for k, v in made.items() if v is not None}, payload, key, registry=registry)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: object, body: object, signature: bytes = b"") -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}.{b64(signature)}"


def who(identity: Identity, value: str | bytes) -> Client:
    sent = value if isinstance(value, bytes) else f"Bearer {value}".encode()
    return identity.identify([(HEADER.encode(), sent)], "192.0.2.1")


def refused(identity: Identity, value: str | bytes) -> None:
    with pytest.raises(Denied) as caught:
        who(identity, value)
    assert (caught.value.status, caught.value.code) == (401, "unknown_credential")
    assert caught.value.message == "the credential is not known"


class TestGoodTokens:
    @pytest.mark.parametrize(
        ("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), pytest.param(ED, "EdDSA", id="EdDSA")]
    )
    @pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # signing in the test; verifying does not warn
    def test_each_default_algorithm_names_the_client(self, bench: Bench, key: Key, alg: str) -> None:
        assert who(bench.identity(), token(key, alg)) == Client("jwt:alice", "jwt:alice", "jwt")

    def test_the_group_claim_names_the_group(self, bench: Bench) -> None:
        identity = bench.identity(group_claim="org")
        assert who(identity, token(body=claims(org="acme"))) == Client("jwt:alice", "jwt-group:acme", "jwt")
        assert who(identity, token(body=claims())).group == "jwt:alice"
        assert who(identity, token(body=claims(org=None))).group == "jwt:alice"

    def test_another_claim_names_the_client(self, bench: Bench) -> None:
        assert who(bench.identity(claim="client_id"), token(body=claims(client_id="svc"))).name == "jwt:svc"

    def test_one_of_several_audiences_is_enough(self, bench: Bench) -> None:
        assert who(bench.identity(), token(body=claims(aud=["other", "scoring"]))).name == "jwt:alice"

    def test_unknown_header_members_are_passed_over(self, bench: Bench) -> None:
        assert who(bench.identity(), token(nonce="x", x5t="abc")).name == "jwt:alice"

    def test_a_custom_header_may_hold_the_bare_token(self, bench: Bench) -> None:
        identity = bench.identity(header="Cf-Access-Jwt-Assertion")
        assert identity.identify([(b"cf-access-jwt-assertion", token().encode())], "").name == "jwt:alice"
        assert b"cf-access-jwt-assertion" in identity.strip

    def test_a_single_fitting_key_needs_no_id(self, bench: Bench) -> None:
        assert who(bench.identity(RSA, EC), token(EC, "ES256", kid=None)).name == "jwt:alice"

    def test_clocks_may_differ_by_the_leeway(self, bench: Bench) -> None:
        identity = bench.identity(leeway_s=30)
        assert who(identity, token(body=claims(exp=NOW - 29, nbf=NOW + 29, iat=NOW + 29))).name == "jwt:alice"

    def test_no_token_means_the_address(self, bench: Bench) -> None:
        assert bench.identity().identify([], "192.0.2.1").name == "address:192.0.2.1"


class TestForgedSignatures:
    def test_alg_none_is_refused(self, bench: Bench) -> None:
        for alg in ("none", "None", "NONE", ""):
            refused(bench.identity(), unsigned({"alg": alg, "kid": "rsa"}, claims()))
            refused(bench.identity(), unsigned({"alg": alg}, claims()))

    def test_a_public_key_is_no_hmac_secret(self, bench: Bench) -> None:
        for secret in (RSA.as_pem(private=False), RSA.as_pem(private=False).strip(), json.dumps(public(RSA)).encode()):
            signing = unsigned({"alg": "HS256", "kid": "rsa"}, claims()).rpartition(".")[0]
            signature = hmac.new(secret, signing.encode(), hashlib.sha256).digest()
            refused(bench.identity(), f"{signing}.{b64(signature)}")

    def test_another_key_with_the_same_id_is_refused(self, bench: Bench) -> None:
        refused(bench.identity(), token(FOREIGN))

    def test_an_embedded_key_is_not_believed(self, bench: Bench) -> None:
        refused(bench.identity(), token(FOREIGN, jwk=public(FOREIGN)))
        refused(bench.identity(), token(FOREIGN, kid=None, jwk=public(FOREIGN)))

    @pytest.mark.parametrize("member", ["jku", "x5u"])
    def test_a_key_elsewhere_is_not_fetched(self, bench: Bench, member: str) -> None:
        refused(bench.identity(), token(FOREIGN, "RS256", None, **{member: "https://evil.example/keys"}))

    def test_an_embedded_certificate_is_not_believed(self, bench: Bench) -> None:
        refused(bench.identity(), token(FOREIGN, x5c=["MIIB"]))

    @pytest.mark.parametrize("kid", ["", "../../dev/null", "rsa' OR 1=1 --", "/dev/null", "RSA", "rsa\0", "ec"])
    def test_an_id_is_only_compared(self, bench: Bench, kid: str) -> None:
        refused(bench.identity(), token(RSA, kid=kid))

    @pytest.mark.parametrize("kid", [5, ["rsa"], {"rsa": 1}, True])
    def test_an_id_that_is_no_text_is_refused(self, bench: Bench, kid: object) -> None:
        refused(bench.identity(), unsigned({"alg": "RS256", "kid": kid}, claims(), b"x" * 256))

    @pytest.mark.parametrize("alg", [None, 5, ["RS256"], {}, "RS1", "ES256K"])
    def test_a_strange_algorithm_is_refused(self, bench: Bench, alg: object) -> None:
        refused(bench.identity(), unsigned({"alg": alg, "kid": "rsa"}, claims(), b"x" * 256))

    def test_without_an_id_two_fitting_keys_are_too_many(self, bench: Bench) -> None:
        other = RSAKey.generate_key(2048, {"kid": "other"})
        refused(bench.identity(RSA, other), token(kid=None))

    def test_a_critical_header_is_refused_even_when_it_is_understood(self, bench: Bench) -> None:
        refused(bench.identity(), token(crit=["kid"]))
        refused(bench.identity(), unsigned({"alg": "RS256", "kid": "rsa", "crit": 5}, claims(), b"x" * 256))
        refused(bench.identity(), unsigned({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False}, claims()))
        refused(bench.identity(), unsigned({"alg": "RS256", "kid": "rsa", "b64": True}, claims(), b"x" * 256))

    def test_an_algorithm_that_the_policy_does_not_name_is_refused(self, bench: Bench) -> None:
        refused(bench.identity(algorithms=("PS256",)), token(RSA, "RS256"))

    def test_an_algorithm_that_the_key_does_not_name_is_refused(self, bench: Bench) -> None:
        spec = bench.spec([public(RSA, alg="PS256"), public(EC)])
        refused(Identity.load((spec,), wall_s=bench.now), token(RSA, "RS256"))

    def test_a_changed_payload_is_refused(self, bench: Bench) -> None:
        header, _, signature = token().split(".")
        refused(bench.identity(), f"{header}.{b64(json.dumps(claims(sub='bob')).encode())}.{signature}")

    def test_a_stripped_signature_is_refused(self, bench: Bench) -> None:
        refused(bench.identity(), token().rpartition(".")[0] + ".")

    def test_an_elliptic_signature_of_zeros_is_refused(self, bench: Bench) -> None:
        refused(bench.identity(), unsigned({"alg": "ES256", "kid": "ec"}, claims(), bytes(64)))


class TestWrongClaims:
    @pytest.mark.parametrize(
        "more",
        [
            {"exp": None},
            {"exp": NOW - 31},
            {"exp": NOW - 30},
            {"exp": str(NOW + 600)},
            {"exp": True},
            {"exp": float("nan")},
            {"exp": float("inf")},
            {"nbf": NOW + 31},
            {"iat": NOW + 31},
            {"aud": None},
            {"aud": "other"},
            {"aud": ["other"]},
            {"aud": []},
            {"aud": {"scoring": 1}},
            {"aud": "scoring2"},
            {"iss": "https://evil.example"},
            {"iss": None},
            {"iss": ["https://issuer.example"]},
            {"sub": None},
            {"sub": ""},
            {"sub": 7},
            {"sub": ["alice"]},
            {"sub": "a" * 257},
            {"sub": "ali\nce"},
            {"sub": "ali\u202ece"},
            {"sub": "\ud800"},
            {"org": 7},
            {"org": ""},
            {"org": ["a", "b"]},
        ],
    )
    def test_a_token_with_a_wrong_claim_is_refused(self, bench: Bench, more: Object) -> None:
        identity = bench.identity(issuer="https://issuer.example", group_claim="org")
        good = claims(iss="https://issuer.example")
        assert who(identity, token(body=good)).name == "jwt:alice"
        body = {key: value for key, value in {**good, **more}.items() if value is not None}
        refused(identity, token(body=body))

    @pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"{", b"", b"\xff", b"[" * 3000])
    def test_a_signed_payload_that_is_no_object_is_refused(self, bench: Bench, body: bytes) -> None:
        refused(bench.identity(), jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, body, RSA))


class TestMalformedTokens:
    @pytest.mark.parametrize(
        "value",
        [
            b"Basic YWxpY2U6cHc=",
            b"Bearer",
            b"Bearer a.b",
            b"Bearer a.b.c.d.e",
            b"Bearer ..",
            b"Bearer \xff.\xff.\xff",
            b"Bearer e30.e30.e30",
            f"Bearer {b64(b'[]')}.e30.e30".encode(),
            f"Bearer {b64(b'[1]')}.e30.e30".encode(),
            f"Bearer {b64(json.dumps(['alg']).encode())}.e30.e30".encode(),
            f"Bearer {b64(json.dumps(['alg', 'b64']).encode())}.e30.e30".encode(),
            f"Bearer {b64(b'[' * 300)}.e30.e30".encode(),
            f"Bearer {b64(b'9' * 300)}.e30.e30".encode(),
        ],
    )
    def test_garbage_is_refused(self, bench: Bench, value: bytes) -> None:
        refused(bench.identity(), value)

    def test_a_long_token_is_refused_before_it_is_read(self, bench: Bench) -> None:
        identity = bench.identity()
        assert who(identity, token(body=claims(pad="x" * 4000))).name == "jwt:alice"
        refused(identity, token(body=claims(pad="x" * 8000)))

    @given(st.binary(max_size=200))
    def test_any_bytes_name_nobody(self, value: bytes) -> None:
        source = JwtSource(SPEC, [VerifyingKey("rsa", frozenset(("RS256",)), RSA)], "", Now())
        assert source.find(value) is None

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5))
    def test_any_header_names_nobody(self, header: object) -> None:
        source = JwtSource(SPEC, [VerifyingKey("rsa", frozenset(("RS256",)), RSA)], "", Now())
        assert source.find(unsigned({"alg": "RS256", "kid": header, "crit": header}, claims()).encode()) is None
        assert source.find(unsigned(header, claims()).encode()) is None


SPEC = JwtIdentity(kind="jwt", jwks_file="unread", audience="scoring")


class TestCache:
    def test_a_remembered_token_ends_with_its_expiry(self, bench: Bench) -> None:
        identity, sent = bench.identity(leeway_s=30), token(body=claims(exp=NOW + 10))
        assert who(identity, sent) is who(identity, sent)
        bench.now.s = NOW + 39
        assert who(identity, sent).name == "jwt:alice"
        bench.now.s = NOW + 40
        refused(identity, sent)
        refused(identity, sent)

    def test_a_remembered_token_does_not_help_a_changed_one(self, bench: Bench) -> None:
        identity, sent = bench.identity(), token()
        who(identity, sent)
        refused(identity, sent[:-4] + ("AAAA" if not sent.endswith("AAAA") else "BBBB"))

    def test_what_is_remembered_is_bounded(self, bench: Bench) -> None:
        def sign(n: int) -> bytes:
            return token(ED, "Ed25519", claims(jti=str(n))).encode()

        source = JwtSource(
            SPEC.model_copy(update={"algorithms": ("Ed25519",)}),
            [VerifyingKey("ed", frozenset(("Ed25519",)), ED)],
            "",
            bench.now,
            cached=3,
        )
        first, *others = [sign(n) for n in range(4)]
        remembered = source.find(first)
        assert source.find(first) is remembered
        for sent in others:
            assert source.find(sent) is not None
        again = source.find(first)
        assert again == remembered
        assert again is not remembered


class TestSeveralIssuers:
    @pytest.fixture
    def load(self, bench: Bench) -> Callable[..., Identity]:
        def load(*more: Object) -> Identity:
            specs = [
                bench.spec([public(key)], name=f"jwks{i}", **parameters)
                for i, (key, parameters) in enumerate(zip((RSA, EC, ED), more, strict=False))
            ]
            return Identity.load(tuple(specs), wall_s=bench.now)

        return load

    def test_the_same_subject_of_two_issuers_is_two_clients(self, load: Callable[..., Identity]) -> None:
        identity = load({"issuer": "one"}, {"issuer": "two", "group_claim": "org"})
        assert who(identity, token(RSA, "RS256", claims(iss="one"))).name == "jwt:alice"
        second = who(identity, token(EC, "ES256", claims(iss="two", org="acme")))
        assert second == Client("jwt[two]:alice", "jwt-group[two]:acme", "jwt")

    def test_one_issuer_cannot_sign_for_the_other(self, load: Callable[..., Identity]) -> None:
        refused(load({"issuer": "one"}, {"issuer": "two"}), token(EC, "ES256", claims(iss="one")))

    def test_another_claim_of_the_same_issuer_is_another_name(self, load: Callable[..., Identity]) -> None:
        identity = load({"issuer": "one", "audience": "a"}, {"issuer": "one", "claim": "client_id"})
        found = who(identity, token(EC, "ES256", claims(iss="one", client_id="alice")))
        assert found.name == "jwt[one client_id]:alice"

    def test_two_sources_of_one_issuer_share_their_names(self, load: Callable[..., Identity]) -> None:
        identity = load({"issuer": "one", "audience": "a"}, {"issuer": "one"})
        assert who(identity, token(EC, "ES256", claims(iss="one"))).name == "jwt:alice"

    @pytest.mark.parametrize("more", [({}, {}), ({"issuer": "one"}, {}), ({}, {"issuer": "two"})])
    def test_two_sources_need_an_issuer_each(self, load: Callable[..., Identity], more: tuple[Object, ...]) -> None:
        with pytest.raises(PolicyError) as caught:
            load(*more)
        assert caught.value.problems[0].path == "identity[1].issuer"


class TestKeySet:
    def problems(self, *keys: object) -> list[str]:
        return [p.message for p in read_key_set(json.dumps({"keys": keys}).encode(), ("RS256", "ES256"))[1]]

    def test_symmetric_and_private_keys_are_refused(self) -> None:
        oct_key = OctKey.generate_key(256).as_dict(private=True)
        assert "keys[0] is symmetric" in self.problems(oct_key)[0]
        assert "keys[0] is a private key" in self.problems(RSA.as_dict(private=True))[0]

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("text", "is not an object"),
            ({}, "has no kty"),
            ({"kty": "RSA", "crv": 5}, "has no kty, or a crv"),
            ({"kty": "RSA", "kid": 5}, "kid that is not a text"),
            ({"kty": "RSA", "n": "AQAB"}, "is malformed"),
            ({"kty": "RSA", "n": 5, "e": "AQAB"}, "is malformed"),
            ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, "is malformed"),
            (public(RSA, key_ops=["sign"]), "no key can verify"),
            (public(RSA, key_ops="verify"), "is malformed"),
            (public(RSA, key_ops=5), "is malformed"),
            (public(RSA, alg=["RS256"]), "is malformed"),
        ],
    )
    def test_a_broken_key_is_a_problem(self, key: object, message: str) -> None:
        assert message in self.problems(key)[0]

    @pytest.mark.filterwarnings("ignore:Key size should be")  # the test makes a short key on purpose
    def test_a_short_rsa_key_is_refused(self) -> None:
        short = RSAKey.generate_key(1024)
        assert "too short" in self.problems(public(short))[0]

    def test_two_keys_of_one_id_and_algorithm_are_refused(self) -> None:
        assert self.problems(public(RSA), public(FOREIGN)) == ["two keys have the id 'rsa'"]
        assert self.problems(public(RSA, kid="x"), public(EC, kid="x")) == []

    def test_keys_for_something_else_are_passed_over(self) -> None:
        others = [public(RSA, use="enc"), public(ED), {"kty": "AKP", "alg": "ML-DSA-44"}, public(RSA, alg="RSA-OAEP")]
        keys, problems, warnings = read_key_set(
            json.dumps({"keys": [*others, public(EC)]}).encode(), ("RS256", "ES256")
        )
        assert ([key.kid for key in keys], problems, len(warnings)) == (["ec"], [], 4)
        assert "no key can verify any of RS256, ES256" in self.problems(*others)[0]

    def test_a_key_of_either_name_serves_edwards_curves(self) -> None:
        for written in ("EdDSA", "Ed25519"):
            keys, problems, _ = read_key_set(
                json.dumps({"keys": [public(ED, alg=written)]}).encode(), ("EdDSA", "Ed25519")
            )
            assert (keys[0].algorithms, problems) == ({"EdDSA", "Ed25519"}, [])

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\xff", b"[]", b'{"keys": {}}', b"{}", b"[" * 100_000])
    def test_what_is_no_key_set_is_a_problem(self, data: bytes) -> None:
        keys, problems, _ = read_key_set(data, ("RS256",))
        assert (keys, len(problems)) == ([], 1)

    def test_a_syntax_error_has_its_line(self) -> None:
        assert read_key_set(b'{\n"keys": [\n}', ("RS256",))[1][0].line == 3

    def test_too_many_keys_are_refused(self) -> None:
        assert "at most 64 keys" in self.problems(*[public(EC)] * 65)[0]

    def test_a_problem_names_the_file(self, bench: Bench) -> None:
        spec = bench.spec([])
        with pytest.raises(PolicyError) as caught:
            Identity.load((spec,))
        assert (caught.value.file, caught.value.problems[0].path) == (spec.jwks_file, "identity[0].jwks_file")

    def test_a_missing_file_is_a_problem(self, bench: Bench) -> None:
        spec = bench.spec([]).model_copy(update={"jwks_file": str(bench.folder / "none")})
        with pytest.raises(PolicyError, match="No such file"):
            Identity.load((spec,))

    def test_public_keys_may_be_read_by_everybody_but_written_by_nobody_else(self, bench: Bench) -> None:
        spec = bench.spec([public(EC)])
        Path(spec.jwks_file).chmod(0o644)
        assert Identity.load((spec,)).warnings == ()
        Path(spec.jwks_file).chmod(0o666)
        assert "can be written by others" in Identity.load((spec,)).warnings[0]
