"""The log through pipes and sockets, with real ones."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest

from guard.telemetry.audit_log import AuditLog
from guard.telemetry.audit_streams import Standard, Syslog, syslog
from tests.support.audits import FAST, KEY, Losses, check, entry, until

if TYPE_CHECKING:
    from pathlib import Path

HEADER = rb"<110>1 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ guard \d+ audit - "


def logged(target: Standard | Syslog, count: int = 3) -> None:
    log = AuditLog(target, KEY, Losses(), {"instance": "host/1"}, pace=FAST)
    for number in range(count):
        log.add(entry(number))
    log.close()


def lines_in(data: bytes) -> bytes:
    """The log in what a collector has received."""
    return b"".join(piece[piece.index(b'{"seq":') :] + b"\n" for piece in data.splitlines())


def test_standard_output_gets_a_sound_chain_and_stays_open() -> None:
    reader, writer = os.pipe()
    logged(Standard(writer))
    os.write(writer, b"")  # still open
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        checker = check(file.read(), None, stream=True)
    assert (checker.problems, checker.notes, checker.seq) == ([], [], 5)


def test_a_reader_that_does_not_read_fills_the_buffer_and_nothing_else() -> None:
    reader, writer = os.pipe()
    losses = Losses()
    log = AuditLog(Standard(writer), KEY, losses, {}, pace=FAST, most_lines=1000)
    while losses.lost == 0:
        log.add(entry(1, note="x" * 1000))
    assert not log.room()
    with os.fdopen(reader, "rb") as file:
        read = b""
        while log.waiting:
            read += os.read(file.fileno(), 65536)
        log.close()
        os.close(writer)
        read += file.read()
    checker = check(read, None, stream=True)
    assert checker.problems == []
    assert "entries were lost about here" in checker.notes[0]


def test_after_a_failed_write_it_goes_on_where_the_reader_is() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    target = Standard(writer)
    data = b"".join(b"%07d\n" % number for number in range(20_000))
    with os.fdopen(reader, "rb") as file:
        with pytest.raises(BlockingIOError):
            target.write(data)
        read = os.read(reader, 70_000)
        while True:
            with contextlib.suppress(BlockingIOError):
                target.write(data)
                break
            read += os.read(reader, 70_000)
        os.close(writer)
        assert read + file.read() == data


def test_syslog_over_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        logged(syslog(str(tmp_path / "log")))
        server.setblocking(False)
        received = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                received += server.recv(65536) + b"\n"
    checker = check(lines_in(received), None, stream=True)
    assert (checker.problems, checker.notes, checker.seq) == ([], [], 5)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_syslog_over_udp(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host.strip("[]"), 0))
        server.settimeout(20)
        logged(syslog(f"udp:{host}:{server.getsockname()[1]}"))
        received = [server.recv(65536) for _ in range(5)]
    assert all(re.match(HEADER, message) for message in received)
    assert check(lines_in(b"\n".join(received)), None, stream=True).problems == []


def frames(data: bytes) -> list[bytes]:
    """Messages in a stream of octet-counted frames."""
    found: list[bytes] = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        data = rest[int(length) :]
    return found


def test_syslog_over_tcp_frames_its_messages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        logged(syslog(f"tcp:127.0.0.1:{server.getsockname()[1]}"))
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            received = frames(file.read())
    assert check(lines_in(b"\n".join(received)), None, stream=True).problems == []


def test_syslog_over_tcp_waits_for_its_server_and_comes_back_to_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    target = syslog(f"tcp:127.0.0.1:{port}")
    log = AuditLog(target, KEY, Losses(), {}, pace=FAST)
    log.add(entry(1))
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as server:
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            until(lambda: log.waiting == 0)
            received = connection.recv(65536)
        # Closed by the server: what is sent next is lost or refused, and then a new connection is made.
        server.settimeout(0.005)
        for _ in range(2000):
            log.add(entry(2))
            with contextlib.suppress(TimeoutError):
                again, _ = server.accept()
                break
        else:
            pytest.fail("it did not connect again")
        with again, again.makefile("rb") as file:
            log.close()
            later = frames(file.read())
    lines = lines_in(b"\n".join(frames(received)))
    assert check(lines, None, stream=True).problems == []
    assert check(lines_in(b"\n".join(later)), None, stream=True).problems == []


@pytest.mark.parametrize("address", ["", "udp", "udp:514", "tcp:host", "tcp:host:0", "tcp:host:70000", "tls:host:6514"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="a syslog address is"):
        syslog(address)
