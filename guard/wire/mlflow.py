"""MLflow's scoring server: `/invocations`, with JSON in four forms or CSV.

The `params` of a request may change what a pyfunc model reveals, so they are refused under `fields: known`. Columns
have names and pandas orders them itself: features of named columns are taken in alphabetical order, whatever order a
client writes. `/version` is closed: it names a release, and with it its known holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import decode_reply, decode_request, encode, forwardable, require_utf8, unreadable
from guard.wire.csvtable import CsvTable, read_csv
from guard.wire.json_answers import JsonAnswer, read_json
from guard.wire.problem import envelope
from guard.wire.row_lists import inside, list_queries, snapped_like, snapped_rows

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
Record = dict[str, object]


@dataclass(slots=True)
class _Document:
    """A decoded request: `form` is one of `_FORMS`, or `csv` with `table`."""

    form: str
    body: Record
    table: CsvTable | None = None
    columns: tuple[int, ...] | None = None
    """For named columns, the position of each feature in the request."""


def _queries(document: _Document) -> Queries:
    value = document.body[document.form]
    if document.form == "dataframe_split":
        return _split_queries(document, value)
    if document.form == "inputs" and not isinstance(value, list):
        return _input_queries(document, value)
    if not isinstance(value, list):
        raise ClientError(f"{document.form} must be a list", code="bad_request", path=document.form)
    return list_queries(cast("list[object]", value), document.form)


def _split_queries(document: _Document, value: object) -> Queries:
    """Read `{"columns": [...], "data": [[...], ...]}`; without columns the features have no names."""
    path = "dataframe_split"
    frame = cast("Record", value) if isinstance(value, dict) else {}
    data, columns, index = frame.get("data"), frame.get("columns"), frame.get("index")
    if not isinstance(data, list) or frame.keys() - {"data", "columns", "index"}:
        raise ClientError(f"{path} must have data and columns, and no more than an index besides", path=path)
    rows = cast("list[object]", data)
    if index is not None and not (isinstance(index, list) and len(cast("list[object]", index)) == len(rows)):
        raise ClientError(f"{path}.index must have as many members as the data", path=f"{path}.index")
    if columns is None:
        return list_queries(rows, f"{path}.data")
    names = [str(name) for name in cast("list[object]", columns)] if isinstance(columns, list) else []
    if not names or len(set(names)) != len(names):
        raise ClientError(f"{path}.columns must be names, each once", path=f"{path}.columns")
    if not rows:
        raise ClientError(f"{path}.data is empty", code="no_rows", path=f"{path}.data")
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(cast("list[object]", row)) != len(names):
            raise ClientError(f"{path}.data[{i}] must have {len(names)} members", path=f"{path}.data[{i}]")
    order = tuple(sorted(range(len(names)), key=names.__getitem__))
    document.columns = order
    whole = cast("list[list[object]]", rows)
    values: list[object] = [*whole] if order == tuple(range(len(names))) else [[row[j] for j in order] for row in whole]

    def place(row: int, feature: int) -> str:
        return f"{path}.data[{row}]" + (f"[{order[feature]}]" if 0 <= feature < len(order) else "")

    return Queries(len(rows), values, names=tuple(names[j] for j in order), place=place)


def _input_queries(document: _Document, value: object) -> Queries:
    """Read `inputs`: an object of named columns of one length, otherwise one row."""
    columns = cast("Record", value) if isinstance(value, dict) else {}
    names = tuple(sorted(columns))
    lengths = {len(cast("list[object]", c)) if isinstance(c, list) else 0 for c in columns.values()}
    row: object = cast("object", value)
    if len(lengths) != 1 or 0 in lengths:
        return Queries(1, [row], place=lambda _, feature: f"inputs{inside(row, feature)}")
    document.columns = ()
    lists = [cast("list[object]", columns[name]) for name in names]

    def place(row: int, feature: int) -> str:
        return f"inputs.{names[feature]}[{row}]" if 0 <= feature < len(names) else "inputs"

    return Queries(lengths.pop(), [list(row) for row in zip(*lists, strict=True)], names=names, place=place)


def _snapped(document: _Document, queries: Queries, snapped: Floats) -> object:
    value, order = document.body[document.form], document.columns
    if document.form == "dataframe_split":
        frame = cast("Record", value)
        rows = cast("list[list[object]]", snapped_like(queries.values or (), snapped))
        if order is None:
            return {**frame, "data": rows}
        back = sorted(range(len(order)), key=order.__getitem__)
        return {**frame, "data": [[row[j] for j in back] for row in rows]}
    if order is not None:
        rows = cast("list[list[object]]", snapped_like(queries.values or (), snapped))
        columns = dict(zip(queries.names or (), zip(*rows, strict=True), strict=True))
        return {name: columns[name] for name in cast("Record", value)}
    if isinstance(value, list):
        return snapped_rows(cast("list[object]", value), queries, snapped)
    return snapped_like(queries.values or (), snapped)[0]


@dataclass(frozen=True)
class Mlflow:
    """MLflow scoring server 2.x and 3.x.

    Args:
        reader: the route's outputs and fields.
    """

    name: ClassVar[str] = "mlflow"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = (
        Endpoint("POST", "/invocations"),
        Endpoint("POST", "/endpoints/{name}/invocations"),
        Endpoint("GET", "/ping", "status"),
        Endpoint("GET", "/health", "status"),
        Endpoint("GET", "/version", "closed"),
        Endpoint("GET", "/openapi.json", "closed"),
        Endpoint("GET", "/docs", "closed"),
    )

    def read(self, call: Call) -> Reading:
        """Decode one of the five forms of a request."""
        require_utf8(call)
        if call.content_type == "text/csv":
            table = read_csv(call.body, header=True, most=call.max_rows)
            return Reading(table.queries(), table.encode(), b"text/csv", _Document("csv", {}, table))
        if call.content_type not in ("", "application/json"):
            raise ClientError("this API takes application/json or text/csv", code="unsupported_media_type", status=415)
        value: object = decode_request(call.body)
        if not isinstance(value, dict):
            raise ClientError("the request must be a JSON object", code="bad_request")
        body = cast("Record", value)
        document = _Document(self._form(body), body)
        return Reading(_queries(document), forwardable(call.body, body), document=document)

    def _form(self, body: Record) -> str:
        forms = [form for form in _FORMS if form in body]
        if len(forms) != 1:
            raise ClientError(f"the request must have exactly one of {', '.join(_FORMS)}", code="bad_request")
        if self.reader.fields == "known" and body.get("params"):
            raise ClientError("params are not let through", code="unsupported_parameter", path="params")
        for member in body:
            if member not in (forms[0], "params"):
                raise ClientError("the request has an unknown member", code="unknown_member")
        return forms[0]

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Put snapped numbers back in the form that the client chose."""
        document = cast("_Document", reading.document)
        if document.table is not None:
            return document.table.snapped(snapped).encode()
        return encode({**document.body, document.form: _snapped(document, reading.queries, snapped)})

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode `$.predictions`: a list with one item a row, or an object of named columns."""
        value, bare_nan = decode_reply(reply.body)
        if not isinstance(value, dict) or "predictions" not in value:
            raise unreadable("it has no predictions")
        answer = Answer(0, None)
        read_json(cast("object", value), self.reader, answer, reading.queries.rows, bare_nan=bare_nan)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        return b"application/json", cast("JsonAnswer", answer.document).encode()

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return MLflow's `error_code` and `message`."""
        return envelope({"error_code": _CODES.get(error.status, "INTERNAL_ERROR"), "message": error.message})
