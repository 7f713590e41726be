"""A secret in a policy: where it is, never what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema


@dataclass(frozen=True, slots=True)
class Reference:
    """`{env: NAME}` or `{file: PATH}`: the only ways to a secret.

    Args:
        source: where it is.
        name: the variable's name or the file's path.
    """

    source: Literal["env", "file"]
    name: str

    def __str__(self) -> str:
        return f"{{{self.source}: ...}}"


class Secrets(Protocol):
    """Reads secrets; the loader passes one as pydantic's validation context, so that no schema reads anything."""

    def read(self, reference: Reference) -> str:
        """Return the secret; raise ValueError when it cannot be had."""
        ...


def _secret(value: object, info: ValidationInfo) -> SecretStr:
    secrets: Secrets | None = info.context
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, Reference) and secrets is not None:
        return SecretStr(secrets.read(value))
    raise ValueError("a secret is never written in a policy; write {env: NAME} or {file: PATH}")


_REFERENCE_SCHEMA: dict[str, Any] = {  # Any: JSON Schema
    "type": "object",
    "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
Secret = Annotated[SecretStr, BeforeValidator(_secret), WithJsonSchema(_REFERENCE_SCHEMA)]
"""A secret: given as a `Reference` in a policy; no output prints it."""
