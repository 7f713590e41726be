"""Record the raw bytes of HTTP exchanges with a real model server on this machine.

    python -m tests.recorded.record NAME PORT [--only GLOB] [--scrub PATH ...]

Sends every request that `cases.py` lists under NAME to 127.0.0.1:PORT over a plain socket, one connection each, and
writes `NAME/CASE.request.http` and `NAME/CASE.response.http` beside this file: exactly what was on the wire, status
line, headers and body with its chunk framing.

Tracebacks in answers name folders of the machine. `--scrub PATH` overwrites PATH with a placeholder of the same length,
so that Content-Length and chunk sizes stay true; that is the only change ever made to an answer.
"""

import argparse
import re
import socket
import sys
from fnmatch import fnmatch
from pathlib import Path

from tests.recorded.cases import CASES

ANSWER_S = 30.0  # until the next bytes
CLOSE_S = 1.0  # after a whole answer, for servers that ignore `Connection: close`


def whole(answer: bytes | bytearray) -> bool:
    """Say whether the answer has reached the length that its headers declare."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    return bool(blank) and length is not None and len(body) >= int(length[1])


def exchange(port: int, request: bytes) -> tuple[bytes, str]:
    """Send the bytes, read until the server closes; also say how the connection ended."""
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        while True:
            connection.settimeout(CLOSE_S if whole(answer) else ANSWER_S)
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                return bytes(answer), "left open"
            except ConnectionResetError:
                return bytes(answer), "reset"
            if not piece:
                return bytes(answer), "closed"
            answer += piece


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
        answer, end = exchange(arguments.port, request)
        (folder / f"{case}.request.http").write_bytes(request)
        (folder / f"{case}.response.http").write_bytes(scrubbed(answer, arguments.scrub))
        status_line = answer.partition(b"\r\n")[0].decode("latin-1")
        print(f"{case}: {len(answer)} bytes, {status_line!r}, {end}")
    print(f"{len(chosen)} exchanges with {arguments.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
