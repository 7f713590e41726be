"""Files of recordings: begun, written to and deleted alike, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path


def begin(path: Path) -> int:
    """Begin a file that only its owner can read; return its descriptor.

    Raises:
        OSError: it is there already, or cannot be made.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def abandon(descriptor: int, size: int) -> None:
    """Leave a file that could not be written, cut back to its last whole batch where that can be done."""
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def delete_oldest(directory: Path, pattern: str, written: set[Path], most: int) -> None:
    """Delete the oldest files of a kind beyond `most`, but none that is being written here."""
    found = sorted(directory.glob(pattern), key=_started)
    surplus = len(found) - most
    for path in [path for path in found if path not in written][: max(0, surplus)]:
        path.unlink(missing_ok=True)


def _started(path: Path) -> tuple[str, str]:
    """Return when a file was begun, then its name."""
    parts = path.stem.rsplit("-", 2)
    return parts[1].zfill(20), path.name
