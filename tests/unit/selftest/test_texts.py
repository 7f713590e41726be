"""A language model's API over HTTP, as an attacker's client reads it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from guard.selftest.api import Unreachable
from guard.selftest.base import Refused, Tally
from guard.selftest.texts import HttpTexts, Written, written

REPLIES: dict[str, tuple[int, bytes]] = {
    "good": (200, b'{"choices":[{"index":0,"text":"hi","finish_reason":"length","logprobs":null}]}'),
    "spent": (429, b'{"error":{"message":"no more"}}'),
    "denied": (403, b"{}"),
    "garbled": (200, b"<html>"),
    "stream": (200, b'data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[{"text":"b"}]}\n\ndata: [DONE]\n\n'),
}


class Scripted(BaseHTTPRequestHandler):
    """Answers as the prompt says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = asked.get("prompt") or asked["messages"][0]["content"]
        status, body = REPLIES[prompt if isinstance(prompt, str) else prompt[0]]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_it_counts_every_choice_of_every_prompt_and_where_it_was_refused(url: str) -> None:
    tally = Tally()
    texts = HttpTexts(url, "m", account="0", tally=tally)
    assert texts.complete(prompt=["good", "good"], n=3) == [Written(0, "hi", "length", [], [])]
    assert texts.chat(messages=[{"role": "user", "content": "good"}])[0].text == "hi"
    assert [one.text for one in texts.stream(prompt="stream")] == ["a", "b"]
    assert (texts.asked, tally.rows) == (8, 8)
    for prompt, status in (("spent", 429), ("denied", 403)):
        with pytest.raises(Refused) as caught:
            texts.complete(prompt=prompt)
        assert caught.value.status == status
    assert (tally.first_refusal_at, tally.first_denial_at, tally.refusals) == (9, 10, {429: 1, 403: 1})


def test_what_is_no_answer_is_out_of_reach(url: str) -> None:
    with pytest.raises(Unreachable, match="not JSON"):
        HttpTexts(url, "m", tally=Tally()).complete(prompt="garbled")
    with pytest.raises(Unreachable, match="does not answer"):
        HttpTexts("http://127.0.0.1:1", "m", tally=Tally()).complete(prompt="good")


def test_both_shapes_of_log_probabilities_are_read() -> None:
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2.5}]
    chat = {
        "message": {"content": "a"},
        "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": top}]},
    }
    plain = {"text": "a", "logprobs": {"token_logprobs": [None, -0.1], "top_logprobs": [None, {"a": -0.1}]}}
    assert [(one.numbers, one.tops) for one in written({"choices": [chat]})] == [([-0.1], [{"a": -0.1, "b": -2.5}])]
    (one,) = written({"choices": [plain]})
    assert str(one.numbers) == "[nan, -0.1]"
    assert one.tops == [{}, {"a": -0.1}]
