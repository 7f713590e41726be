"""TLS on the gRPC listener: client certificates as identity, and files that change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from guard.proxy.grpc_front import Grpc, open_listener
from guard.proxy.grpc_messages import certificate_of_pem
from guard.proxy.identity_certificate import Certificate
from guard.proxy.tls import Certificates, Tls
from guard.telemetry.tls_metrics import TlsMetrics
from tests.support.authorities import COMMON_NAME, ORGANIZATION, Authority
from tests.support.grpc_messages import request
from tests.support.grpc_models import Client, front, grpc, model

BODY = request(("x", "FP32", [[1.0, 2.0]]))
POLICY = """version: 1
identity: [{kind: client_certificate, name: common_name, group: organization}]
routes: [{name: r, api: open_inference}]
"""


class Files:
    """Certificates on disk, as `guard serve` is given them."""

    def __init__(self, folder: Path, *, asking: bool = True) -> None:
        self.owner = Authority(folder, "owner")
        self.issuers = folder / "issuers.pem"
        self.issuers.write_bytes(self.owner.file.read_bytes())
        self.tls = Tls(folder / "cert.pem", folder / "key.pem", self.issuers if asking else None)
        self.owner.server(self.tls.cert, self.tls.key)
        self.certificates = Certificates(self.tls, TlsMetrics(CollectorRegistry()))

    async def look(self) -> None:
        await self.certificates.look(lambda: None)


def trusting(owner: Authority, client: Path | None = None) -> Any:  # Any: the library's
    roots = owner.file.read_bytes()
    if client is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(roots, client.read_bytes(), client.read_bytes())


async def code_of(address: str, credentials: Any) -> str:
    async with Client(address, credentials) as client:
        return (await client.ask(BODY, timeout_s=5)).code


async def test_a_client_certificate_names_the_client(tmp_path: Path) -> None:
    files = Files(tmp_path)
    nightly = files.owner.client(name="nightly", organization="acme")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=POLICY, certificates=files.certificates) as guarded,
    ):
        assert await code_of(guarded.address, trusting(files.owner, nightly)) == "OK"
        assert await code_of(guarded.address, trusting(files.owner)) == "UNAVAILABLE", "it must bring one"
        stranger = Authority(tmp_path, "stranger")
        assert await code_of(guarded.address, trusting(files.owner, stranger.client(name="nightly"))) == "UNAVAILABLE"
        unfit = files.owner.special("server", [(COMMON_NAME, "nightly")], [], server=True)
        assert await code_of(guarded.address, trusting(files.owner, unfit)) == "UNAVAILABLE", "for servers alone"
        expired = files.owner.client(name="late", days=-1)
        assert await code_of(guarded.address, trusting(files.owner, expired)) == "UNAVAILABLE"
        assert await code_of(guarded.address, None) == "UNAVAILABLE"
    (recent,) = guarded.handler.recent.latest
    assert (recent.client, recent.outcome) == ("certificate:nightly", "ok")
    assert len(served.asked) == 1


async def test_without_issuers_no_certificate_is_asked_for(tmp_path: Path) -> None:
    files = Files(tmp_path, asking=False)
    made = "version: 1\nroutes: [{name: r, api: open_inference}]\n"
    async with model() as served, front(tmp_path, served.port, policy=made, certificates=files.certificates) as guarded:
        assert await code_of(guarded.address, trusting(files.owner)) == "OK"


async def test_a_new_certificate_is_taken_and_connections_stay(tmp_path: Path) -> None:
    files = Files(tmp_path, asking=False)
    made = "version: 1\nroutes: [{name: r, api: open_inference}]\n"
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made, certificates=files.certificates) as guarded,
        Client(guarded.address, trusting(files.owner)) as client,
    ):
        assert (await client.ask(BODY)).code == "OK"
        other = Authority(tmp_path, "other")
        other.server(files.tls.cert, files.tls.key)
        await files.look()
        assert await code_of(guarded.address, trusting(other)) == "OK"
        assert await code_of(guarded.address, trusting(files.owner)) == "UNAVAILABLE"
        assert (await client.ask(BODY)).code == "OK"


async def test_an_issuer_that_is_dropped_names_nobody_any_more(tmp_path: Path) -> None:
    files = Files(tmp_path)
    old = files.owner.client(name="old")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=POLICY, certificates=files.certificates) as guarded,
        Client(guarded.address, trusting(files.owner, old)) as client,
    ):
        assert (await client.ask(BODY)).code == "OK"
        other = Authority(tmp_path, "other")
        files.issuers.write_bytes(other.file.read_bytes())
        await files.look()
        async with asyncio.timeout(10):
            while (await client.ask(BODY, timeout_s=5)).code == "OK":
                await asyncio.sleep(0.02)
        assert await code_of(guarded.address, trusting(files.owner, other.client(name="new"))) == "OK"
    assert {recent.client for recent in guarded.handler.recent.latest} == {"certificate:old", "certificate:new"}


@pytest.mark.parametrize(
    ("subject", "uris", "expected"),
    [
        (
            [(COMMON_NAME, "nightly"), (ORGANIZATION, "acme")],
            ["spiffe://a/b", "spiffe://c"],
            Certificate(("nightly",), ("acme",), ("spiffe://a/b", "spiffe://c")),
        ),
        ([(COMMON_NAME, "a"), (COMMON_NAME, "b")], [], Certificate(("a", "b"))),
        ([], [], Certificate()),
    ],
)
def test_a_certificate_says_the_same_as_over_http(
    tmp_path: Path, subject: Any, uris: list[str], expected: Certificate
) -> None:
    pem = Authority(tmp_path, "owner").special("x", subject, uris).read_bytes()
    assert certificate_of_pem(b"-----BEGIN CERT" + pem.partition(b"-----BEGIN CERT")[2]) == expected


def test_dns_and_mail_names_are_read(tmp_path: Path) -> None:
    pem = Authority(tmp_path, "owner").client("a.example.org", "someone@example.org").read_bytes()
    found = certificate_of_pem(b"-----BEGIN CERT" + pem.partition(b"-----BEGIN CERT")[2])
    assert (found.dns, found.email) == (("a.example.org",), ("someone@example.org",))


async def test_it_is_told_that_certificates_are_not_optional(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Files(tmp_path)
    async with model() as served, front(tmp_path, served.port, policy=POLICY) as guarded:
        made = Grpc(("127.0.0.1", 0), (("", f"grpc://127.0.0.1:{served.port}"),))
        open_listener(made, guarded.models, guarded.plans, guarded.handler, guarded.app, files.certificates)
    assert "cannot be optional" in caplog.text
