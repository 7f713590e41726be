"""A language model's API as an attacker's client speaks it: OpenAI's, over plain HTTP, no code of Guard's."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import orjson

from guard.selftest.api import TIMEOUT_S, Unreachable
from guard.selftest.base import Refused, Tally

Json = dict[str, Any]  # Any: JSON of a foreign API


@dataclass(frozen=True)
class Written:
    """One choice of an answer, or what one event adds to it.

    Args:
        index: which choice.
        text: what is written.
        ends: why it ends, as the API says; empty while it does not.
        numbers: log-probabilities of its tokens, NaN for one that has none; empty where none are answered.
        tops: each token's candidates with their log-probabilities; likewise.
    """

    index: int
    text: str
    ends: str = ""
    numbers: Sequence[float] = ()
    tops: Sequence[Mapping[str, float]] = ()


class Texts(Protocol):
    """A language model as an outsider sees it."""

    def complete(self, **asked: object) -> list[Written]:
        """Return the choices of `/v1/completions`.

        Raises:
            Refused: it was refused.
        """
        ...

    def chat(self, **asked: object) -> list[Written]:
        """Return the choices of `/v1/chat/completions`.

        Raises:
            Refused: it was refused.
        """
        ...

    def stream(self, **asked: object) -> list[Written]:
        """Return what each event of a streamed answer of `/v1/completions` adds, until it ends or breaks off.

        Raises:
            Refused: it was refused.
        """
        ...

    @property
    def asked(self) -> int:
        """Answers asked for so far: every choice of every prompt is one."""
        ...


def written(answer: Json) -> list[Written]:
    """Read the choices of an answer, or of an event of a stream, in completions' shape or in chat's."""
    return [_choice(choice) for choice in cast("list[Json]", answer.get("choices") or [])]


def _choice(choice: Json) -> Written:
    message: Json = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    told: Json = choice.get("logprobs") or {}
    entries: list[Json] = told.get("content") or []
    if entries:  # chat's shape, which some servers answer to completions as well
        numbers = [float(entry["logprob"]) for entry in entries]
        named: list[list[Json]] = [entry.get("top_logprobs") or [] for entry in entries]
        tops: list[dict[str, float]] = [{str(c["token"]): float(c["logprob"]) for c in top} for top in named]
    else:
        own: list[float | None] = told.get("token_logprobs") or []
        numbers = [float("nan") if number is None else float(number) for number in own]
        listed: list[dict[str, float] | None] = told.get("top_logprobs") or []
        tops = [{str(token): float(number) for token, number in (top or {}).items()} for top in listed]
    text, ends = str(message.get("content") or ""), str(choice.get("finish_reason") or "")
    return Written(int(choice.get("index") or 0), text, ends, numbers, tops)


class HttpTexts:
    """One account's connection to an API of OpenAI's kind.

    Args:
        url: scheme, host and port.
        model: the model's name.
        headers: added to every request.
        account: the account's name, for the tally.
        tally: shared between an attacker's accounts.
    """

    def __init__(
        self, url: str, model: str, *, headers: Mapping[str, str] | None = None, account: str = "", tally: Tally
    ) -> None:
        parts = urlsplit(url)
        self._line = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
        self._model, self._account, self._tally = model, account, tally
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._asked = 0

    @property
    def asked(self) -> int:
        """Answers asked for so far."""
        return self._asked

    def complete(self, **asked: object) -> list[Written]:
        """Return the choices of `/v1/completions`; see `Texts.complete`."""
        return written(_document(self._send("/v1/completions", asked)))

    def chat(self, **asked: object) -> list[Written]:
        """Return the choices of `/v1/chat/completions`; see `Texts.chat`."""
        return written(_document(self._send("/v1/chat/completions", asked)))

    def stream(self, **asked: object) -> list[Written]:
        """Return what the events of a streamed answer add; see `Texts.stream`."""
        body = self._send("/v1/completions", {**asked, "stream": True})
        lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        return [one for line in lines if line != b"[DONE]" for one in written(_document(line))]

    def __del__(self) -> None:
        """Close the connection: nobody keeps a list of an attacker's accounts."""
        self._line.close()

    def _send(self, path: str, asked: Mapping[str, object]) -> bytes:
        prompt, n = asked.get("prompt"), asked.get("n")
        rows = len(cast("list[object]", prompt)) if isinstance(prompt, list) else 1
        rows *= n if isinstance(n, int) else 1
        self._asked += rows
        try:
            self._line.request("POST", path, orjson.dumps({"model": self._model, **asked}), self._headers)
            response = self._line.getresponse()
            status, body = response.status, response.read()
        except (http.client.HTTPException, OSError) as error:
            self._line.close()  # a new one is made for the next request
            raise Unreachable(f"the API does not answer: {error}") from error
        if status != 200:
            self._refused(status)
            raise Refused(status, body[:200].decode(errors="replace"))
        for _ in range(rows):
            self._tally.answered(self._account, label=False, seen=False)
        return body

    def _refused(self, status: int) -> None:
        self._tally.refusals[status] = self._tally.refusals.get(status, 0) + 1
        if status in (403, 429) and self._tally.first_refusal_at is None:
            self._tally.first_refusal_at = self._asked
        if status == 403 and self._tally.first_denial_at is None:
            self._tally.first_denial_at = self._asked


def _document(body: bytes) -> Json:
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise Unreachable("an answer that is not JSON") from error
