"""Memoised releases: a direct-mapped cache of bounded size for each ledger.

A release is kept in the one slot that its key names, and whatever was there before is displaced. So a ledger holds at
most `SLOTS` releases whoever asks for what, and nothing has to be counted or swept. What was displaced is drawn and
charged again, which costs budget and no privacy. The keys are digests under Guard's secret and the values are what
clients were told: no raw input is in either, and nobody without the secret can aim at a slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import InvariantError

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOTS = 16_384
"""Releases kept for each ledger, at most."""
MOST_BYTES = 16 * 1024
"""A longer release is not kept: so a ledger's take 256 MiB at the very most."""
KEY_BYTES = 16


def slot_of(key: bytes) -> int:
    r"""Return the slot that a key names.

    Raises:
        InvariantError: the key has a wrong length, and could pass for the beginning of another.

    >>> slot_of(bytes(14) + b"\x41\x02") == 0x0102
    True
    """
    if len(key) != KEY_BYTES:
        raise InvariantError("the key of a release has a wrong length")
    return int.from_bytes(key[-2:], "big") % SLOTS


def kept(releases: Iterable[tuple[bytes, bytes]]) -> dict[int, bytes]:
    """Return what the slots are to hold, key first; where two releases name one slot, the later.

    >>> kept([(bytes(16), b"a"), (bytes(16), b"b")]) == {0: bytes(16) + b"b"}
    True
    """
    return {slot_of(key): key + release for key, release in releases if len(release) <= MOST_BYTES}


def found(key: bytes, held: bytes | None) -> bytes | None:
    r"""Return the release in a slot that holds `held`, if it is that of `key`.

    >>> found(bytes(16), bytes(16) + b"a"), found(bytes(16), b"\x01" * 16 + b"a"), found(bytes(16), None)
    (b'a', None, None)
    """
    return held[KEY_BYTES:] if held is not None and held.startswith(key) else None
