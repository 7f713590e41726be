"""Images without a container engine or a registry: buildah runs every instruction of a Dockerfile in a chroot.

The base is made of Debian's own Python under the name that the Dockerfile gives it, and packages come from a directory
of wheels that this machine's pip has filled. What a container is confined to (a read-only file system, a user without
rights or capabilities) is made in a mount namespace. All of it needs root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.debian import program
from tests.support.processes import ROOT, process

if TYPE_CHECKING:
    from collections.abc import Generator

DOCKER = ROOT / "deploy" / "docker"
_STORE = ROOT / ".venvs" / "images"
_DEBIAN, _PYTHON = "trixie", "3.13"
_BASE = f"localhost/python:{_PYTHON}-slim-{_DEBIAN}"
_CONFINED = """
mount --make-rprivate /
for volume in $volumes; do mkdir -p "$root${volume#*:}"; done
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o nosuid,nodev,noexec,size=16m tmpfs "$root/tmp"
for volume in $volumes; do mount --bind "${volume%%:*}" "$root${volume#*:}"; done
cd /
exec chroot "$root" /usr/bin/setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image, unpacked.

    Args:
        root: its file system.
        config: what `docker inspect` shows as Config.
    """

    root: Path
    config: dict[str, Any]  # Any: JSON

    def command(
        self, *arguments: str, env: dict[str, str], volumes: dict[str, Path]
    ) -> tuple[list[str], dict[str, str]]:
        """Return a command and its environment, confined as `docker run --read-only --cap-drop ALL --tmpfs /tmp` would.

        Args:
            arguments: the command inside; none for the image's own.
            env: beside the image's.
            volumes: directories outside, by where they are seen inside.
        """
        own = dict(text.split("=", 1) for text in self.config["Env"])
        inside = list(arguments) or [*self.config["Entrypoint"], *(self.config["Cmd"] or ())]
        uid = self.config["User"].split(":")[0]
        words = ["/usr/bin/env", "-i", f"--chdir={self.config['WorkingDir'] or '/'}"]
        words += [f"{name}={value}" for name, value in (own | env).items()]
        outside = {
            "root": str(self.root),
            "uid": uid,
            "volumes": " ".join(f"{path}:{seen}" for seen, path in volumes.items()),
        }
        confined = ["unshare", "--mount", "sh", "-euc", _CONFINED, "sh"]
        return [*confined, *words, *inside], outside

    def run(self, *arguments: str, volumes: dict[str, Path], **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        command, outside = self.command(*arguments, env=env, volumes=volumes)
        return subprocess.run(command, env=os.environ | outside, capture_output=True, text=True, check=False)

    @contextlib.contextmanager
    def running(
        self, log: Path, volumes: dict[str, Path], env: dict[str, str], *arguments: str
    ) -> Generator[subprocess.Popen[bytes]]:
        """Run a command, or the image's own, while the context lasts."""
        command, outside = self.command(*arguments, env=env, volumes=volumes)
        with process(command, log, outside) as started:
            yield started


@contextlib.contextmanager
def built(target: str = "guard", requirements: str = "requirements.txt") -> Generator[Image]:
    """Build a target of deploy/docker/Dockerfile, and unpack it while the context lasts.

    Args:
        target: the target.
        requirements: which lock it installs.
    """
    _base()
    wheels, name = _wheels(), f"localhost/guard-{target}-{requirements.removesuffix('.txt')}:test"
    config = _STORE / "pip.conf"
    config.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    mounts = [f"--volume={wheels}:/wheels:ro", f"--volume={config}:/etc/pip.conf:ro"]
    # Docker's format, for OCI's has no HEALTHCHECK. Targets share their layers where a layer is not a whole copy.
    options = [
        "--build-arg",
        f"REQUIREMENTS={requirements}",
        "--format",
        "docker",
        "--pull-never",
        f"--layers={str(_driver() == 'overlay').lower()}",
        *mounts,
    ]
    _buildah("bud", *options, "--target", target, "-f", str(DOCKER / "Dockerfile"), "-t", name, str(ROOT))
    container = _buildah("from", "--pull-never", name)
    try:
        inspected = json.loads(_buildah("inspect", "--type", "image", name))
        yield Image(Path(_buildah("mount", container)), inspected["Docker"]["config"])
    finally:
        _buildah("rm", container)
        _buildah("rmi", "--force", name)
        _buildah("rmi", "--prune")


def _base() -> None:
    """Make the base image once: Debian's Python, and what the official image has beside it, pip in /usr/local."""
    _STORE.mkdir(parents=True, exist_ok=True)
    if _BASE in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    archive = _STORE / "base.tar"
    kept_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    words = ["--variant=apt", "--include=python3,python3-venv,ca-certificates", *kept_out, _DEBIAN, str(archive)]
    _done([str(program("mmdebstrap", "mmdebstrap")), "--quiet", *words])
    container = _buildah("from", "scratch")
    _buildah("add", container, str(archive), "/")
    _buildah("run", container, "--", "python3", "-m", "venv", "/usr/local")
    _buildah("commit", "--rm", container, _BASE)
    archive.unlink()


def _wheels() -> Path:
    """Return a directory with the packages that the image names, each checked against its hash."""
    names = ("build.txt", "requirements.txt", "grpc.txt", "model.txt")
    digest = hashlib.sha256(b"".join((DOCKER / name).read_bytes() for name in names)).hexdigest()[:12]
    folder = _STORE / f"wheels-{digest}"
    if not folder.exists():
        made = folder.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        asked = ["--require-hashes", "--only-binary", ":all:", "--python-version", _PYTHON, "--dest", str(made)]
        for name in names:
            _done([*pip, *asked, "--requirement", str(DOCKER / name)])
        made.rename(folder)
    return folder


@lru_cache
def _driver() -> str:
    """Return how layers are stored: as copies where the kernel or a container around this one allows no overlays."""
    store = ["--root", str(_STORE / "overlay"), "--runroot", str(_STORE / "run-overlay"), "--storage-driver", "overlay"]
    asked = subprocess.run([str(program("buildah", "buildah")), *store, "info"], capture_output=True, check=False)
    return "vfs" if asked.returncode else "overlay"


def _buildah(command: str, *arguments: str) -> str:
    driver = _driver()
    store = ["--root", str(_STORE / driver), "--runroot", str(_STORE / f"run-{driver}"), "--storage-driver", driver]
    # A chroot needs nothing that a container without privileges might lack.
    return _done([str(program("buildah", "buildah")), *store, command, *arguments], BUILDAH_ISOLATION="chroot").strip()


def _done(command: list[str], **env: str) -> str:
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout
