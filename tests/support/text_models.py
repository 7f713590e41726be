"""Small servers that answer as Ollama, text-generation-inference and text-embeddings-inference do.

The shapes are those of the servers' own sources, which the codecs' docstrings name. What they say is always the same:
`TOKENS`, or as many of them as are asked for; a prompt that begins with `fail` breaks off after two tokens, one that
begins with `think` is thought about first, and one that begins with `call` calls a tool. Every number that must not
leave is one of its own, so that a test may look for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Json = Any  # Any: JSON
TOKENS = ("The", " code", " is", " 41", "72", ", dear", ".")
THOUGHT = ("Let", " me", " see")
LOGPROBS = (-0.1234, -0.2345, -0.3456, -0.4567, -0.5678, -0.6789, -0.7891)
OTHER = -3.2109
DURATION = 987654321
VECTOR_SIZE = 8


def vector(text: str) -> list[float]:
    """Return a text's vector: the same one every time, of norm 1 to four decimals."""
    digest = hashlib.sha256(text.encode()).digest()
    numbers = [byte - 127.5 for byte in digest[:VECTOR_SIZE]]
    norm = sum(number * number for number in numbers) ** 0.5
    return [round(number / norm, 6) for number in numbers]


def _entry(token: str, logprob: float, top: int) -> Json:
    entry: Json = {"token": token, "logprob": logprob, "bytes": [*token.encode()]}
    others = [{**entry}, {"token": "~", "logprob": OTHER, "bytes": [126]}]
    return {**entry, "top_logprobs": others[:top]} if top else entry


def ollama(path: str, body: Json) -> Json:
    """Answer as Ollama."""
    timed: Json = {"total_duration": DURATION, "load_duration": DURATION + 1}
    if path == "/api/embed":
        rows = [body["input"]] if isinstance(body["input"], str) else body["input"]
        return {"model": body["model"], "embeddings": [vector(row) for row in rows], **timed, "prompt_eval_count": 4}
    if path == "/api/embeddings":
        return {"embedding": vector(body["prompt"])}
    chat = path == "/api/chat"
    prompt = body["messages"][-1]["content"] if chat else body["prompt"]
    lines = _ollama_lines(body, prompt, chat=chat)
    if body.get("stream", True):
        return (json.dumps(line).encode() + b"\n" for line in lines)
    return _ollama_whole([*lines], chat=chat)


def _ollama_lines(body: Json, prompt: str, *, chat: bool) -> Iterator[Json]:
    most = body.get("options", {}).get("num_predict", -1)
    tokens = TOKENS if most < 1 else TOKENS[:most]
    head = {"model": body["model"], "created_at": "2026-11-26T18:52:00.123456789Z"}

    def line(text: str, thinking: str, index: int) -> Json:
        said: Json = {"role": "assistant", "content": text} if chat else {"response": text}
        if thinking:
            said["thinking"] = thinking
        asked: Json = {}
        if body.get("logprobs"):
            asked["logprobs"] = [_entry(text or thinking, LOGPROBS[index], body.get("top_logprobs", 0))]
        return {**head, **({"message": said} if chat else said), "done": False, **asked}

    thoughts = THOUGHT if prompt.startswith("think") else ()
    yield from (line("", text, i) for i, text in enumerate(thoughts))
    for i, text in enumerate(tokens):
        if prompt.startswith("fail") and i == 2:
            yield {"error": "llama runner process has terminated at /usr/lib/runner.go:77"}
            return
        yield line(text, "", i)
    last: Json = {"role": "assistant", "content": ""}
    if prompt.startswith("call"):
        function = {"index": 0, "name": "pay", "arguments": {"card": "4111", "sum": 3}}
        last["tool_calls"] = [{"id": "call_1", "function": function}]
    counts = {"prompt_eval_count": 9, "prompt_eval_duration": DURATION + 2, "eval_count": len(thoughts + tokens)}
    context: Json = {} if chat else {"context": [1, 2, 3]}
    yield {
        **head,
        **({"message": last} if chat else {"response": ""}),
        **{"done": True, "done_reason": "stop", "total_duration": DURATION, "load_duration": DURATION + 1},
        **counts,
        **{"eval_duration": DURATION + 3, **context},
    }


def _ollama_whole(lines: list[Json], *, chat: bool) -> Json:
    """Put lines together as the server does without a stream."""
    failed = [line for line in lines if "error" in line]
    if failed:
        return failed[0]
    places = [line["message"] if chat else line for line in lines]
    text = "".join(place["content" if chat else "response"] for place in places)
    thinking = "".join(place.get("thinking", "") for place in places)
    logprobs = [entry for line in lines for entry in line.get("logprobs", [])]
    place = {**places[-1], ("content" if chat else "response"): text, **({"thinking": thinking} if thinking else {})}
    whole = {**lines[-1], **({"message": place} if chat else place)}
    return {**whole, **({"logprobs": logprobs} if logprobs else {})}


def tgi(path: str, body: Json) -> Json:
    """Answer as text-generation-inference."""
    if "inputs" not in body:
        return {"error": "not found"}
    parameters: Json = body.get("parameters") or {}
    tokens = TOKENS[: (parameters.get("max_new_tokens") or 100) - 1]  # the end of the text is a token too
    if body["inputs"].startswith("fail"):
        tokens = tokens[:2]
    whole = "".join(tokens)
    if parameters.get("return_full_text", path == "/"):
        whole = body["inputs"] + whole
    rows = [_token(100 + i, token, LOGPROBS[i]) for i, token in enumerate(tokens)] + [_token(2, "</s>", -0.0321)]
    rows[-1]["special"] = True
    top = parameters.get("top_n_tokens") or 0
    tops = [[row, _token(7, "~", OTHER)][:top] for row in rows]
    details = {"finish_reason": "eos_token", "generated_tokens": len(rows), "seed": 4242}
    if path == "/generate_stream" or (path == "/" and body.get("stream")):
        counted = {**details, "input_length": 5} if parameters.get("details") else None
        return _tgi_events(rows, tops if top else None, whole, counted, fails=body["inputs"].startswith("fail"))
    if parameters.get("details") or parameters.get("decoder_input_details"):
        prefill = [{"id": 1, "text": body["inputs"], "logprob": -8.7654}]
        beside = {"prefill": prefill if parameters.get("decoder_input_details") else [], "tokens": rows}
        answer: Json = {
            "generated_text": whole,
            "details": {**details, **beside, **({"top_tokens": tops} if top else {})},
        }
    else:
        answer = {"generated_text": whole}
    return [answer] if path == "/" else answer


def _token(number: int, text: str, logprob: float) -> Json:
    return {"id": number, "text": text, "logprob": logprob, "special": False}


def _tgi_events(rows: Json, tops: Json, whole: str, details: Json, *, fails: bool) -> Iterator[bytes]:
    for i, row in enumerate(rows):
        last = i == len(rows) - 1
        if last and fails:
            error = {"error": "CUDA out of memory at /opt/tgi/server.py", "error_type": "generation"}
            yield b"data:" + json.dumps(error).encode() + b"\n\n"
            return
        event = {"index": i + 1, "token": row, **({"top_tokens": tops[i]} if tops else {})}
        event |= {"generated_text": whole if last else None, "details": details if last else None}
        yield b"data:" + json.dumps(event).encode() + b"\n\n"


def tei(path: str, body: Json) -> Json:
    """Answer as text-embeddings-inference."""
    if path == "/rerank":
        scores = [0.6231, 0.1075, 0.8722, 0.6198][: len(body["texts"])]
        ranks = [{"index": i, "score": score} for i, score in enumerate(scores)]
        if body.get("return_text"):
            ranks = [{**rank, "text": body["texts"][rank["index"]]} for rank in ranks]
        return sorted(ranks, key=lambda rank: -rank["score"])
    inputs = body["inputs"]
    if path == "/similarity":
        return [0.7654, -0.1234, 0.4321][: len(inputs["sentences"])]
    if path == "/predict":
        row = [{"score": 0.6231, "label": "joy"}, {"score": 0.2694, "label": "fear"}, {"score": 0.1075, "label": "awe"}]
        return [row] * len(inputs) if inputs and isinstance(inputs[0], list) else row
    rows = [inputs] if isinstance(inputs, str) else inputs
    if path == "/embed_sparse":
        return [[{"index": 17, "value": 1.2345}, {"index": 4, "value": 0.4321}] for _ in rows]
    return [vector(row) for row in rows]


def _handler(answer: Callable[[str, Json], Json], framing: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(b"Ollama is running", "text/plain; charset=utf-8")

        do_HEAD = do_GET  # noqa: N815  # the base class names it so

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            said = answer(self.path, body)
            if isinstance(said, dict | list):
                status = 500 if "error" in said else 200
                self._send(json.dumps(said).encode(), "application/json; charset=utf-8", status)
                return
            self.send_response(200)
            self.send_header("content-type", framing)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in cast("Iterator[bytes]", said):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def _send(self, body: bytes, content_type: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    return Handler


@contextlib.contextmanager
def serving(answer: Callable[[str, Json], Json]) -> Generator[str]:
    """Serve one of the above on a free port, and return its URL."""
    framing = "application/x-ndjson" if answer is ollama else "text/event-stream"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer, framing))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
