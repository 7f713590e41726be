"""Clients' names as logs may hold them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

_MOST_KNOWN = 4096


class Pseudonyms:
    """Keyed hashes of clients' names: the same for as long as the secret is, and of no use without it.

    Args:
        key: at most 64 bytes, derived from Guard's secret for this one use.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, name: str) -> str:
        """Return 16 hexadecimal digits that stand for a name.

        >>> Pseudonyms(bytes(32)).of("alice") == Pseudonyms(bytes(32)).of("alice") != Pseudonyms(b"k").of("alice")
        True
        """
        found = self._known.get(name)
        if found is None:
            data = name.encode("utf-8", "surrogatepass")
            found = self._known[name] = hashlib.blake2b(data, key=self._key, digest_size=8).hexdigest()
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return found
