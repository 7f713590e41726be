"""Record the raw bytes of HTTP exchanges with a real model server on this machine.

    python -m tests.recorded.record NAME PORT [--only GLOB] [--scrub PATH ...]

Sends every request that `cases.py` lists under NAME to 127.0.0.1:PORT over a plain socket, one connection each, and
writes `NAME/CASE.request.http` and `NAME/CASE.response.http` beside this file: exactly what was on the wire, status line,
headers and body with its chunk framing.

Tracebacks in answers name folders of the machine. `--scrub PATH` overwrites PATH with a placeholder of the same length,
so that Content-Length and chunk sizes stay true; that is the only change ever made to an answer.
"""

import argparse
import socket
import sys
from fnmatch import fnmatch
from pathlib import Path

from tests.recorded.cases import CASES

IDLE_S = 20.0


def exchange(port: int, request: bytes) -> tuple[bytes, bool]:
    """Send the bytes, read until the server closes; also say whether it did close before the idle time was over."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=IDLE_S) as connection:
        connection.sendall(request)
        while True:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                return bytes(received), False
            if not piece:
                return bytes(received), True
            received += piece


def scrubbed(answer: bytes, paths: list[str]) -> bytes:
    """Overwrite each path by a placeholder of the same length."""
    for path in paths:
        known = path.encode()
        answer = answer.replace(known, (b"/scrubbed" + b"_" * len(known))[: len(known)])
    return answer


def main() -> None:
    """Record the chosen server's cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(CASES))
    parser.add_argument("port", type=int)
    parser.add_argument("--only", default="*", metavar="GLOB", help="record only the cases whose name matches")
    parser.add_argument("--scrub", action="append", default=[], metavar="PATH", help="overwrite this path in answers")
    arguments = parser.parse_args()
    folder = Path(__file__).with_name(arguments.name)
    folder.mkdir(exist_ok=True)
    chosen = {case: request for case, request in CASES[arguments.name].items() if fnmatch(case, arguments.only)}
    for case, request in chosen.items():
        answer, closed = exchange(arguments.port, request)
        (folder / f"{case}.request.http").write_bytes(request)
        (folder / f"{case}.response.http").write_bytes(scrubbed(answer, arguments.scrub))
        status_line = answer.partition(b"\r\n")[0].decode("latin-1")
        print(f"{case}: {len(answer)} bytes, {status_line!r}{'' if closed else ', connection left open'}")
    print(f"{len(chosen)} exchanges with {arguments.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
