"""Clients that a certificate names: which name counts, and where it stands among other credentials."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from guard.errors import Denied, PolicyError
from guard.model.client import Client
from guard.policy.schema import AnyIdentity, ApiKeyIdentity, ClientCertificateIdentity
from guard.ports import Headers
from guard.proxy.identity import Identity
from guard.proxy.identity_certificate import Certificate, CertificateNames, certificate_of

Name = Literal["common_name", "uri", "dns", "email"]
BOB = Certificate(common_name=("bob",))


def names(
    name: Name = "common_name", group: Literal["organization", "none"] = "none", allow: tuple[str, ...] = ()
) -> CertificateNames:
    return CertificateNames(spec(name, group, allow))


def spec(
    name: Name = "common_name", group: Literal["organization", "none"] = "none", allow: tuple[str, ...] = ()
) -> ClientCertificateIdentity:
    return ClientCertificateIdentity(kind="client_certificate", name=name, group=group, allow=allow)


@pytest.mark.parametrize("name", ["common_name", "uri", "dns", "email"])
def test_the_name_is_the_one_that_the_policy_asks_for(name: Name) -> None:
    whole = Certificate(("a-cn",), ("org",), ("spiffe://a/b",), ("a.example.org",), ("a@example.org",))
    value = getattr(whole, name)[0]
    assert names(name).find(whole) == Client(f"certificate:{value}", f"certificate:{value}", "client_certificate")


@pytest.mark.parametrize(
    "values",
    [(), ("a", "b"), ("",), (" a",), ("a\x00b",), ("a\nb",), ("\u202ea",), ("x" * 257,), ("*.example.org", "a")],
)
def test_no_name_several_names_and_odd_names_are_nobody(values: tuple[str, ...]) -> None:
    assert names("dns").find(Certificate(dns=values)) is None


def test_a_name_that_stands_twice_is_one_name() -> None:
    assert names("dns").find(Certificate(dns=("a", "a"))) is not None


def test_patterns_choose_among_names_and_refuse_others() -> None:
    ml = names("uri", allow=("spiffe://example.org/ns/ml/*", "urn:one"))
    one = Certificate(uri=("spiffe://example.org/ns/web/sa/x", "spiffe://example.org/ns/ml/sa/y"))
    assert ml.find(one) == Client(
        "certificate:spiffe://example.org/ns/ml/sa/y",
        "certificate:spiffe://example.org/ns/ml/sa/y",
        "client_certificate",
    )
    for uris in (
        ("spiffe://example.org/ns/web/sa/x",),
        ("spiffe://example.org.evil/ns/ml/sa/y",),
        ("SPIFFE://example.org/ns/ml/sa/y",),
        ("spiffe://example.org/ns/ml/sa/y", "urn:one"),
    ):
        assert ml.find(Certificate(uri=uris)) is None


def test_the_organization_is_the_group_unless_it_is_ambiguous() -> None:
    grouped = names(group="organization")
    assert grouped.find(Certificate(("bob",), ("acme",))) == Client(
        "certificate:bob", "certificate-group:acme", "client_certificate"
    )
    assert grouped.find(Certificate(("bob",))) == Client("certificate:bob", "certificate:bob", "client_certificate")
    assert grouped.find(Certificate(("bob",), ("acme", "evil"))) is None
    assert grouped.find(Certificate(("bob",), ("ac\nme",))) is None
    assert names().find(Certificate(("bob",), ("acme", "evil"))) is not None


def test_what_the_tls_layer_decodes_is_read() -> None:
    assert certificate_of(None) is None
    assert certificate_of({}) is None
    decoded = {
        "subject": ((("organizationName", "one"), ("commonName", "a")), (("commonName", "b"),)),
        "subjectAltName": (("DNS", "d"), ("IP Address", "192.0.2.1"), ("URI", "u:1"), ("email", "e@x"), ("URI", "u:2")),
    }
    assert certificate_of(decoded) == Certificate(("a", "b"), ("one",), ("u:1", "u:2"), ("d",), ("e@x",))
    assert certificate_of({"subject": ()}) == Certificate()


def test_a_flood_of_names_is_cut_and_stays_ambiguous() -> None:
    found = certificate_of({"subjectAltName": tuple(("DNS", f"n{i}") for i in range(10_000))})
    assert found is not None
    assert len(found.dns) <= 65
    assert names("dns").find(found) is None


# -- among other sources -----------------------------------------------------------------------------------------------


def keys(folder: Path) -> ApiKeyIdentity:
    path = folder / "keys"
    path.write_text(f"alice:{hashlib.sha256(b'k-alice').hexdigest()}\nbob:{hashlib.sha256(b'k-bob').hexdigest()}\n")
    path.chmod(0o600)
    return ApiKeyIdentity(kind="api_key", keys_file=str(path))


KEY: Headers = [(b"x-api-key", b"k-alice")]


def named(identity: Identity, headers: Headers, certificate: Certificate | None) -> str:
    try:
        return identity.identify(headers, "192.0.2.1", certificate).name
    except Denied as error:
        return "refused" if (error.status, error.code) == (401, "unknown_credential") else error.code


def test_the_first_source_with_a_credential_decides(tmp_path: Path) -> None:
    for specs, both in (((spec(), keys(tmp_path)), "certificate:bob"), ((keys(tmp_path), spec()), "alice")):
        identity = Identity.load(specs)
        assert named(identity, KEY, BOB) == both
        assert named(identity, KEY, None) == "alice"
        assert named(identity, [], BOB) == "certificate:bob"
        assert named(identity, [], None) == "address:192.0.2.1"


def test_a_certificate_without_a_name_falls_through_to_nothing(tmp_path: Path) -> None:
    first, last = (Identity.load(specs) for specs in ((spec(), keys(tmp_path)), (keys(tmp_path), spec())))
    assert named(first, KEY, Certificate()) == "refused"
    assert named(first, [], Certificate()) == "refused"
    assert named(last, KEY, Certificate()) == "alice"
    assert named(last, [], Certificate()) == "refused"
    assert named(last, [(b"x-api-key", b"wrong")], BOB) == "refused"


def test_a_certificate_that_no_source_reads_names_nobody(tmp_path: Path) -> None:
    assert named(Identity.load((keys(tmp_path),)), [], BOB) == "address:192.0.2.1"


def test_names_of_certificates_and_of_keys_never_meet(tmp_path: Path) -> None:
    identity = Identity.load((spec(), keys(tmp_path)))
    assert {named(identity, [(b"x-api-key", b"k-bob")], None), named(identity, [], BOB)} == {"bob", "certificate:bob"}


def test_a_header_that_tells_of_a_certificate_is_not_read(tmp_path: Path) -> None:
    forged: Headers = [(b"x-forwarded-client-cert", b'Subject="CN=bob"'), (b"", b"bob"), (b"ssl-client-cert", b"bob")]
    assert named(Identity.load((spec(),)), forged, None) in ("address:192.0.2.1", "refused")
    assert named(Identity.load((spec(),)), forged[::2], None) == "address:192.0.2.1"


def test_nothing_more_is_kept_from_the_model() -> None:
    assert Identity.load((spec(),)).strip == {b"authorization", b"cookie", b"proxy-authorization"}


def test_two_sources_of_certificates_are_a_mistake() -> None:
    specs: tuple[AnyIdentity, ...] = (spec("uri"), spec("common_name"))
    with pytest.raises(PolicyError) as caught:
        Identity.load(specs)
    (problem,) = caught.value.problems
    assert problem.path == "identity[1]"
    assert "never asked" in problem.message


def test_patterns_are_bounded() -> None:
    for allow in (("",), ("x" * 257,), ("x",) * 257):
        with pytest.raises(ValidationError):
            spec(allow=allow)
