"""How the APIs that Guard speaks are asked, seen from the client's side: paths, requests, and where an answer stands.

| API | path | request | answer |
|---|---|---|---|
| open_inference | /v2/models/MODEL/infer | one tensor | `outputs` |
| kserve_v1, tensorflow_serving | /v1/models/MODEL:predict | `instances` | `predictions`, `outputs`, `result(s)` |
| torchserve | /predictions/MODEL | `instances` | the body |
| mlflow | /invocations | `inputs` | `predictions` |
| sagemaker | /invocations | `instances` | `predictions`, JSON lines or CSV |
| huggingface | /models/MODEL, or /predict without a model | `inputs` | the body |
| json | the route's `match.path` | the route's `select.queries` | the route's `select.scores` and `.labels` |

Another request is written as a template (`--template`): JSON in which the text `"$rows"` stands for the list of all
rows. `"$row"` stands for one row: a list of one item that holds it is repeated for every row, and without such a list
each request carries one row. `csv` instead of JSON sends lines of numbers, which is all that some SageMaker containers
take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import orjson
from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError

from guard.selftest.base import Rows
from guard.selftest.targets.answers import Cell, Raw, cells_of, joined, members, read_document, rows_of
from guard.selftest.targets.spec import TargetError

ROWS, ROW, CSV = "$rows", "$row", "csv"
_FORMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "kserve_v1": ("/v1/models/{model}:predict", "instances", ("predictions",)),
    "tensorflow_serving": ("/v1/models/{model}:predict", "instances", ("predictions", "outputs", "result", "results")),
    "torchserve": ("/predictions/{model}", "instances", ()),
    "mlflow": ("/invocations", "inputs", ("predictions",)),
    "sagemaker": ("/invocations", "instances", ("predictions",)),
    "huggingface": ("/models/{model}", "inputs", ()),
}
"""API: (path, member of the request that holds the rows, members of the answer that hold it)."""
APIS = ("open_inference", *_FORMS, "json")
_ENVIRONMENT = JSONPathEnvironment(strict=True)


class Wire(Protocol):
    """Writes requests and takes answers apart; a frozen dataclass, so that it pickles."""

    @property
    def path(self) -> str:
        """Where requests go."""
        ...

    @property
    def content_type(self) -> str:
        """Of the request."""
        ...

    @property
    def one_row(self) -> bool:
        """A request can carry no more than one row."""
        ...

    def encode(self, x: Rows) -> bytes:
        """Return the request's body for some rows."""
        ...

    def raw(self, body: bytes, rows: int) -> Raw:
        """Return an answer's members, one cell a row.

        Raises:
            ValueError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class TensorWire:
    """The Open Inference protocol (V2).

    Args:
        path: of the endpoint.
        tensor: the input's name.
        datatype: of numbers.
        shape: of one row; empty for a flat one. Texts go as one element.
    """

    path: str
    tensor: str = "x"
    datatype: str = "FP64"
    shape: tuple[int, ...] = ()
    content_type: str = "application/json"
    one_row: bool = False

    def encode(self, x: Rows) -> bytes:
        """Return one tensor; null stands for NaN."""
        if isinstance(x, np.ndarray):
            whole = self.datatype.startswith(("INT", "UINT"))
            data: object = np.rint(x).astype(np.int64).ravel() if whole else np.ascontiguousarray(x).ravel()
            shape = [len(x), *(self.shape or x.shape[1:])]
            tensor = {"name": self.tensor, "datatype": self.datatype, "shape": shape, "data": data}
        else:
            tensor = {"name": self.tensor, "datatype": "BYTES", "shape": [len(x), *self.shape], "data": list(x)}
        return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)

    def raw(self, body: bytes, rows: int) -> Raw:
        """Return every tensor; texts such as `0.98:7` (Triton's classification) are scores with their class."""
        document = read_document(body)
        try:
            outputs = cast("list[dict[str, Any]]", cast("dict[str, Any]", document)["outputs"])  # Any: foreign JSON
            return {str(output["name"]): _tensor_cells(output, rows) for output in outputs}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"an answer that is none of the Open Inference protocol: {error}") from error


@dataclass(frozen=True)
class JsonWire:
    """An API of JSON requests and answers.

    Args:
        path: of the endpoint.
        template: the request's JSON with `"$rows"` or `"$row"`, as text; or `csv`.
        holders: members of the answer that hold it.
        scores: where scores are, an RFC 9535 path; empty to look everywhere.
        labels: where labels are, likewise.
    """

    path: str
    template: str
    holders: tuple[str, ...] = ()
    scores: str = ""
    labels: str = ""

    @property
    def content_type(self) -> str:
        """Of the request."""
        return "text/csv" if self.template == CSV else "application/json"

    @property
    def one_row(self) -> bool:
        """A request can carry no more than one row."""
        return self.template != CSV and ROWS not in _texts(self._form) and not _repeats(self._form)

    @property
    def _form(self) -> object:
        return orjson.loads(self.template)

    def encode(self, x: Rows) -> bytes:
        """Return the template with the rows in it."""
        if self.template == CSV:
            return "".join(
                ",".join(map(repr, map(float, row))) + "\n" for row in cast("list[Any]", x)
            ).encode()  # Any: numbers
        return orjson.dumps(_filled(self._form, list(x)), option=orjson.OPT_SERIALIZE_NUMPY)

    def raw(self, body: bytes, rows: int) -> Raw:
        """Return the members that `scores` and `labels` lead to, or all of the answer's."""
        document = read_document(body)
        if not self.scores and not self.labels:
            return members(document, rows, self.holders)
        found: Raw = {}
        for name, path in (("scores", self.scores), ("labels", self.labels)):
            if path:
                found |= joined([cells_of(item, name) for item in _matched(path, document, rows)])
        return found


def wire(
    api: str,
    *,
    model: str = "",
    path: str = "",
    template: str = "",
    select: Mapping[str, str | None] | None = None,
) -> Wire:
    """Return how an API is asked.

    Args:
        api: its name.
        model: the model's name, where the path has one.
        path: instead of the API's own; `{model}` in it is the model.
        template: instead of the API's own request.
        select: paths of queries, scores and labels, for `json`.

    Raises:
        TargetError: something is missing or wrong.
    """
    if api not in APIS:
        raise TargetError(f"there is no API {api}: {', '.join(APIS)}")
    if template:
        check_template(template)
    paths = {name: text for name, text in (select or {}).items() if text}
    if api == "open_inference":
        if template:
            raise TargetError("--template does not go with open_inference, whose requests are tensors")
        return TensorWire(_path(path or "/v2/models/{model}/infer", model))
    if api == "json":
        if not path:
            raise TargetError("api: json has no path of its own: say --path, or give the route a match.path")
        for name in ("scores", "labels"):
            if name in paths:
                _compiled(paths[name])
        form = template or template_of(paths.get("queries", ""))
        return JsonWire(_path(path, model), form, (), paths.get("scores", ""), paths.get("labels", ""))
    own, member, holders = _FORMS[api]
    if api == "huggingface" and not model:
        own = "/predict"
    return JsonWire(_path(path or own, model), template or orjson.dumps({member: ROWS}).decode(), holders)


def check_template(template: str) -> None:
    """Check a request template.

    Raises:
        TargetError: it is no JSON, or has no place for the rows.
    """
    if template == CSV:
        return
    try:
        texts = _texts(orjson.loads(template))
    except orjson.JSONDecodeError as error:
        raise TargetError(f"--template is neither JSON nor csv: {error}") from error
    if texts.count(ROWS) + texts.count(ROW) != 1:
        raise TargetError(f'--template must hold "{ROWS}" (all rows) or "{ROW}" (one row) once')


def template_of(queries: str) -> str:
    """Return the request that a path to queries leads into.

    >>> template_of("$.rows[*].pixels"), template_of("$.x"), template_of("$[*]")
    ('{"rows":[{"pixels":"$row"}]}', '{"x":"$rows"}', '"$rows"')

    Raises:
        TargetError: the path does not say how the request looks.
    """
    name = r"(?:\.[A-Za-z_]\w*|\['[^'\\]*'\]|\[\"[^\"\\]*\"\])"
    found = re.fullmatch(rf"\$({name}*)(\[\*\])?({name}*)", queries)
    if found is None or (found[3] and not found[2]):
        raise TargetError(
            "how a request looks cannot be read off select.queries"
            + (f" ({queries})" if queries else ", which is missing")
            + f': say it, such as --template \'{{"rows": "{ROWS}"}}\''
        )
    made: object = ROW if found[3] else ROWS
    for key in reversed(_keys(found[3])):
        made = {key: made}
    if found[3]:
        made = [made]
    for key in reversed(_keys(found[1])):
        made = {key: made}
    return orjson.dumps(made).decode()


def _keys(path: str) -> list[str]:
    found = re.findall(r"\.([A-Za-z_]\w*)|\['([^'\\]*)'\]|\[\"([^\"\\]*)\"\]", path)
    return [dotted or single or double for dotted, single, double in cast("list[tuple[str, str, str]]", found)]


def _path(template: str, model: str) -> str:
    if "{model}" in template and not model:
        raise TargetError(f"the model's name is missing in {template}: say --model NAME")
    made = template.replace("{model}", model)
    if "{" in made or not made.startswith("/"):
        raise TargetError(f"{template} is no path of one endpoint: say --path, such as --path /v1/score")
    return made


def _texts(value: object) -> list[str]:
    """Return all texts of decoded JSON."""
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    if isinstance(value, list):
        return [text for item in cast("list[object]", value) for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _repeats(value: object) -> bool:
    """Say whether decoded JSON has a list of one item that holds the row."""
    if isinstance(value, dict):
        return any(map(_repeats, cast("dict[str, object]", value).values()))
    if isinstance(value, list):
        items = cast("list[object]", value)
        return (len(items) == 1 and ROW in _texts(items)) or any(map(_repeats, items))
    return False


def _filled(value: object, rows: list[object]) -> object:
    if value == ROWS:
        return rows
    if value == ROW:
        return rows[0]
    if isinstance(value, dict):
        return {key: _filled(item, rows) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        items = cast("list[object]", value)
        if len(items) == 1 and ROW in _texts(items) and not _repeats(items[0]):
            return [_filled(items[0], [row]) for row in rows]
        return [_filled(item, rows) for item in items]
    return value


def _compiled(path: str) -> JSONPath:
    try:
        return cast("JSONPath", _ENVIRONMENT.compile(path))
    except JSONPathError as error:
        raise TargetError(f"{path!r} is no RFC 9535 path") from error


def _matched(path: str, document: object, rows: int) -> list[object]:
    """Return what a path leads to: one match a row, or one for the list of all rows."""
    compiled = _compiled(path)
    found: list[object] = [match.obj for match in compiled.finditer(cast("Any", document))]  # Any: decoded JSON
    items = rows_of(found[0], rows) if compiled.singular_query() and found else found
    if items is None or len(items) != rows:
        raise ValueError(f"an answer in which {path} does not hold {rows} rows")
    return items


def _tensor_cells(output: dict[str, Any], rows: int) -> list[Cell]:  # Any: foreign JSON
    if list(output["shape"])[:1] != [rows]:
        raise ValueError(f"the tensor {output['name']} does not hold {rows} rows")
    if output["datatype"] == "BYTES":
        data = np.asarray(output["data"], dtype=object).reshape(rows, -1)
        return [_text_cell([str(text) for text in row]) for row in data]
    data = np.asarray(output["data"], dtype=np.float64).reshape(rows, -1)
    return [row[0] if len(row) == 1 else row for row in data.tolist()]


def _text_cell(texts: list[str]) -> Cell:
    found: dict[str, float] = {}
    for text in texts:
        score, colon, rest = text.partition(":")
        try:
            # `score:number` or `score:number:name`; the name is what a label is called.
            found[rest.partition(":")[2] or rest] = float(score)
        except ValueError:
            return text
        if not colon:
            return text
    return found
