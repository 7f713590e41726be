r"""The audit log's format: JSON lines, each of which holds the hash of the one before it, some of them signed.

    {"seq":7,"prev":"<SHA-256 of line 6, without its newline>","kind":"decision",...}
    {"seq":8,"prev":"<SHA-256 of line 7>","kind":"checkpoint",...,"key":"<public key>","sig":"<signature>"}

A signature (Ed25519) is the last member, and covers every byte before `,"sig":`. Since a line covers the one before it,
a signature vouches for all lines before it. The head, a small file beside the log, is a line of the same make that says
how far the log goes; without it a cut tail could not be told from a log that ends there.

Everything here takes and returns bytes: what is hashed is what is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import orjson

BEGIN = b"0" * 64
"""What stands for the line before the first one."""
SIGNED = frozenset(("start", "checkpoint", "rotate", "stop"))
"""Kinds of lines that carry a signature."""
_LINE = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","kind":"([a-z_]{1,32})"[,}]')
_SIGNATURE = re.compile(rb',"sig":"([0-9a-f]{128})"\}')
_SIGNATURE_BYTES = len(',"sig":""}') + 128


class Signer(Protocol):
    """Signs as one Guard."""

    @property
    def public(self) -> str:
        """The public key, 64 hexadecimal digits."""
        ...

    def sign(self, data: bytes) -> str:
        """Return the signature, 128 hexadecimal digits."""
        ...


class Link(NamedTuple):
    """What a line says of its place in the chain.

    Args:
        seq: its number, from 1.
        prev: hash of the line before.
        kind: `decision`, `event`, or what the log says of itself.
    """

    seq: int
    prev: bytes
    kind: str


class Chain:
    """The end of a chain, which lines are added to.

    Args:
        seq: number of the last line; 0 when there is none yet.
        last: its hash.
    """

    __slots__ = ("last", "seq")

    def __init__(self, seq: int = 0, last: bytes = BEGIN) -> None:
        self.seq = seq
        self.last = last

    def add(self, entry: bytes) -> bytes:
        r"""Return the next line, with its newline.

        Args:
            entry: a JSON object with at least one member, of which `kind` is the first.

        >>> Chain().add(b'{"kind":"x"}')[:10]
        b'{"seq":1,"'
        """
        line = b'{"seq":%d,"prev":"%b",%b' % (self.seq + 1, self.last, entry[1:])
        self.seq += 1
        self.last = digest(line)
        return line + b"\n"

    def seal(self, entry: Mapping[str, object], signer: Signer) -> bytes:
        """Return the next line, signed."""
        body = orjson.dumps({"seq": self.seq + 1, "prev": self.last.decode("ascii"), **entry, "key": signer.public})
        line = signed(body, signer)
        self.seq += 1
        self.last = digest(line)
        return line + b"\n"


def digest(line: bytes) -> bytes:
    """Return a line's hash, 64 hexadecimal digits."""
    return hashlib.sha256(line).hexdigest().encode("ascii")


def signed(body: bytes, signer: Signer) -> bytes:
    """Return a JSON object with its signature as the last member."""
    said = body[:-1]
    return b'%b,"sig":"%b"}' % (said, signer.sign(said).encode("ascii"))


def parted(line: bytes) -> tuple[bytes, str] | None:
    """Return what a signed line says, and the signature on it; None for a line without one."""
    found = _SIGNATURE.fullmatch(line, max(0, len(line) - _SIGNATURE_BYTES))
    return None if found is None else (line[: found.start()], found[1].decode("ascii"))


def link(line: bytes) -> Link | None:
    """Return a line's place in the chain; None for what is no line of an audit log."""
    found = _LINE.match(line)
    return None if found is None else Link(int(found[1]), found[2], found[3].decode("ascii"))
