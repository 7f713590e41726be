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
            _apt("update", "-q")
            said = _apt("install", "-qy", "--no-install-recommends", package)
        found = shutil.which(name)
        assert found is not None, f"{name} is missing, and apt-get install {package} did not bring it: {said}"
    return Path(found)


def _apt(*arguments: str) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    return done.stderr[-1000:]
