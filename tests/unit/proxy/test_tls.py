"""TLS: real handshakes with a real listener, certificates that change, and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import socket
import ssl
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client import CollectorRegistry

from guard.errors import GuardError
from guard.model.exchange import Reply
from guard.policy.schema import AddressIdentity, ClientCertificateIdentity
from guard.proxy.door import Door
from guard.proxy.listener import Listener, bind
from guard.proxy.protocol import STALLED_S, sweep_forever
from guard.proxy.tls import Certificates, Tls, load, unasked
from guard.telemetry.tls_metrics import TlsMetrics
from tests.support.authorities import COMMON_NAME, ORGANIZATION, Authority
from tests.support.fakes import Guarded
from tests.support.listening import connections, listening, talk, until

POLICY = """version: 1
limits: {read_timeout_s: 0.3}
identity: [{kind: client_certificate, name: NAME, group: organization}]
routes: [{name: r, api: kserve_v1}]
"""
BODY = b'{"instances":[[1]]}'
REQUEST = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Listening:
    """A guarded listener and what it was made of."""

    def __init__(
        self, folder: Path, *, asking: bool = False, required: bool = False, name: str = "common_name"
    ) -> None:
        self.guarded = Guarded(POLICY.replace("NAME", name), folder)
        self.guarded.upstream.answer = lambda _: Reply(200, [], b'{"predictions":[[0.9,0.1]]}')
        self.owner = Authority(folder, "owner")
        self.tls = Tls(folder / "cert.pem", folder / "key.pem", self.owner.file if asking else None, required)
        self.owner.server(self.tls.cert, self.tls.key)
        self.registry = CollectorRegistry()
        self.certificates = Certificates(self.tls, TlsMetrics(self.registry))

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @property
    def clients(self) -> list[tuple[str, str]]:
        return [(seen.client.name, seen.client.group) for seen in self.guarded.handler.clients.latest(9)]


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncGenerator[Pair]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asked(pair: Pair) -> int:
    """Ask once and return the status; 0 when the connection is closed instead."""
    reader, writer = pair
    async with asyncio.timeout(5):
        try:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            return 0
    return int(head.split(b" ", 2)[1])


async def ask(port: int, context: ssl.SSLContext) -> int:
    """Ask once on a connection of its own; 0 when there is none."""
    try:
        async with connected(port, context) as pair:
            return await asked(pair)
    except OSError:
        return 0


async def serial(port: int, context: ssl.SSLContext) -> object:
    """Return the serial number of the certificate that a new connection is shown."""
    async with connected(port, context) as (_, writer):
        return writer.get_extra_info("peercert")["serialNumber"]


# -- handshakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_connection_is_kept_for_more_than_one_request(newest: ssl.TLSVersion, tmp_path: Path) -> None:
    made = Listening(tmp_path)
    context = made.owner.trusting(newest=newest)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(made.guarded, made.certificates) as (port, _), connected(port, context) as pair:
        assert [await asked(pair) for _ in range(3)] == [200, 200, 200]
        secure: ssl.SSLObject = pair[1].get_extra_info("ssl_object")
        assert secure.version() == newest.name.replace("_", ".")
        assert secure.selected_alpn_protocol() == "http/1.1"
    assert made.counted("guard_tls_handshake_failures_total") == 0


def test_old_versions_compression_and_renegotiation_are_off(tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True).certificates.current
    for context in (made.context, made.plain):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert made.context.verify_mode == ssl.CERT_OPTIONAL
    assert made.plain.verify_mode == ssl.CERT_NONE


async def test_plain_http_is_closed_and_counted(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    async with listening(made.guarded, made.certificates) as (port, server):
        assert await talk(port, REQUEST) == b""
        assert made.counted("guard_tls_handshake_failures_total") == 1
        assert connections(server) == []
        assert await ask(port, made.owner.trusting()) == 200


async def test_a_handshake_that_stalls_is_given_up(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    async with listening(made.guarded, made.certificates, handshake_s=0.05) as (port, _):
        assert await talk(port, b"\x16\x03\x01\x02\x00\x01") == b""
        assert made.counted("guard_tls_handshake_failures_total") == 1


async def test_of_too_many_handshakes_the_oldest_is_given_up(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    door = Door(made.certificates, asyncio.Protocol, lambda: 60.0, most=2)
    with bind("127.0.0.1", 0) as listener:
        door.open(listener)
        port = listener.getsockname()[1]
        first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: len(door.under_way) == 2)
        third = await asyncio.open_connection("127.0.0.1", port)
        assert await first[0].read() == b""
        assert len(door.under_way) == 2
        door.close()
        assert await second[0].read() == await third[0].read() == b""
        await until(lambda: not door.under_way)
        for _, writer in (first, second, third):
            writer.close()


async def test_without_a_file_descriptor_it_waits_and_accepts_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(socket.socket):
        refused = 0

        def accept(self) -> tuple[socket.socket, object]:
            if not self.refused:
                self.refused += 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    made = Listening(tmp_path)
    door = Door(made.certificates, asyncio.Protocol, lambda: 60.0)
    with Full() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        door.open(listener)
        async with connected(listener.getsockname()[1], made.owner.trusting()):
            assert listener.refused == 1
        door.close()
    assert "connections cannot be accepted: Too many open files" in caplog.text


async def test_stopping_ends_handshakes(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    async with listening(made.guarded, made.certificates, handshake_s=60.0) as (port, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert server.door is not None
        await until(lambda: server.door is not None and bool(server.door.under_way))
    assert await reader.read() == b""
    writer.close()


class Flood(asyncio.Protocol):
    """Sends more than the kernel takes in one piece, as a large answer is."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"x" * 15_000_000)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost.set()


async def test_a_client_that_stops_reading_is_cut_off(tmp_path: Path) -> None:
    made, flood = Listening(tmp_path), Flood()
    door = Door(made.certificates, lambda: flood, lambda: 5.0, stalled_s=0.2)
    with bind("127.0.0.1", 0) as listener:
        door.open(listener)
        port = listener.getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=made.owner.trusting(), limit=1024)
        async with asyncio.timeout(10):
            await flood.lost.wait()
        writer.transport.abort()
        door.close()


async def test_a_client_that_asks_on_without_reading_is_cut_off(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    made.guarded = Guarded(POLICY.replace("version: 1", "version: 1\nmode: shadow").replace("NAME", "uri"), tmp_path)
    made.guarded.upstream.answer = lambda _: Reply(200, [], b"x" * 15_000_000)
    async with listening(made.guarded, made.certificates) as (port, server):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=made.owner.trusting(), limit=1024)
        writer.write(REQUEST * 3)
        await until(lambda: any(one.stalled_s is not None for one in connections(server)))
        (stalled,) = connections(server)
        stalled.sweep(stalled.loop.time() + STALLED_S - 1)
        assert not stalled.transport.is_closing()
        stalled.sweep(stalled.loop.time() + STALLED_S + 1)
        await until(lambda: not connections(server))
        writer.transport.abort()


async def test_a_slow_head_is_given_up_behind_the_handshake_too(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    async with listening(made.guarded, made.certificates) as (port, server):
        sweep = asyncio.create_task(sweep_forever(server.server_state.connections, 0.01))
        async with connected(port, made.owner.trusting()) as (reader, writer):
            writer.write(REQUEST[:9])
            async with asyncio.timeout(5):
                assert b" 408 " in await reader.read()
        sweep.cancel()


# -- client certificates -----------------------------------------------------------------------------------------------


async def test_a_certificate_names_the_client_and_without_one_the_address_does(tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True)
    bob = made.owner.client(name="bob", organization="acme")
    async with listening(made.guarded, made.certificates) as (port, _):
        assert await ask(port, made.owner.trusting(bob)) == 200
        assert made.clients[0] == ("certificate:bob", "certificate-group:acme")
        assert await ask(port, made.owner.trusting()) == 200
        assert {name for name, _ in made.clients} == {"certificate:bob", "address:127.0.0.1"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("uri", "spiffe://example.org/ns/ml/sa/scorer"), ("dns", "scorer.example.org"), ("email", "ops@example.org")],
)
async def test_alternative_names_are_read_from_a_real_certificate(name: str, expected: str, tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True, name=name)
    made.owner.special("uri", [(COMMON_NAME, "x")], ["spiffe://example.org/ns/ml/sa/scorer"])
    made.owner.client("scorer.example.org", name="dns")
    made.owner.client("ops@example.org", name="email")
    async with listening(made.guarded, made.certificates) as (port, _):
        assert await ask(port, made.owner.trusting(tmp_path / f"owner-{name}.pem")) == 200
    assert made.clients[0][0] == f"certificate:{expected}"


async def test_a_certificate_without_the_name_is_refused_and_is_no_address(tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True, name="uri")
    two = [(COMMON_NAME, "a"), (ORGANIZATION, "one"), (ORGANIZATION, "two")]
    async with listening(made.guarded, made.certificates) as (port, _):
        assert await ask(port, made.owner.trusting(made.owner.client(name="bob"))) == 401
        assert (
            await ask(port, made.owner.trusting(made.owner.special("two", [(COMMON_NAME, "a")], ["a:1", "a:2"]))) == 401
        )
        assert await ask(port, made.owner.trusting(made.owner.special("groups", two, ["a:1"]))) == 401
        assert await ask(port, made.owner.trusting(made.owner.special("one", [(COMMON_NAME, "a")], ["a:1"]))) == 200


@pytest.mark.parametrize("required", [True, False])
async def test_a_certificate_that_is_not_trusted_ends_the_handshake(required: bool, tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True, required=required)
    stranger = Authority(tmp_path, "stranger").client(name="bob")
    expired = made.owner.client(name="expired", days=-1)
    server = made.owner.special("server", [(COMMON_NAME, "bob")], [], server=True)
    async with listening(made.guarded, made.certificates) as (port, _):
        for client in (stranger, expired, server):
            assert await ask(port, made.owner.trusting(client)) == 0
        assert await ask(port, made.owner.trusting()) == (0 if required else 200)
        assert await ask(port, made.owner.trusting(made.owner.client(name="bob"))) == 200
    assert made.counted("guard_tls_handshake_failures_total") == (4 if required else 3)
    assert "certificate:bob" in {name for name, _ in made.clients}


# -- reload ------------------------------------------------------------------------------------------------------------


async def looked(made: Listening, server: Listener, times: int = 1) -> None:
    for _ in range(times):
        await made.certificates.look(server.part)


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    context = made.owner.trusting()
    async with listening(made.guarded, made.certificates) as (port, server), connected(port, context) as old:
        before = await serial(port, context)
        made.owner.server(made.tls.cert, made.tls.key, days=60)
        assert await serial(port, context) == before
        await looked(made, server)
        assert await serial(port, context) != before
        assert await asked(old) == 200
    assert made.counted("guard_tls_reloads_total", result="ok") == 1
    assert made.counted("guard_tls_certificate_expiry_timestamp_seconds") == made.certificates.current.expires_s


async def test_a_certificate_without_its_key_keeps_the_old_pair_until_they_match(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Listening(tmp_path)
    context = made.owner.trusting()
    made.owner.server(tmp_path / "new.pem", tmp_path / "new.key")
    async with listening(made.guarded, made.certificates) as (port, server):
        before = await serial(port, context)
        shutil.copy(tmp_path / "new.pem", made.tls.cert)
        await looked(made, server)
        assert caplog.text == ""
        await looked(made, server, 3)
        assert caplog.text.count("is not the key of") == 1
        assert await serial(port, context) == before
        assert made.counted("guard_tls_reloads_total", result="failed") == 1
        shutil.copy(tmp_path / "new.key", made.tls.key)
        await looked(made, server)
        assert await serial(port, context) != before
    assert made.counted("guard_tls_reloads_total", result="ok") == 1


async def test_files_swapped_within_a_look_are_no_failure(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    made.owner.server(tmp_path / "new.pem", tmp_path / "new.key")
    async with listening(made.guarded, made.certificates) as (_, server):
        made.tls.key.unlink()
        shutil.copy(tmp_path / "new.pem", made.tls.cert)
        await looked(made, server)
        shutil.copy(tmp_path / "new.key", made.tls.key)
        await looked(made, server)
    assert made.counted("guard_tls_reloads_total", result="failed") == 0
    assert made.counted("guard_tls_reloads_total", result="ok") == 1


async def test_a_mounted_volume_swaps_its_symlink(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.owner.server(tmp_path / name / "tls.crt", tmp_path / name / "tls.key")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    mounted = Tls(tmp_path / "tls.crt", tmp_path / "tls.key")
    made.certificates = Certificates(mounted, TlsMetrics(CollectorRegistry()))
    async with listening(made.guarded, made.certificates) as (port, server):
        before = await serial(port, made.owner.trusting())
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await looked(made, server)
        assert await serial(port, made.owner.trusting()) != before


async def test_an_issuer_that_is_taken_away_is_not_trusted_any_more(tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True)
    other = Authority(tmp_path, "other")
    mine, theirs = (made.owner.trusting(one.client(name=one.name)) for one in (made.owner, other))
    both = tmp_path / "both.pem"
    both.write_bytes(made.owner.file.read_bytes() + other.file.read_bytes())
    made.certificates = Certificates(replace(made.tls, client_ca=both), TlsMetrics(CollectorRegistry()))
    async with (
        listening(made.guarded, made.certificates) as (port, server),
        connected(port, theirs) as kept,
        connected(port, made.owner.trusting()) as anonymous,
    ):
        assert await asked(kept) == await asked(anonymous) == 200
        assert await ask(port, mine) == 200
        stalled = await asyncio.open_connection("127.0.0.1", port)
        both.write_bytes(made.owner.file.read_bytes())
        await looked(made, server)
        assert await stalled[0].read() == b""
        stalled[1].close()
        assert await ask(port, theirs) == 0
        assert await ask(port, mine) == 200
        assert await asked(kept) == 0
        assert await asked(anonymous) == 200


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed_past_an_issuer_that_was_taken_away(newest: ssl.TLSVersion, tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True)
    other = Authority(tmp_path, "other")
    theirs = made.owner.trusting(other.client(name="other"), newest=newest)
    both = tmp_path / "both.pem"
    both.write_bytes(made.owner.file.read_bytes() + other.file.read_bytes())
    made.certificates = Certificates(replace(made.tls, client_ca=both), TlsMetrics(CollectorRegistry()))

    def resume(port: int, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        try:
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                theirs.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
            ):
                secure.sendall(REQUEST)
                return secure.recv(12), secure.session
        except OSError:
            return b"", None

    async with listening(made.guarded, made.certificates) as (port, server):
        answer, session = await asyncio.to_thread(resume, port, None)
        assert answer.startswith(b"HTTP/1.1 200")
        both.write_bytes(made.owner.file.read_bytes())
        await looked(made, server)
        assert (await asyncio.to_thread(resume, port, session))[0] == b""


async def test_the_answer_under_way_is_finished_when_issuers_change(tmp_path: Path) -> None:
    made = Listening(tmp_path, asking=True)
    context = made.owner.trusting(made.owner.client(name="bob"))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> Reply:
        begun.set()
        await go_on.wait()
        return Reply(200, [], b'{"predictions":[[0.9,0.1]]}')

    made.guarded.upstream.send = slow  # pyright: ignore[reportAttributeAccessIssue]  # a fake's method
    async with listening(made.guarded, made.certificates) as (port, server), connected(port, context) as pair:
        answer = asyncio.create_task(asked(pair))
        await begun.wait()
        made.owner.file.write_bytes(Authority(tmp_path, "other").file.read_bytes())
        await looked(made, server)
        go_on.set()
        assert await answer == 200
        assert await asked(pair) == 0


async def test_a_watch_reloads_by_itself(tmp_path: Path) -> None:
    made = Listening(tmp_path)
    watch = asyncio.create_task(made.certificates.watch(lambda: None, 0.005))
    before = made.certificates.current
    made.owner.server(made.tls.cert, made.tls.key)
    await until(lambda: made.certificates.current is not before)
    made.tls.cert.write_bytes(b"nothing")
    await until(lambda: made.counted("guard_tls_reloads_total", result="failed") > 0)
    watch.cancel()


# -- files -------------------------------------------------------------------------------------------------------------


def refused(tls: Tls) -> str:
    with pytest.raises(GuardError) as caught:
        load(tls)
    return caught.value.message


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    tls = Listening(tmp_path, asking=True).tls
    none, junk, pipe = tmp_path / "none", tmp_path / "junk", tmp_path / "pipe"
    junk.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    os.mkfifo(pipe)
    assert refused(replace(tls, cert=none)) == f"{none} cannot be read: No such file or directory"
    assert refused(replace(tls, cert=junk)) == f"{junk} holds no certificate"
    assert refused(replace(tls, cert=tls.key)) == f"{tls.key} holds no certificate"
    assert refused(replace(tls, key=pipe)) == f"{pipe} is not a file of at most 1 MiB"
    assert "cannot be used as certificate and key" in refused(replace(tls, key=tls.cert))
    assert refused(replace(tls, client_ca=tls.key)) == f"{tls.key} holds no certificate of an issuer"
    assert refused(replace(tls, client_ca=junk)) == f"{junk} holds no certificate of an issuer"


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    tls = Listening(tmp_path).tls
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    tls.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"passphrase"))
    )
    assert "is encrypted" in refused(tls)


def test_files_open_to_others_are_warned_of(tmp_path: Path) -> None:
    tls = Listening(tmp_path, asking=True).tls
    assert load(tls).warnings == ()
    tls.key.chmod(0o644)
    assert tls.client_ca is not None
    tls.client_ca.chmod(0o666)
    key, issuers = load(tls).warnings
    assert "can be read by others" in key
    assert "can be written by others" in issuers


async def test_a_certificate_that_ends_soon_is_told_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = Listening(tmp_path).tls
    now_s = load(tls).expires_s - 20 * 86400
    with caplog.at_level(logging.WARNING):
        made = Certificates(tls, TlsMetrics(CollectorRegistry()), lambda: now_s)
        assert caplog.text == ""
        now_s += 6.5 * 86400
        for _ in range(3):
            await made.look(lambda: None)
        assert caplog.text.count("expires in 13 days") == 1
        now_s += 14 * 86400
        await made.look(lambda: None)
        assert caplog.text.count("has expired") == 1


def test_a_policy_and_options_that_do_not_fit_are_told(tmp_path: Path) -> None:
    tls = Listening(tmp_path, asking=True).tls
    named = (ClientCertificateIdentity(kind="client_certificate"),)
    assert unasked(named, tls) == []
    assert "names nobody" in unasked(named, None)[0]
    assert "names nobody" in unasked(named, replace(tls, client_ca=None))[0]
    assert "name nobody" in unasked((AddressIdentity(kind="address"),), tls)[0]
    assert unasked((), None) == []
