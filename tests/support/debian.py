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
        said = install(package)
        found = shutil.which(name)
        assert found is not None, f"{name} is missing, and apt-get install {package} did not bring it: {said}"
    return Path(found)


def install(*packages: str) -> str:
    """Install packages; returns what apt-get complained of."""
    with (Path(tempfile.gettempdir()) / "guard-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apt("update", "-q")
        return _apt("install", "-qy", "--no-install-recommends", *packages)


def python() -> Path:
    """Return Debian's own Python, which can make venvs and has its shared library: what programs that embed it need."""
    found = Path("/usr/bin/python3")
    if not found.exists():
        install("python3")
    version = _said(found, "import sys; print(*sys.version_info[:2], sep='.')").strip()
    embeddable = f"import ctypes, ensurepip; ctypes.CDLL('libpython{version}.so.1.0'); print('yes')"
    if "yes" not in _said(found, embeddable):
        said = install("python3-venv", f"libpython{version}")
        assert "yes" in _said(found, embeddable), f"{found} cannot make venvs or be embedded: {said}"
    return found


def _said(interpreter: Path, program: str) -> str:
    done = subprocess.run([str(interpreter), "-c", program], capture_output=True, text=True, check=False)
    return done.stdout


def _apt(*arguments: str) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    return done.stderr[-1000:]
