"""Asks a server through OpenAI's own client: client.py URL CALLS prints a JSON list of what came of them.

CALLS is a JSON list of `{"api": "chat" | "completions" | "responses" | "embeddings", "body": {...}, "hold": n,
"climb": n}`. With `hold` it prints a line at the n-th event of a stream and goes on when it reads one; with `climb` it
asks n times, each time with what the time before said behind the prompt.
"""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0, timeout=60)
APIS = {
    "chat": client.chat.completions.create,
    "completions": client.completions.create,
    "responses": client.responses.create,
    "embeddings": client.embeddings.create,
}


def logprobs_of(said):
    """Return [token, number, candidates] for each token, in either shape."""
    if said is None:
        return []
    content = said.get("content")
    if content is not None:
        return [[t["token"], t["logprob"], len(t["top_logprobs"])] for t in content]
    return [[t, n, 0] for t, n in zip(said.get("tokens") or [], said.get("token_logprobs") or [], strict=True)]


def plain(api, answer):
    """Return what a whole answer says."""
    if api == "embeddings":
        return {"vectors": [one.embedding for one in answer.data]}
    if api == "responses":
        return {
            "texts": [answer.output_text],
            "status": answer.status,
            "logprobs": [],
            "usage": answer.usage.output_tokens,
        }
    said = answer.model_dump()
    return {
        "texts": [one["text"] if api == "completions" else one["message"]["content"] for one in said["choices"]],
        "logprobs": [logprobs_of(one.get("logprobs")) for one in said["choices"]],
        "reasons": [one["finish_reason"] for one in said["choices"]],
        "usage": said["usage"]["completion_tokens"],
        "extra": sorted(
            k for k in said.keys() - {"id", "object", "created", "model", "choices", "usage"} if said[k] is not None
        ),
    }


def streamed(api, stream, hold, found):
    """Return what a stream says, put together as clients do."""
    found |= {"texts": {}, "logprobs": {}, "reasons": {}, "events": 0}
    for event in stream:
        found["events"] += 1
        if hold and found["events"] == hold:
            print("held", flush=True)
            sys.stdin.readline()
        said = event.model_dump()
        if api == "responses":
            if said["type"] == "response.output_text.delta":
                found["texts"]["0"] = found["texts"].get("0", "") + said["delta"]
            if said["type"] in ("response.completed", "response.incomplete"):
                parts = [part["text"] for item in said["response"]["output"] for part in item["content"]]
                found |= {"status": said["response"]["status"], "whole": parts}
            continue
        for one in said["choices"]:
            index = str(one["index"])
            text = one["text"] if api == "completions" else one["delta"]["content"]
            found["texts"][index] = found["texts"].get(index, "") + (text or "")
            found["logprobs"].setdefault(index, []).extend(logprobs_of(one.get("logprobs")))
            found["reasons"][index] = one["finish_reason"] or found["reasons"].get(index)


def asked(call):
    """Make one call and return what came of it; what fails says so beside what came before."""
    found = {}
    try:
        answer = APIS[call["api"]](model="tiny", **call["body"])
        if call["body"].get("stream"):
            streamed(call["api"], answer, call.get("hold"), found)
        else:
            found |= plain(call["api"], answer)
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        found["error"] = {"type": type(error).__name__, "status": status, "message": str(error), "code": error.code}
    return found


def climbed(call):
    """Ask for one thing after another."""
    body, said = dict(call["body"]), ""
    for _ in range(call["climb"]):
        found = asked({"api": call["api"], "body": {**body, "prompt": body["prompt"] + said}})
        if "error" in found:
            return found
        texts = found["texts"]
        said += texts["0"] if isinstance(texts, dict) else texts[0]
    return {"texts": [said]}


print(json.dumps([climbed(call) if "climb" in call else asked(call) for call in json.loads(sys.argv[2])]))
