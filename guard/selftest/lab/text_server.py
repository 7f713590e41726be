"""OpenAI's API in front of a lab model: completions and chat, whole and streamed, embeddings. Nothing is held back.

`logit_bias`, log-probabilities of 20 candidates, `echo`, `n`, `seed` and a constrained answer (`response_format` with a
schema's `enum`) do what they do on servers that allow them together, which is what Guard is there for.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from guard.selftest.lab.language import Ask, Language, Said, choices_of, generate, scored
from guard.selftest.lab.registry import victim

MOST_LOGPROBS, MOST_CHOICES, MOST_TOKENS, WIDTH = 20, 128, 4096, 256
Json = dict[str, Any]  # Any: JSON of a client


@dataclass(frozen=True)
class Asked:
    """A request, understood.

    Args:
        prompts: texts that are gone on from.
        ask: the rest.
        chat: in the shape of chat completions.
        logprobs: they are answered.
        echo: the prompt is answered too.
        name: the model's, as it was asked for.
    """

    prompts: list[str]
    ask: Ask
    chat: bool
    logprobs: bool
    echo: bool
    name: str


def understood(body: Json, *, chat: bool) -> Asked:
    """Read a request.

    Raises:
        ValueError: it cannot be read, or asks for too much.
    """
    if chat:
        prompts = ["".join(_content(message["content"]) for message in body["messages"])]
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 64
        logprobs, top = bool(body.get("logprobs")), int(body.get("top_logprobs") or 0)
    else:
        prompt = body["prompt"]
        prompts = [str(one) for one in cast("list[object]", prompt if isinstance(prompt, list) else [prompt])]
        most = 16 if body.get("max_tokens") is None else body["max_tokens"]
        logprobs, top = body.get("logprobs") is not None, int(body.get("logprobs") or 0)
    n = int(body.get("n") or 1)
    schema = cast("Json", body.get("response_format") or {}).get("json_schema", {}).get("schema")
    temperature = body.get("temperature")
    bias: dict[str, float] = body.get("logit_bias") or {}
    stop: str | list[str] = body.get("stop") or []
    ask = Ask(
        most=int(most),
        temperature=1.0 if temperature is None else float(temperature),
        n=n,
        top=top,
        bias={int(token): float(change) for token, change in bias.items()},
        seed=body.get("seed"),
        allowed=choices_of(schema),
        stop=tuple([stop] if isinstance(stop, str) else stop),
    )
    if not 0 <= top <= MOST_LOGPROBS:
        raise ValueError(f"logprobs must be between 0 and {MOST_LOGPROBS}")
    if not 0 <= ask.most <= MOST_TOKENS or not 1 <= len(prompts) * n <= MOST_CHOICES * MOST_CHOICES or n > MOST_CHOICES:
        raise ValueError("too many tokens or choices")
    return Asked(prompts, ask, chat, logprobs, bool(body.get("echo")), str(body["model"]))


def _content(content: object) -> str:
    """Return a message's content as text: plain, or parts."""
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in cast("list[Json]", content))
    return str(content)


def whole(model: Language, asked: Asked) -> Json:
    """Return the whole answer."""
    said: dict[int, list[Said]] = {i: [] for i in range(len(asked.prompts) * asked.ask.n)}
    for token in generate(model, asked.prompts, asked.ask):
        said[token.choice].append(token)
    choices: list[Json] = []
    for i, tokens in said.items():
        prompt = asked.prompts[i // asked.ask.n]
        before = scored(model, prompt, asked.ask.top) if asked.echo and asked.logprobs else []
        text = (prompt if asked.echo else "") + "".join(token.text for token in tokens)
        choice: Json = {"index": i, "logprobs": _logprobs(asked, [*before, *tokens])}
        choice |= {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
        choices.append(choice | {"finish_reason": (tokens[-1].ends if tokens else "") or "length"})
    usage = _usage(model, asked, sum(map(len, said.values())))
    return _head(asked, stream=False) | {"choices": choices, "usage": usage}


def events(model: Language, asked: Asked, *, usage: bool) -> Iterator[bytes]:
    """Yield the answer in server-sent events, one a token."""
    count, head = 0, _head(asked, stream=True)
    for said in generate(model, asked.prompts, asked.ask):
        count += 1
        choice: Json = {"index": said.choice, "logprobs": _logprobs(asked, [said])}
        choice |= {"delta": {"role": "assistant", "content": said.text}} if asked.chat else {"text": said.text}
        yield _event(head | {"choices": [choice | {"finish_reason": said.ends or None}]})
    if usage:
        yield _event(head | {"choices": [], "usage": _usage(model, asked, count)})
    yield b"data: [DONE]\n\n"


def _event(document: Json) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def _head(asked: Asked, *, stream: bool) -> Json:
    kind = ("chat.completion.chunk" if stream else "chat.completion") if asked.chat else "text_completion"
    name = "chatcmpl" if asked.chat else "cmpl"
    return {"id": f"{name}-{_digest(asked.prompts[0])}", "object": kind, "created": 0, "model": asked.name}


def _usage(model: Language, asked: Asked, count: int) -> Json:
    prompts = sum(len(model.encode(prompt)) for prompt in asked.prompts)
    return {"prompt_tokens": prompts, "completion_tokens": count, "total_tokens": prompts + count}


def _logprobs(asked: Asked, tokens: Sequence[Said]) -> Json | None:
    if not asked.logprobs:
        return None
    if asked.chat:
        return {
            "content": [_entry(t.text, t.logprob) | {"top_logprobs": [_entry(*one) for one in t.top]} for t in tokens]
        }
    numbers = [None if math.isnan(t.logprob) else t.logprob for t in tokens]
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": numbers,
        "top_logprobs": [dict(t.top) if t.top else None for t in tokens] if asked.ask.top else None,
        "text_offset": np.cumsum([0, *(len(t.text) for t in tokens)])[: len(tokens)].tolist(),
    }


def _entry(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def embedded(texts: Sequence[str]) -> Any:
    """Return one vector a text, of length 1, shape (n, 256): the directions of its words, added up."""
    rows = np.zeros((len(texts), WIDTH))
    for row, text in enumerate(texts):
        for word in text.lower().split() or [text]:
            rows[row] += np.random.default_rng(int(_digest(word), 16)).normal(size=WIDTH)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Draws:
    """Seeds of sampling: the same questions in the same order are answered the same, whoever else asks meanwhile."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: Counter[tuple[object, int]] = Counter()

    def seeded(self, asked: Asked, line: object) -> Asked:
        """Return a request with a seed, if it has none: it depends on how often it came over this connection."""
        if asked.ask.seed is not None:
            return asked
        digest = int(_digest(repr(asked)), 16)
        self._asked[line, digest] += 1
        seed = int(_digest(f"{self._seed} {digest} {self._asked[line, digest]}"), 16)
        return replace(asked, ask=replace(asked.ask, seed=seed))


def routes(seed: int) -> list[Route]:
    """Return the API's routes for the models of one seed."""
    draws = _Draws(seed)

    async def answered(request: Request, *, chat: bool) -> Response:
        try:
            body: Json = orjson.loads(await request.body())
            asked = draws.seeded(understood(body, chat=chat), request.client)
            model = victim(asked.name, seed).language
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return _error(f"this cannot be answered: {error}", 400)
        if model is None:
            return _error("this model generates no text", 404)
        if body.get("stream"):
            options: Json = body.get("stream_options") or {}
            usage = bool(options.get("include_usage"))
            return StreamingResponse(events(model, asked, usage=usage), media_type="text/event-stream")
        return _json(whole(model, asked))

    async def completions(request: Request) -> Response:
        return await answered(request, chat=False)

    async def chat(request: Request) -> Response:
        return await answered(request, chat=True)

    async def embeddings(request: Request) -> Response:
        try:
            body: Json = orjson.loads(await request.body())
            texts = [body["input"]] if isinstance(body["input"], str) else [str(text) for text in body["input"]]
        except (KeyError, TypeError, ValueError) as error:
            return _error(f"this cannot be answered: {error}", 400)
        rows = [_vector(row, plain=body.get("encoding_format") != "base64") for row in embedded(texts)]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return _json({"object": "list", "data": data, "model": body.get("model", ""), "usage": usage})

    async def models(request: Request) -> Response:
        del request
        known: Mapping[str, str] = {"softmax_head": "lab", "memorising": "lab"}
        data = [{"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in known.items()]
        return _json({"object": "list", "data": data})

    return [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/models", models),
    ]


def _vector(row: Any, *, plain: bool) -> list[float] | str:
    return row.tolist() if plain else base64.b64encode(row.astype("<f4").tobytes()).decode()


def _error(message: str, status: int) -> Response:
    return _json({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}, status)


def _json(body: Json, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
