"""What operators did to ledgers, one JSON line an act, at the end of a file that is only ever added to.

The line is on the disk before the act begins, so that no act goes unrecorded; one that then fails gets a second line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from guard.errors import StateError

_CHAINED = b'{"seq":'


def append(path: str, act: Mapping[str, object]) -> None:
    """Add one line to the file, made with mode 0600 when there is none, and return when it is on the disk.

    Args:
        path: the file.
        act: JSON values; holds no secret.

    Raises:
        StateError: the line may not be there.
    """
    line = json.dumps(act, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.pread(descriptor, len(_CHAINED), 0) == _CHAINED:
                raise OSError("it is the audit log of guard serve, whose chain this would break")
            # One write of a whole line: what others add meanwhile stands before it or behind it.
            if os.write(descriptor, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateError(f"the audit file {path} cannot be written: {error}", code="audit_unavailable") from error
