"""SageMaker: `/invocations` of a container; JSON, JSON lines or CSV without a header, both ways.

The answer's form is the container's choice: what its Content-Type says is tried first, then the others, since a wrong
or missing one carries scores all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import (
    decode_reply,
    decode_request,
    encode,
    forwardable,
    members,
    require_utf8,
    too_many_rows,
    unreadable,
)
from guard.wire.csvtable import CsvTable, parse_csv, read_csv, value_of, write_csv
from guard.wire.json_answers import JsonAnswer, read_json
from guard.wire.problem import problem_json
from guard.wire.row_lists import Batch, JsonRows, read_json_rows
from guard.wire.rows import read_rows

_JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson")
_IMAGES = ("image/", "application/x-image")
_MEMBERS: dict[str, Batch] = {"instances": "always", "inputs": "by_form"}
Record = dict[str, object]


@dataclass(slots=True)
class _Lines:
    """Answered rows, a line each, as JSON or as CSV."""

    rows: list[object]
    csv: bool = False
    bare_nan: bool = False
    one_line: bool = False


@dataclass(frozen=True)
class Sagemaker:
    """SageMaker real-time inference containers.

    Args:
        reader: the route's outputs and fields.
    """

    name: ClassVar[str] = "sagemaker"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = (
        Endpoint("POST", "/invocations"),
        Endpoint("GET", "/ping", "status"),
        Endpoint("GET", "/execution-parameters", "closed"),
        Endpoint("GET", "/models", "closed"),
        Endpoint("POST", "/models", "closed"),
        Endpoint("POST", "/models/{model}/invoke", "closed"),
    )

    def read(self, call: Call) -> Reading:
        """Decode JSON, JSON lines or CSV; an image is one row."""
        if call.content_type.startswith(_IMAGES):
            content_type = call.content_type.encode("latin-1", "replace")
            return Reading(Queries(1, None, opaque=call.body), call.body, content_type)
        require_utf8(call)
        if call.content_type == "text/csv":
            table = read_csv(call.body, header=False, most=call.max_rows)
            return Reading(table.queries(), table.encode(), b"text/csv", table)
        if call.content_type in _JSON_LINES:
            written = islice((line for line in call.body.split(b"\n") if line.strip()), call.max_rows + 1)
            lines: list[object] = [decode_request(line) for line in written]
            if len(lines) > call.max_rows:
                raise too_many_rows()
            body = call.body if call.body.count(b":") == members(lines) else _encode_lines(lines)
            rows = read_json_rows(lines, batch="always")
            return Reading(rows.queries, body, call.content_type.encode("latin-1"), rows)
        if call.content_type not in ("", "application/json"):
            raise ClientError("this API takes JSON, JSON lines or CSV", code="unsupported_media_type", status=415)
        value: object = decode_request(call.body)
        rows = self._rows(value)
        return Reading(rows.queries, forwardable(call.body, value), document=rows)

    def _rows(self, value: object) -> JsonRows:
        record = cast("Record", value) if isinstance(value, dict) else {}
        for member, batch in _MEMBERS.items():
            if member in record:
                if len(record) > 1 and self.reader.fields == "known":
                    raise ClientError(f"nothing but {member} is let through", code="unsupported_parameter")
                return read_json_rows(record, member, batch)
        return read_json_rows(cast("object", value))

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Put snapped numbers back in the form that the client chose."""
        if isinstance(reading.document, CsvTable):
            return reading.document.snapped(snapped).encode()
        document = cast("JsonRows", reading.document).written(snapped)
        lines = reading.content_type.decode("latin-1") in _JSON_LINES
        return _encode_lines(cast("list[object]", document)) if lines else encode(document)

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode JSON, JSON lines or CSV."""
        declared = (reply.header(b"content-type") or b"").split(b";")[0].strip().lower().decode("latin-1")
        csv = partial(self._csv, declared="csv" in declared)
        first = csv if "csv" in declared else self._json_lines if declared in _JSON_LINES else self._json
        error: UpstreamError | None = None
        for read in dict.fromkeys((first, self._json, self._json_lines, csv)):
            answer = Answer(0, None)
            try:
                read(reply.body, reading.queries.rows, answer)
            except UpstreamError as failed:
                error = error or failed
            else:
                return answer
        raise error or unreadable("it cannot be read")

    def _json(self, body: bytes, asked: int, answer: Answer) -> None:
        value, bare_nan = decode_reply(body)
        read_json(value, self.reader, answer, asked, bare_nan=bare_nan)

    def _json_lines(self, body: bytes, asked: int, answer: Answer) -> None:
        del asked
        decoded = [decode_reply(line) for line in body.split(b"\n") if line.strip()]
        self._read_lines(_Lines([value for value, _ in decoded], bare_nan=any(bare for _, bare in decoded)), answer)

    def _csv(self, body: bytes, asked: int, answer: Answer, *, declared: bool) -> None:
        try:
            cells = parse_csv(body)
        except ValueError:
            raise unreadable("it is not valid CSV") from None
        values = [[value_of(cell) for cell in row] for row in cells]
        texts = [value for row in values for value in row if type(value) is not float]
        if texts and (not declared or any(str(text).startswith(("{", "[", "<")) for text in texts)):
            # Any text reads as CSV, and an error page must not pass for labels.
            raise unreadable("it is neither JSON nor a table")
        if len(values) == 1 and len(values[0]) == asked > 1:
            # Some containers answer a batch with one line.
            self._read_lines(_Lines([*values[0]], csv=True, one_line=True), answer)
            return
        self._read_lines(_Lines([row[0] if len(row) == 1 else row for row in values], csv=True), answer)

    def _read_lines(self, lines: _Lines, answer: Answer) -> None:
        if not lines.rows:
            raise unreadable("it has no rows")
        answer.document, answer.rows = lines, len(lines.rows)
        read_rows(lines.rows, self.reader, answer)

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer in the form that it came in."""
        document = answer.document
        if not isinstance(document, _Lines):
            return b"application/json", cast("JsonAnswer", document).encode()
        if not document.csv:
            return b"application/jsonlines", _encode_lines(document.rows, bare_nan=document.bare_nan)
        rows = [document.rows] if document.one_line else document.rows
        return b"text/csv", write_csv([cast("list[object]", row) if isinstance(row, list) else [row] for row in rows])

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return problem+json: containers have no error envelope in common."""
        return problem_json(error)


def _encode_lines(rows: list[object], *, bare_nan: bool = False) -> bytes:
    return b"".join(encode(row, bare_nan=bare_nan) + b"\n" for row in rows)
