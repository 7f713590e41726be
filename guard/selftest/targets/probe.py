"""The first look at a model: can it be asked, how many rows does a request bear, what do its answers mean."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import orjson

from guard.selftest.api import HttpApi, Unreachable
from guard.selftest.base import Refused, Rows
from guard.selftest.measures import Floats
from guard.selftest.targets.answers import Raw
from guard.selftest.targets.knowledge import taken
from guard.selftest.targets.layout import Declared, look
from guard.selftest.targets.queries import Sample
from guard.selftest.targets.spec import Layout, TargetError
from guard.selftest.targets.wires import TensorWire, Wire

LOOKED = 64
"""Rows of the sample that are asked to see what answers look like."""
BATCH = 32
TIMEOUT_S = 10.0
_NUMBERS = frozenset(("FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT8"))


@dataclass(frozen=True)
class Seen:
    """What a first look showed.

    Args:
        layout: how answers are read.
        batch: most rows a request.
        rows: how many were asked.
        notes: sentences for the report.
    """

    layout: Layout
    batch: int
    rows: int
    notes: tuple[str, ...] = ()


class _Looking:
    """A dialect that keeps answers as they come."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.path = wire, wire.path
        self.headers: Mapping[str, str] = {"content-type": wire.content_type}
        self.kept: list[Raw] = []
        self.sent = 0

    def ask(self, url: str, x: Rows, headers: Mapping[str, str], batch: int) -> Exception | None:
        """Ask rows; returns what went wrong."""
        api = HttpApi(url, self, 0, headers=headers, batch=batch)
        try:
            api.ask_all(x)
        except (Refused, Unreachable) as error:
            return error
        finally:
            self.sent += api.sent
            api.close()
        return None

    def encode(self, x: Rows) -> bytes:
        """Return the request's body."""
        return self.wire.encode(x)

    def decode(self, body: bytes, rows: int) -> dict[str, Floats]:
        """Keep an answer's members and return nothing."""
        self.kept.append(self.wire.raw(body, rows))
        return {}


def probe(
    url: str,
    wire: Wire,
    sample: Sample,
    declared: Declared,
    headers: Mapping[str, str],
    whom: str,
    rows: int = LOOKED,
) -> Seen:
    """Ask some rows of the sample.

    Args:
        url: whom to ask.
        wire: how.
        sample: the operator's rows.
        declared: what the policy says of answers.
        headers: of every request.
        whom: in messages, such as `the model`.
        rows: how many to ask at most.

    Raises:
        Unreachable: nobody answers, the server fails, or it refuses for now.
        TargetError: it refuses these requests, or its answers cannot be read.
    """
    count = min(rows, len(sample))
    x = taken(sample.x, np.random.default_rng(0).permutation(len(sample))[:count])
    looking, batch, notes = _Looking(wire), 1 if wire.one_row else BATCH, ()
    if batch > 1:
        # Two rows in one request first: a server that takes one at a time shows it here.
        wrong = looking.ask(url, x[:2], headers, 2)
        if wrong is None:
            x = x[2:]
        elif _final(wrong):
            raise _said(wrong, url, wire, whom)
        else:
            batch, notes = 1, ("the model takes one row a request, so that asking takes longer",)
    wrong = looking.ask(url, x, headers, batch)
    if wrong is not None and (not looking.kept or _final(wrong)):
        raise _said(wrong, url, wire, whom)
    return Seen(look(looking.kept, declared, sample.y or ()), batch, looking.sent, notes)


def tensor_of(url: str, wire: TensorWire, sample: Sample, headers: Mapping[str, str]) -> TensorWire:
    """Return the wire with the input's name, datatype and shape as the server's metadata say; as it was without any."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + wire.path.removesuffix("/infer"), headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
        inputs: object = orjson.loads(body)["inputs"] if answer.status == 200 else None
    except (http.client.HTTPException, OSError, ValueError, KeyError, TypeError):
        return wire
    finally:
        connection.close()
    if not isinstance(inputs, list) or len(cast("list[object]", inputs)) != 1:
        return wire
    tensor = cast("dict[str, Any]", inputs[0])  # Any: foreign JSON
    try:
        name, datatype = str(tensor["name"]), str(tensor["datatype"])
        shape = tuple(int(side) for side in cast("Sequence[int]", tensor["shape"]))[1:]
    except (KeyError, TypeError, ValueError):
        return wire
    fits = sample.size == int(np.prod(shape)) and min(shape, default=0) > 0 if sample.size else set(shape) <= {1}
    made = replace(wire, tensor=name, shape=shape if fits else ())
    return replace(made, datatype=datatype) if datatype in _NUMBERS else made


def _final(wrong: Exception) -> bool:
    """Say whether one row a request would fare no better."""
    if isinstance(wrong, Refused):
        return wrong.status in (401, 403, 404, 405, 415, 429)
    return not isinstance(wrong.__cause__, ValueError)


def _said(wrong: Exception, url: str, wire: Wire, whom: str) -> Exception:
    """Return the error that says what to do."""
    parts = urlsplit(url)
    where = f"{whom} at {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{wire.path}"
    if isinstance(wrong, Unreachable):
        if isinstance(wrong.__cause__, ValueError):
            return TargetError(f"the answers of {where} cannot be read: {wrong}. Say --api, --path or --template")
        return Unreachable(f"{whom} cannot be reached: {wrong}")
    status = wrong.status if isinstance(wrong, Refused) else 0
    advice = {
        401: "it does not know the credential (401): for a live target say --key and --key-header",
        403: "it denies these requests (403)",
        404: "it has no such endpoint or model (404): say --api, --model or --path",
        405: "the endpoint takes no POST (405): say --path",
        415: "it takes another form of request (415): say --api or --template",
        422: "it refuses these rows (422): they are outside the inputs that the policy declares, or of another shape",
        429: "it refuses to answer more for now (429): a budget or a rate limit is spent; wait, or use another key",
    }
    if status == 429:
        return Unreachable(f"{where}: {advice[429]}")
    if status in advice:
        return TargetError(f"{where}: {advice[status]}")
    message = f"{where} answers {wrong}"
    return Unreachable(message) if status >= 500 else TargetError(f"{message}. Say --api, --path or --template")
