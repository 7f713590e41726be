"""The clients of Ollama, text-generation-inference and text-embeddings-inference: client.py NAME URL."""

import json
import sys
from collections.abc import Callable

import ollama
import requests
from huggingface_hub import InferenceClient
from text_generation import Client

MESSAGES = [{"role": "user", "content": "think of my code"}]


def tried(work: Callable[[], object]) -> object:
    """Return what the work returns, or the name and text of what it raises."""
    try:
        return work()
    except Exception as error:
        return {"raised": type(error).__name__, "text": str(error)}


def of_ollama(url: str) -> dict[str, object]:
    client = ollama.Client(url)
    plain = {"model": "m", "prompt": "my code?"}
    asked = {**plain, "logprobs": True, "top_logprobs": 2, "options": {"num_predict": 5, "temperature": 0}}

    def failing() -> object:
        parts = []
        try:
            for part in client.generate(model="m", prompt="fail now", stream=True):
                parts.append(part.response)
        except ollama.ResponseError as error:
            return {"parts": parts, "error": error.error}
        return None

    tools = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}]
    return {
        "generate": client.generate(**plain).model_dump(),
        "generate_logprobs": client.generate(**asked).model_dump(),
        "generate_stream": [part.model_dump() for part in client.generate(**asked, stream=True)],
        "chat": client.chat(model="m", messages=MESSAGES, logprobs=True, think=True).model_dump(),
        "chat_stream": [p.model_dump() for p in client.chat(model="m", messages=MESSAGES, think=True, stream=True)],
        "call": client.chat(model="m", messages=[{"role": "user", "content": "call it"}], tools=tools).model_dump(),
        "embed": client.embed(model="m", input=["one", "two"]).model_dump(),
        "embeddings": client.embeddings(model="m", prompt="one").model_dump(),
        "failing": failing(),
        "refused": tried(lambda: client.generate(**plain, raw=True).model_dump()),
        "listed": tried(lambda: client.list().model_dump()),
        "alive": requests.get(url, timeout=10).status_code,
    }


def of_tgi(url: str) -> dict[str, object]:
    client, hub = Client(url, timeout=10), InferenceClient(url, timeout=10)
    asked = {"max_new_tokens": 6, "top_n_tokens": 2}
    return {
        "generate": client.generate("my code?", **asked).model_dump(mode="json"),
        "generate_stream": [p.model_dump(mode="json") for p in client.generate_stream("my code?", **asked)],
        "hub": hub.text_generation("my code?", max_new_tokens=6),
        "hub_full": tried(lambda: hub.text_generation("my code?", max_new_tokens=6, return_full_text=True)),
        "hub_details": hub.text_generation("my code?", details=True, **asked),
        "hub_stream": list(hub.text_generation("my code?", max_new_tokens=6, stream=True)),
        "hub_stream_details": list(hub.text_generation("my code?", details=True, stream=True, **asked)),
        "failing": tried(lambda: list(hub.text_generation("fail now", max_new_tokens=6, stream=True))),
        "prefill": tried(lambda: hub.text_generation("my code?", details=True, decoder_input_details=True)),
        "chat": tried(lambda: str(hub.chat_completion([{"role": "user", "content": "x"}]))),
    }


def of_tei(url: str) -> dict[str, object]:
    hub = InferenceClient(timeout=10, token="none")
    ranked = {"query": "q", "texts": ["a", "b", "c", "d"], "return_text": True}
    return {
        "embed": hub.feature_extraction("one", model=f"{url}/embed").tolist(),
        "root": hub.feature_extraction("one", model=url).tolist(),
        "similarity": hub.sentence_similarity("one", ["two", "three"], model=f"{url}/similarity"),
        "predict": tried(lambda: str(hub.text_classification("one", model=f"{url}/predict"))),
        "rerank": requests.post(f"{url}/rerank", json=ranked, timeout=10).json(),
        "sparse": requests.post(f"{url}/embed_sparse", json={"inputs": ["one", "two"]}, timeout=10).json(),
        "raw": requests.post(f"{url}/rerank", json={**ranked, "raw_scores": True}, timeout=10).json(),
        "all": requests.post(f"{url}/embed_all", json={"inputs": "one"}, timeout=10).status_code,
    }


if __name__ == "__main__":
    print(json.dumps({"ollama": of_ollama, "tgi": of_tgi, "tei": of_tei}[sys.argv[1]](sys.argv[2])))
