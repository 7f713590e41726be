"""Programs of Debian packages that tests run: installed when they are missing, so that no test is skipped for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def program(name: str, package: str) -> Path:
    """Return the path of a program; the package that brings it is installed first where it is missing.

    Args:
        name: such as `promtool`.
        package: Debian's, such as `prometheus`.
    """
    found = shutil.which(name)
    if found is None:
        with (Path(tempfile.gettempdir()) / "guard-tests-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "check": False}
            subprocess.run(["apt-get", "update", "-q"], **quiet)
            done = subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", package], **quiet)
        found = shutil.which(name)
        said = done.stderr.decode(errors="replace")[-1000:]
        assert found is not None, f"{name} is missing, and apt-get install {package} did not bring it: {said}"
    return Path(found)
