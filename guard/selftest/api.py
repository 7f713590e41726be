"""The model's API as an attacker's client speaks it: plain HTTP, no code of Guard's.

A dialect turns rows into a request and an answer into arrays; `HttpApi` sends rows in batches over one connection,
splits a batch that is refused for its size, and counts what came back.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from typing import Protocol, cast
from urllib.parse import urlsplit

import numpy as np
import orjson

from guard.selftest.base import Refused, Rows, Tally
from guard.selftest.measures import Floats

TIMEOUT_S = 60.0
GENTLE, GENTLE_ROWS = 8, 512
"""The first rows go out in batches of this many, so that hardly any graded answer of a budget is left unused."""
_RETRIES = 2


class Unreachable(ConnectionError):
    """The API cannot be reached, or what it answers cannot be read."""


class LimitReached(Refused):
    """The self-test's own limit of queries is reached: no refusal of the API's, and not counted as one."""


class Dialect(Protocol):
    """How an API is asked: a path, headers, an encoder and a decoder."""

    @property
    def path(self) -> str:
        """Where requests go."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every request."""
        ...

    def encode(self, x: Rows) -> bytes:
        """Return the request's body for some rows."""
        ...

    def decode(self, body: bytes, rows: int) -> dict[str, Floats]:
        """Return every numeric member of an answer, shape (rows, k) each, scores and labels alike.

        Raises:
            ValueError: the answer cannot be read.
        """
        ...


class OpenInference:
    """The Open Inference protocol (V2), as the lab's server and Triton, MLServer and KServe speak it.

    Args:
        model: the model's name.
        tensor: the input tensor's name.
    """

    def __init__(self, model: str, tensor: str = "x") -> None:
        self.path = f"/v2/models/{model}/infer"
        self.headers: Mapping[str, str] = {"content-type": "application/json"}
        self.tensor = tensor

    def encode(self, x: Rows) -> bytes:
        """Return one tensor: FP64 with null for NaN, or BYTES."""
        if isinstance(x, np.ndarray):
            data: object = np.ascontiguousarray(x, dtype=np.float64).ravel()
            tensor = {"name": self.tensor, "datatype": "FP64", "shape": list(x.shape), "data": data}
        else:
            tensor = {"name": self.tensor, "datatype": "BYTES", "shape": [len(x)], "data": list(x)}
        return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)

    def decode(self, body: bytes, rows: int) -> dict[str, Floats]:
        """Return every tensor of numbers."""
        try:
            outputs = orjson.loads(body)["outputs"]
            return {
                output["name"]: np.asarray(output["data"], dtype=np.float64).reshape(rows, -1)
                for output in outputs
                if output["datatype"] != "BYTES"
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"an answer that is none of the protocol: {error}") from error


class HttpApi:
    """One account's connection to an API.

    Args:
        url: scheme, host and port, and a path that goes before the dialect's.
        dialect: how to ask.
        classes: number of classes; 1 for a value; 0 when unknown.
        headers: added to every request, such as `{"x-api-key": ...}`.
        account: the account's name, for the tally.
        batch: most rows a request.
        limit: most rows that are ever sent, those of refused batches too; refuses beyond. None for no limit.
        tally: shared between an attacker's accounts.
    """

    def __init__(
        self,
        url: str,
        dialect: Dialect,
        classes: int,
        *,
        headers: Mapping[str, str] | None = None,
        account: str = "",
        batch: int = 32,
        limit: int | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._connection: http.client.HTTPConnection | None = None
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._new = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self._path = parts.path.rstrip("/") + dialect.path
        self._dialect, self._classes = dialect, classes
        self._headers = {**dialect.headers, **(headers or {})}
        self._account, self._batch, self._limit = account, batch, limit
        self._seen: set[bytes] = set()
        self._asked = 0
        self._sent = 0
        self._tally = Tally() if tally is None else tally

    @property
    def asked(self) -> int:
        """Rows answered, and single rows refused."""
        return self._asked

    @property
    def sent(self) -> int:
        """Rows sent, those of refused batches too."""
        return self._sent

    @property
    def tally(self) -> Tally:
        """What the answers were so far."""
        return self._tally

    def ask(self, x: Rows) -> Floats:
        """Return the scores of all rows, shape (n, k); see `Api.ask`."""
        members, refused = self._ask(x)
        scores = self._scores(members)
        if refused is not None:
            raise type(refused)(refused.status, refused.message, scores)
        return scores

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers by name."""
        members, refused = self._ask(x)
        if refused is not None:
            raise type(refused)(refused.status, refused.message, self._scores(members))
        return members

    def __del__(self) -> None:
        """Close the connection: a world hands out as many accounts as an attacker wants, and nobody keeps a list."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, x: Rows) -> tuple[dict[str, Floats], Refused | None]:
        """Ask in batches; a batch that is refused is halved, so that every row that may be answered is."""
        waiting = list(self._batches(x))
        parts: list[dict[str, Floats]] = []
        while waiting:
            rows = waiting.pop(0)
            try:
                parts.append(self._send(rows))
            except Refused as error:
                if len(rows) > 1 and error.status in (413, 422, 429):
                    half = len(rows) // 2
                    waiting[:0] = [rows[:half], rows[half:]]
                    continue
                if not isinstance(error, LimitReached):
                    self._asked += 1
                    self._count_refusal(error.status)
                return self._join(parts), error
        return self._join(parts), None

    def _batches(self, x: Rows) -> Iterator[Rows]:
        """Yield the rows in batches, small ones first: what a budget of graded answers cannot pay whole is labels."""
        at = 0
        while at < len(x):
            size = min(self._batch, GENTLE) if self._asked + at < GENTLE_ROWS else self._batch
            yield x[at : at + size]
            at += size

    def _send(self, rows: Rows) -> dict[str, Floats]:
        if self._limit is not None and self._sent + len(rows) > self._limit:
            raise LimitReached(429, "the stated query limit is reached")
        self._sent += len(rows)
        status, body = self._exchange(self._dialect.encode(rows))
        if status != 200:
            raise Refused(status, body[:200].decode(errors="replace"))
        try:
            members = self._dialect.decode(body, len(rows))
        except ValueError as error:
            raise Unreachable(str(error)) from error
        self._count(rows, members)
        return members

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        for attempt in range(_RETRIES + 1):
            if self._connection is None:
                self._connection = self._new(self._host, self._port, timeout=TIMEOUT_S)
            try:
                self._connection.request("POST", self._path, body, self._headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if attempt == _RETRIES:
                    raise Unreachable(f"{self._host}:{self._port} does not answer: {error}") from error
        raise AssertionError

    def _join(self, parts: list[dict[str, Floats]]) -> dict[str, Floats]:
        names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _scores(self, members: dict[str, Floats]) -> Floats:
        """Return the most detailed copy of the scores; what is missing of them is read off the label."""
        if not members:
            return np.empty((0, max(1, self._classes)))
        width = self._classes or max(m.shape[1] for m in members.values())
        copies = [m for m in members.values() if m.shape[1] == width]
        # Counts and logits are as wide as probabilities, and may look more detailed.
        copies = [m for m in copies if m.size and m.min() >= 0 and m.max() <= 1] or copies
        if width > 1 and copies:
            return max(copies, key=lambda m: len(np.unique(m)))
        if width == 1:
            graded = [m for m in copies if not _whole(m)] or copies
            if graded:
                return max(graded, key=lambda m: len(np.unique(m)))
        single = next(iter(members.values()))[:, 0]
        return one_hot(single, width)

    def _count(self, rows: Rows, members: dict[str, Floats]) -> None:
        scores = self._scores(members)
        labels = np.ones(len(scores), dtype=bool) if scores.shape[1] > 1 else np.zeros(len(scores), dtype=bool)
        if scores.shape[1] > 1:
            labels = is_label(scores)
        for i, label in enumerate(labels.tolist()):
            self._asked += 1
            row = rows[i]
            key = row.encode() if isinstance(row, str) else cast("Floats", row).tobytes()
            self._tally.answered(self._account, label=label, seen=key in self._seen)
            if not label:
                self._seen.add(key)

    def _count_refusal(self, status: int) -> None:
        self._tally.refusals[status] = self._tally.refusals.get(status, 0) + 1
        if status in (403, 429) and self._tally.first_refusal_at is None:
            self._tally.first_refusal_at = self._asked
        if status == 403 and self._tally.first_denial_at is None:
            self._tally.first_denial_at = self._asked


def is_label(scores: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say which rows, of shape (n, k), carry no more than a label: one member is not 0, and it is 1.

    >>> is_label(np.array([[0.0, 1.0], [0.2, 0.8]]))
    array([ True, False])
    """
    return (scores != 0).sum(axis=1) + (scores.max(axis=1) != 1.0) == 1


def one_hot(labels: Floats, classes: int) -> Floats:
    """Return labels, shape (n,), as scores, shape (n, classes)."""
    return np.eye(classes)[np.clip(labels.astype(int), 0, classes - 1)]


def _whole(members: Floats) -> bool:
    return bool((members == np.rint(members)).all())
