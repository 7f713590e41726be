"""A small request and answer for each API: something to explain before there is any traffic."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np

from guard.cli.samples_text import bodies as text_bodies
from guard.wire.registry import TEXT_APIS

if TYPE_CHECKING:
    from guard.model.domain import Bound, Inputs
    from guard.model.outputs import Outputs
    from guard.policy.plan import RoutePlan

_PROBABILITIES = ((0.6231, 0.2694, 0.1075), (0.0418, 0.0862, 0.872))
_LABELS = ("cat", "dog", "owl")
_FEATURES = 4
_PARAMETER = re.compile(r"\{(\w+)\}")


def sample_path(route: RoutePlan, match: str | None) -> str | None:
    """Return a path that the route takes on a scoring endpoint, or None when no simple one was found.

    Args:
        route: the route.
        match: the path of its `match`, which says more than the API's own where it names a model.
    """
    for open_ in route.endpoints:
        ours, theirs = (match or open_.endpoint.template).split("/"), open_.endpoint.template.split("/")
        if open_.endpoint.access != "scoring" or len(ours) != len(theirs):
            continue
        path = _PARAMETER.sub(_value, "/".join(b if "{" in a else a for a, b in zip(ours, theirs, strict=True)))
        if open_.pattern.fullmatch(path) and (open_.narrow is None or open_.narrow.fullmatch(path)):
            return path
    return None


def _value(parameter: re.Match[str]) -> str:
    return "1" if parameter[1] == "version" else "model"


def sample(route: RoutePlan) -> tuple[bytes, bytes] | None:
    """Return (request body, answer body) in the shape of the route's API; None when only its operator knows it."""
    rows = [features(route.inputs, 0.4), features(route.inputs, 0.6)]
    texts = ["a small sample", "another one"]
    queries: list[object] = [*texts] if route.inputs is not None and route.inputs.kind == "text" else [*rows]
    scores = answers(route.outputs)
    request, answer = _bodies(route.api, queries, scores, route.outputs)
    return None if request is None else (json.dumps(request).encode(), json.dumps(answer).encode())


def features(inputs: Inputs | None, where: float) -> list[float]:
    """Return a query inside the declared domain.

    Args:
        inputs: the route's.
        where: how far between low and high, 0 to 1.
    """
    size = (inputs.size if inputs is not None else None) or _FEATURES
    low, high = (
        _bounds(None if inputs is None else inputs.low, size),
        _bounds(None if inputs is None else inputs.high, size),
    )
    low = np.where(np.isnan(low), np.where(np.isnan(high), 0.0, high - 1.0), low)
    high = np.where(np.isnan(high), low + 1.0, high)
    values = low + (high - low) * where
    if inputs is not None and inputs.step is not None:
        step = np.asarray(inputs.step, dtype=np.float64)
        values = low + np.floor((values - low) / step) * step
    return [round(float(value), 6) for value in values]


def _bounds(bound: Bound | None, size: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(np.nan if bound is None else bound, dtype=np.float64), (size,))


def answers(outputs: Outputs) -> list[list[float]]:
    """Return two rows of scores of the declared kind; of kind labels none."""
    rows = [list(row) for row in _PROBABILITIES]
    match outputs.kind:
        case "probabilities":
            return rows
        case "logits":
            return [[round(float(np.log(p)) + 3.0, 4) for p in row] for row in rows]
        case "logprobs":
            return [[round(float(np.log(p)), 4) for p in row] for row in rows]
        case "value":
            low = 0.0 if outputs.low is None else outputs.low
            high = low + 1.0 if outputs.high is None else outputs.high
            return [[low + (high - low) * row[0]] for row in rows]
        case "embedding":
            return [[round(p - 0.3, 4) for p in row] for row in rows]
        case "labels":
            return []


def _bodies(api: str, queries: list[object], scores: list[list[float]], outputs: Outputs) -> tuple[object, object]:
    labels = [int(np.argmax(row)) for row in _PROBABILITIES]
    plain: list[object] = [row[0] if outputs.kind == "value" else row for row in scores] or [*labels]
    named = outputs.kind in ("probabilities", "logits", "logprobs")
    first: object = dict(zip(_LABELS, scores[0], strict=False)) if named else plain[0]
    ranked = [sorted(zip(_LABELS, row, strict=False), key=lambda pair: -pair[1]) for row in scores if named]
    lists = [[{"label": label, "score": score} for label, score in row] for row in ranked] or plain
    instances = ({"instances": queries}, {"predictions": plain})
    bodies: dict[str, tuple[object, object]] = {
        "open_inference": (
            {"inputs": [_tensor("input", queries)]},
            {"model_name": "model", "outputs": _outputs(labels, scores)},
        ),
        "kserve_v1": instances,
        "tensorflow_serving": instances,
        "sagemaker": instances,
        "mlflow": ({"inputs": queries}, {"predictions": plain}),
        "torchserve": ({"data": queries[0]}, first),
        "huggingface": ({"inputs": queries}, lists),
    }
    return text_bodies(api, outputs.kind) if api in TEXT_APIS else bodies.get(api, (None, None))


def _tensor(name: str, rows: list[object]) -> dict[str, object]:
    if isinstance(rows[0], str):
        return {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": rows}
    matrix = np.asarray(rows, dtype=np.float64)
    return {"name": name, "shape": list(matrix.shape), "datatype": "FP64", "data": matrix.ravel().tolist()}


def _outputs(labels: list[int], scores: list[list[float]]) -> list[dict[str, object]]:
    label: dict[str, object] = {"name": "label", "shape": [len(labels), 1], "datatype": "INT64", "data": labels}
    return [label, _tensor("scores", [*scores])] if scores else [label]
