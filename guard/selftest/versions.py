"""What a report must say of the machine and the software that made it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from guard import __version__

PACKAGES = ("numpy", "scipy", "scikit-learn", "statsmodels", "uvicorn", "starlette")


def versions() -> dict[str, str]:
    """Return the versions of Guard, Python and the libraries that figures depend on."""
    found = {"guard": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """Return cores and processor in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {names[0] if names else platform.machine()}"
