"""Ed25519 keys of the audit log. Imported only where there is one: cryptography costs 20 MB and 60 ms."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class SigningKey:
    """Signs the audit log.

    Args:
        seed: 32 bytes, derived from Guard's secret for this one use.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw().hex()

    @property
    def public(self) -> str:
        """The public key, 64 hexadecimal digits."""
        return self._public

    def sign(self, data: bytes) -> str:
        """Return the signature, 128 hexadecimal digits."""
        return self._key.sign(data).hex()


def verifies(public: str, signature: str, data: bytes) -> bool:
    """Return whether the signature on `data` was made with the key; False for what is no key, too.

    Args:
        public: 64 hexadecimal digits.
        signature: 128 of them.
        data: what was signed.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
