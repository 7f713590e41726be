"""Documents as hashed n-grams: what `guard secrets hash` writes, and how a text is looked up in it.

A file holds, of each run of n letters and digits of the documents, 64 bits of a BLAKE2b hash that is keyed by the
file's own salt, sorted, and a Bloom filter over a rolling hash, by which most of what is no run is told in nanoseconds.
The rolling hash alone would give the documents away, since the hashes of neighbours differ by two characters; so it is
mixed beyond recovery before 2 times some 24 bits of it are kept.

The salt stands in the file. Whoever has the file can test guesses, some million a second and core: text that can be
guessed can be found out, and who knows n characters in a row of a document can walk on from there, a character for at
most 36 guesses. Keep it as you keep the documents; what it spares is to have them lie in the open beside the proxy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from weakref import WeakValueDictionary

import numpy as np

from guard.defences.secret_normal import codes
from guard.model.arrays import Bools, Ints, Longs

MAGIC = b"guard n-grams 1\n"
LEAST, DEFAULT, MOST = 16, 32, 256
"""Letters and digits of a run: see `guard secrets hash --help`."""
MOST_RUNS = 2**23
"""Runs in a file: 8 to 10 MB of text, 100 MB of file and memory."""
MAX_BYTES = 2**27
_MASK = 2**64 - 1
_MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # of MurmurHash3's finaliser
_BITS_A_RUN = 16
_LEAST_BITS = 10


class NgramsError(ValueError):
    """A file of n-grams that cannot be used; the message says why."""


class _Keys(NamedTuple):
    """What follows from a salt."""

    base: int
    mask: int
    salt: bytes

    def power(self, exponent: int) -> int:
        """Return a power of the base, modulo 2^64."""
        return int(pow(self.base, exponent, 2**64))


def _keys(salt: bytes) -> _Keys:
    drawn = hashlib.blake2b(b"rolling", key=salt, digest_size=16).digest()
    return _Keys(int.from_bytes(drawn[:8]) | 1, int.from_bytes(drawn[8:]), salt)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Ngrams:
    """Runs of documents, hashed.

    Args:
        n: letters and digits of a run.
        bits: the Bloom filter has 2 to the power of so many.
        keys: from the salt.
        bloom: the filter, shape (2^bits / 8,), uint8.
        hashes: sorted, shape (m,).
        last: the base to the power of n.
        digest: SHA-256 of the file's contents, hexadecimal.
    """

    n: int
    bits: int
    keys: _Keys
    bloom: np.ndarray[Any, np.dtype[np.uint8]]  # Any: numpy's shape
    hashes: Longs
    last: int
    digest: str

    def rolled(self, text: str) -> Longs:
        """Return the rolling hash of every run of a normal form, shape (len - n + 1,); none when it is shorter.

        The hash of characters c_1 ... c_n is the sum of c_i * base^(n-i), modulo 2^64. Made of those of halves.
        """
        points = codes(text)
        if len(points) < self.n:
            return points[:0]
        done, result = 0, points[:0]
        size, part = 1, points
        for bit in range(self.n.bit_length()):
            if self.n >> bit & 1:
                # What is done stands behind what is new.
                kept = len(points) - done - size + 1
                shift = np.uint64(self.keys.power(done))
                result = part[:kept] * shift + result[size : size + kept] if done else part
                done += size
            if done < self.n:
                part = part[:-size] * np.uint64(self.keys.power(size)) + part[size:]
                size *= 2
        return result

    def roll(self, before: int, gone: str, come: str) -> int:
        """Return the rolling hash of the next run.

        Args:
            before: that of the one before.
            gone: its first character.
            come: the character behind it.
        """
        return (before * self.keys.base + ord(come) - ord(gone) * self.last) & _MASK

    def may_hold(self, rolled: int) -> bool:
        """Say whether the filter knows a rolling hash."""
        x = rolled ^ self.keys.mask
        for factor in _MIX:
            x = ((x ^ x >> 33) * factor) & _MASK
        x ^= x >> 33
        first, second = x >> (64 - self.bits), x & (2**self.bits - 1)
        bloom = self.bloom
        return bool(bloom[first >> 3] >> (first & 7) & 1 and bloom[second >> 3] >> (second & 7) & 1)

    def candidates(self, rolled: Longs) -> Ints:
        """Return which of many rolling hashes the filter knows, in order."""
        first, second = _places(rolled, self.keys.mask, self.bits)
        some = np.flatnonzero(_set(self.bloom, first))
        return some[_set(self.bloom, second[some])]

    def holds(self, run: str) -> bool:
        """Say whether a run, in its normal form, stands in a document."""
        sought = _hash(run, self.keys.salt)
        at = int(np.searchsorted(self.hashes, np.uint64(sought)))
        return at < len(self.hashes) and int(self.hashes[at]) == sought


def _hash(run: str, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode("utf-8", "surrogatepass"), key=salt, digest_size=8).digest())


def _places(rolled: Longs, mask: int, bits: int) -> tuple[Longs, Longs]:
    """Return two places in the filter for each rolling hash: its highest and its lowest bits, mixed."""
    x = rolled ^ np.uint64(mask)
    half = np.uint64(33)
    for factor in _MIX:
        x ^= x >> half
        x *= np.uint64(factor)
    x ^= x >> half
    return x >> np.uint64(64 - bits), x & np.uint64(2**bits - 1)


def _set(bloom: np.ndarray[Any, np.dtype[np.uint8]], places: Longs) -> Bools:  # Any: numpy's shape
    seven = np.uint64(7)
    return (bloom[(places >> np.uint64(3)).astype(np.int64)] >> (places & seven).astype(np.uint8) & 1).astype(np.bool_)


def encode(texts: Iterable[str], n: int, salt: bytes) -> bytes:
    """Hash documents.

    Args:
        texts: their normal forms.
        n: letters and digits of a run.
        salt: 16 bytes and more, random.

    Raises:
        NgramsError: there is no run of n, or there are too many.
    """
    keys = _keys(salt)
    runs: set[int] = set()
    rolled: list[Longs] = []
    bare = Ngrams(n, _LEAST_BITS, keys, np.zeros(0, np.uint8), np.zeros(0, np.uint64), 0, "")
    for text in texts:
        rolled.append(bare.rolled(text))
        runs.update(_hash(text[i : i + n], salt) for i in range(len(text) - n + 1))
        if len(runs) > MOST_RUNS:
            raise NgramsError(f"more than {MOST_RUNS} runs: hash parts into files of their own")
    if not runs:
        raise NgramsError(f"no document has {n} letters and digits")
    hashes = np.sort(np.fromiter(runs, np.uint64, len(runs)))
    bits = max(_LEAST_BITS, (_BITS_A_RUN * len(hashes) - 1).bit_length())
    marked = np.zeros(2**bits, np.bool_)
    for one in rolled:
        for places in _places(one, keys.mask, bits):
            marked[places.astype(np.int64)] = True
    payload = np.packbits(marked, bitorder="little").tobytes() + hashes.astype("<u8").tobytes()
    head = {
        "n": n,
        "bits": bits,
        "runs": len(hashes),
        "salt": salt.hex(),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    return MAGIC + json.dumps(head).encode() + b"\n" + payload


_KNOWN: WeakValueDictionary[str, Ngrams] = WeakValueDictionary()
"""What is in use, by the digest of its file: a reload that reads the same file again keeps no second copy."""


def decode(data: bytes) -> Ngrams:
    """Read what `encode` wrote.

    Raises:
        NgramsError: it is something else, or damaged.
    """
    digest = hashlib.sha256(data).hexdigest()
    if (known := _KNOWN.get(digest)) is not None:
        return known
    if not data.startswith(MAGIC):
        raise NgramsError("this is no file of n-grams")
    end = data.find(b"\n", len(MAGIC), len(MAGIC) + 4096)
    try:
        head = cast("Mapping[str, Any]", json.loads(data[len(MAGIC) : max(end, 0)]))  # Any: checked below
        n, bits, count, salt = (int(head["n"]), int(head["bits"]), int(head["runs"]), bytes.fromhex(head["salt"]))
        sha256 = str(head["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise NgramsError("its head cannot be read") from error
    payload = memoryview(data)[end + 1 :]
    if not (LEAST <= n <= MOST and _LEAST_BITS <= bits <= 32 and 0 < count <= MOST_RUNS and 16 <= len(salt) <= 64):
        raise NgramsError("its head holds numbers that cannot be")
    if len(payload) != 2**bits // 8 + 8 * count or hashlib.sha256(payload).hexdigest() != sha256:
        raise NgramsError("it is damaged: not what was written")
    bloom = np.frombuffer(payload[: 2**bits // 8], np.uint8)
    hashes = np.frombuffer(payload[2**bits // 8 :], "<u8").astype(np.uint64, copy=False)
    keys = _keys(salt)
    return _KNOWN.setdefault(digest, Ngrams(n, bits, keys, bloom, hashes, keys.power(n), digest))
