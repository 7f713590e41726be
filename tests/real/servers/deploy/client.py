"""Check manifests against the schemas of Kubernetes and of the Prometheus operator.

client.py VERSION,VERSION,... FILE...    ->  {"checked": number of documents and versions, "problems": [...]}
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1


def lost(given: object, kept: object, path: str = "") -> list[str]:
    """Return where `kept` lacks what was given: fields that a schema does not have."""
    if isinstance(given, dict):
        missing = [f"{path}.{key}: there is no such field" for key in given if key not in kept]
        return missing + [one for key in given if key in kept for one in lost(given[key], kept[key], f"{path}.{key}")]
    if isinstance(given, list):
        pairs = enumerate(zip(given, kept, strict=True))
        return [one for place, (a, b) in pairs for one in lost(a, b, f"{path}[{place}]")]
    return []


def problems(document: dict, versions: list[str]) -> list[str]:
    """Return what is wrong with a document."""
    what = f"{document['kind']} {document['metadata']['name']}"
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        try:
            read = getattr(v1, document["kind"]).model_validate(document)
        except ValueError as error:
            return [f"{what}: {error}"]
        kept = read.spec.model_dump(by_alias=True, exclude_none=True)
        return [f"{what}{one}" for one in lost(document["spec"], kept)]
    found = []
    for version in versions:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{what}, Kubernetes {version}: {error.message}")
    return found


versions, files = sys.argv[1].split(","), sys.argv[2:]
documents = [one for name in files for one in yaml.safe_load_all(Path(name).read_text()) if one]
print(json.dumps({"checked": len(documents), "problems": [p for one in documents for p in problems(one, versions)]}))
