"""Small requests and answers of language models' APIs, for the first endpoint that a route's kind opens."""

from __future__ import annotations

Bodies = tuple[object, object]

_SAID = "Write to ops@example.org."
_LOGPROBS = (-0.1284, -2.7361)


def bodies(api: str, kind: str) -> tuple[object, object]:
    """Return (request, answer), each None when the API answers nothing of the kind.

    Args:
        api: the route's.
        kind: of its outputs.
    """
    made: dict[tuple[str, str], Bodies] = {
        ("openai", "logprobs"): _chat(),
        ("openai", "embedding"): ({"model": "model", "input": ["a small sample"]}, _vectors()),
        ("openai", "probabilities"): ({"input": "a small sample"}, _moderation()),
        ("ollama", "logprobs"): _generate(),
        ("ollama", "embedding"): ({"model": "model", "input": ["a small sample"]}, {"embeddings": [_vector()]}),
        ("tgi", "logprobs"): _tgi(),
        ("tei", "embedding"): ({"inputs": ["a small sample"]}, [_vector()]),
        ("tei", "probabilities"): ({"inputs": "a small sample"}, [{"label": "spam", "score": 0.9187}]),
    }
    # Of what vLLM opens, OpenAI's own endpoints come first.
    return made.get(("openai" if api == "vllm" else api, kind), (None, None))


def _vector() -> list[float]:
    return [0.4127, -0.3091, 0.8012, 0.2985]


def _vectors() -> object:
    data = [{"object": "embedding", "index": 0, "embedding": _vector()}]
    return {"object": "list", "data": data, "model": "model", "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def _moderation() -> object:
    scores = {"hate": 0.0214, "violence": 0.7832}
    result = {"flagged": True, "categories": {"hate": False, "violence": True}, "category_scores": scores}
    return {"id": "modr-1", "model": "model", "results": [result]}


def _chat() -> Bodies:
    asked = {
        "model": "model",
        "messages": [{"role": "user", "content": "whom do I write to?"}],
        "logprobs": True,
        "top_logprobs": 2,
        "max_tokens": 64,
    }
    candidates = [
        {"token": word, "logprob": p, "bytes": None} for word, p in zip((_SAID, "Call"), _LOGPROBS, strict=True)
    ]
    said = [{"token": _SAID, "logprob": _LOGPROBS[0], "bytes": None, "top_logprobs": candidates}]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": _SAID},
        "logprobs": {"content": said},
        "finish_reason": "stop",
    }
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model", "choices": [choice]}
    return asked, {**answer, "usage": usage, "system_fingerprint": "fp_1"}


def _generate() -> Bodies:
    asked = {"model": "model", "prompt": "whom do I write to?", "stream": False, "options": {"num_predict": 64}}
    answer = {"model": "model", "created_at": "2026-01-01T00:00:00Z", "response": _SAID, "done": True}
    return asked, {**answer, "done_reason": "stop", "context": [1, 2, 3], "eval_count": 1, "eval_duration": 71000}


def _tgi() -> Bodies:
    asked = {"inputs": "whom do I write to?", "parameters": {"max_new_tokens": 64, "details": True}}
    token = {"id": 7, "text": _SAID, "logprob": _LOGPROBS[0], "special": False}
    details = {"finish_reason": "eos_token", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": [token]}
    return asked, {"generated_text": _SAID, "details": details}
