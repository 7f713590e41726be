"""Where the presets are: in the installed package, or beside it in a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from guard.errors import PolicyError, Problem
from guard.policy.suggest import did_you_mean


def preset_directory(package: Path | None = None) -> Path:
    """Return the folder of the presets: `guard/presets` in a wheel, `policies` beside the package in a checkout.

    Args:
        package: the package's folder; None finds it.
    """
    root = Path(str(files("guard"))) if package is None else package
    installed = root / "presets"
    return installed if installed.is_dir() else root.parent / "policies"


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in preset_directory().glob("*.yaml"))


def find_policy(source: str | Path, directory: Path | None = None) -> Path:
    """Return the file that `source` names.

    Args:
        source: a preset's bare name, which wins over a file of that name, or a path.
        directory: what relative paths are relative to; None is the working directory.

    Raises:
        PolicyError: neither a preset nor a file.
    """
    name = str(source)
    bare = isinstance(source, str) and "/" not in name and not name.startswith(".") and "\0" not in name
    if bare and (preset := preset_directory() / f"{name}.yaml").is_file():
        return preset
    path = Path(name) if directory is None else directory / name
    if "\0" not in name and path.is_file():
        return path
    if bare and "." not in name:
        problem = Problem(
            f"there is no preset and no file called {name or '(empty)'}", hint=did_you_mean(name, preset_names())
        )
    else:
        problem = Problem(f"there is no file {path}", hint=f"a path, or a preset: {', '.join(preset_names())}")
    raise PolicyError([problem], name)
