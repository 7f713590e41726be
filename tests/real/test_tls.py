"""TLS of a real `guard serve`, on its own event loop: certificates, clients that they name, reloads under load."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import threading
import urllib.error
import urllib.request
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.support.authorities import Authority
from tests.support.clients import infer, until
from tests.support.model import model
from tests.support.processes import guard

pytestmark = pytest.mark.real

POLICY = """version: 1
identity: [{kind: client_certificate, group: organization}]
routes: [{api: open_inference}]
"""
BODY = json.dumps(infer([1.0, 2.0])).encode()
TOKEN = "a-token-of-the-admin-listener"


def ask(port: int, context: ssl.SSLContext) -> int:
    """Ask once on a connection of its own; 0 when there is none."""
    connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    try:
        connection.request("POST", "/v2/models/m/infer", BODY, {"content-type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def shown(port: int, context: ssl.SSLContext) -> object:
    """Return the serial number of the certificate that a new connection is shown."""
    connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    try:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        return (connection.sock.getpeercert() or {})["serialNumber"]
    finally:
        connection.close()


async def test_a_deployment_with_mutual_tls_that_changes_its_certificates_under_load(tmp_path: Path) -> None:
    owner, other = Authority(tmp_path, "owner"), Authority(tmp_path, "other")
    cert, key, issuers, token = (tmp_path / name for name in ("cert.pem", "key.pem", "issuers.pem", "token"))
    owner.server(cert, key)
    issuers.write_bytes(owner.file.read_bytes() + other.file.read_bytes())
    token.write_text(TOKEN)
    token.chmod(0o600)
    (tmp_path / "policy.yaml").write_text(POLICY)
    bob = owner.trusting(owner.client(name="bob", organization="acme"))
    eve = owner.trusting(other.client(name="eve"))
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(issuers), "--tls-client-required"]
    options += ["--admin-tls", "--admin-token-file", str(token)]

    def admin(page: str, *, bearer: str = TOKEN) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        request = urllib.request.Request(running.admin + page, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20, context=owner.trusting()) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    with (
        model(tmp_path) as behind,
        guard(tmp_path / "policy.yaml", behind.url, tmp_path / "guard", *options) as running,
    ):
        assert running.url.startswith("https://")
        assert (ask(running.port, bob), ask(running.port, eve)) == (200, 200)
        assert ask(running.port, owner.trusting()) == 0
        clients = json.loads(admin("/clients")[1])["clients"]
        assert {one["name"]: one["group"] for one in clients}["certificate:bob"] == "certificate-group:acme"
        assert admin("/clients", bearer="")[0] == admin("/clients", bearer="wrong" * 4)[0] == 401
        assert admin("/healthz", bearer="")[0] == 200

        statuses: list[int] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                statuses.append(ask(running.port, bob))

        under_load = threading.Thread(target=load)
        under_load.start()
        for turn in range(3):
            before = shown(running.port, bob)
            owner.server(tmp_path / "new.pem", tmp_path / "new.key", days=40 + turn)
            shutil.copy(tmp_path / "new.pem", cert)
            shutil.copy(tmp_path / "new.key", key)
            await until(lambda before=before: shown(running.port, bob) != before)
        stop.set()
        under_load.join()
        assert len(statuses) > 10
        assert set(statuses) == {200}

        shutil.copy(owner.file, tmp_path / "swapped.pem")
        os.replace(tmp_path / "swapped.pem", issuers)
        await until(lambda: ask(running.port, eve) == 0)
        await until(lambda: ask(running.port, bob) == 200)

        cert.write_bytes(b"nothing")
        await until(lambda: "certificates not reloaded" in running.log.read_text())
        assert ask(running.port, bob) == 200
        told = admin("/metrics")[1].decode()
        assert 'guard_tls_reloads_total{result="failed"} 1.0' in told
        log = running.log.read_text()
    assert TOKEN not in log
    assert "Traceback" not in log
