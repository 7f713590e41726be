"""Members of requests for generated text in OpenAI's shape, and what of them the policy lets through.

What reveals is left out of these lists, so that `fields: known` refuses it: answers as token numbers, cached tokens'
counts, times, probabilities after sampling; `prediction`, whose rejected tokens are counted and so tell whether a guess
was right; generated sound, which passes every filter of text; a chat template of the client's own.

A bias by another name. Whatever makes the model say a token of the client's choosing (`allowed_token_ids`, a grammar, a
JSON schema with one value, a great repetition penalty) shows, beside log-probabilities, that token's own number: asked
token by token that is the whole distribution, which `logit_bias` is refused for. So these too never go together.

Nor does what may or may not change the prompt (`chat_template_kwargs`): noise is keyed by the prompt. Were such a
member part of it, one that a template ignores would draw fresh noise for the same numbers, to be averaged away; were it
not, two prompts would share their noise, and their difference would be exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from guard.errors import ClientError
from guard.model.text import Most
from guard.wire.base import Reader
from guard.wire.parameters import Asked, Json, Known, Rules

_PLAIN = (
    *("model", "stream", "stop", "user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "stream_options.include_usage"),
    *("stream_options.include_obfuscation", "stream_options.continuous_usage_stats"),
    *("min_tokens", "ignore_eos", "stop_token_ids", "skip_special_tokens", "spaces_between_special_tokens"),
    *("include_stop_str_in_output", "samplers", "t_max_predict_ms", "cache_salt"),
    *("guided_decoding_backend", "guided_whitespace_pattern"),
)
_SAMPLING = (
    *("temperature", "seed", "n", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "xtc_probability"),
    *("xtc_threshold", "dynatemp_range", "dynatemp_exponent", "mirostat", "mirostat_tau", "mirostat_eta", "min_keep"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "repeat_penalty", "repeat_last_n"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "length_penalty"),
)
_GRAMMAR = (
    *("response_format", "grammar", "json_schema", "structured_outputs", "guided_json", "guided_regex"),
    *("guided_choice", "guided_grammar"),
)
_BIASES = ("logit_bias", "allowed_token_ids", "bad_words", "bad_words_ids")
_LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict", "num_predict")
TEXT_MEMBERS = (
    *(Known(path) for path in _PLAIN),
    *(Known(path, path) for path in _SAMPLING),
    *(Known(path, "grammar", number=False) for path in _GRAMMAR),
    *(Known(path, "logit_bias", number=False) for path in _BIASES),
    *(Known(path, "max_tokens") for path in _LENGTHS),
    Known("logprobs", "logprobs"),
    Known("top_logprobs", "top_logprobs"),
)
"""What chat and completions have in common; a number of candidates counts as `logprobs` and `top_logprobs`."""
CHAT_MEMBERS = (
    *TEXT_MEMBERS,
    *(Known(path) for path in ("messages", "modalities", "verbosity", "reasoning_effort", "web_search_options")),
    *(Known(path) for path in ("reasoning_format", "chat_template_kwargs", "thinking_budget_tokens", "documents")),
    *(Known(path) for path in ("add_generation_prompt", "continue_final_message", "include_reasoning")),
    *(Known(path) for path in ("parallel_tool_calls", "parse_tool_calls", "tool_choice", "function_call")),
    *(Known(path) for path in ("tools", "functions")),
)
COMPLETION_MEMBERS = (
    *TEXT_MEMBERS,
    *(Known(path) for path in ("prompt", "suffix", "add_special_tokens")),
    Known("echo", "echo"),
    Known("best_of", "best_of"),
)
_STEERS: Mapping[str, object] = {"grammar": None, "repetition_penalty": 1, "repeat_penalty": 1, "dry_multiplier": 0}
"""What chooses tokens, and the value at which it does not."""
_UNSURE = (
    *("chat_template_kwargs", "documents", "add_generation_prompt", "continue_final_message", "add_special_tokens"),
    *("reasoning_effort", "verbosity", "reasoning", "truncation"),
)
"""What may or may not change the prompt, which only its template knows."""
_MOST_PENALTY = 2.0
"""OpenAI's own bound of `frequency_penalty` and `presence_penalty`; below 0 they favour what was said before."""
UNBOUNDED = 2**40
"""Log-probabilities of an answer whose length nothing bounds; a budget that counts them needs a bound."""


def text_rules(reader: Reader, known: tuple[Known, ...], length: str = "max_tokens") -> Rules:
    """Return the rules of an endpoint that generates text; `length` is the member that a bound is written to."""
    return Rules(reader, known, {"max_tokens": length})


def apply_rules(rules: Rules, document: Json) -> Asked:
    """Hold a request against the rules, `document` in place; see above for what never goes together.

    Raises:
        ClientError: 400.
    """
    if document.get("logprobs") is None or document["logprobs"] is False or rules.drops("logprobs"):
        # Candidates of no log-probabilities: servers refuse them, and so would the rules beside a bias.
        document.pop("top_logprobs", None)
    if document.get("response_format") == {"type": "text"}:
        del document["response_format"]  # the default, said
    asked = rules.apply(document)
    values = asked.values
    if "prompt_logprobs" in values:
        # Whatever the policy says: they stand by token number, and in no text that could be looked through.
        raise ClientError("prompt_logprobs is not let through", code="unsupported_parameter", path="prompt_logprobs")
    if "logprobs" not in values:
        document.pop("top_logprobs", None)
        values.pop("top_logprobs", None)
        return asked
    for name, neutral in _STEERS.items():
        if values.get(name, neutral) != neutral:
            raise _not_together(name)
    for name in ("frequency_penalty", "presence_penalty"):
        if not 0 <= cast("float", values.get(name, 0.0)) <= _MOST_PENALTY:
            raise _not_together(name)
    for name in _UNSURE:
        if document.get(name) is not None:
            raise _not_together(name)
    return asked


def _not_together(name: str) -> ClientError:
    return ClientError(
        f"{name} and log-probabilities are not answered together", code="unsupported_parameter", path=name
    )


def spread_candidates(document: Json, *, counted: bool) -> None:
    """Write how many candidates are asked for as chat completions do: `logprobs: true` and `top_logprobs`.

    Args:
        document: the request; llama.cpp's `n_probs` is taken too.
        counted: `logprobs` itself is the number (completions).

    Raises:
        ClientError: 400, not such a number, or several.
    """
    found: list[object] = []
    if (probabilities := document.pop("n_probs", None)) is not None and probabilities != 0:
        found.append(probabilities)
    said = document.get("logprobs")
    if counted and said is not None and said is not False:
        found.append(said)
        if "top_logprobs" in document:
            raise ClientError("completions take logprobs as a number", path="top_logprobs")
    elif not counted and said is not None and not isinstance(said, bool):
        raise ClientError("logprobs must be true or false", path="logprobs")
    elif not counted and said and document.get("top_logprobs") is not None:
        found.append(document["top_logprobs"])
    if not found:
        return
    if any(type(one) is not int or one < 0 or one != found[0] for one in found):
        raise ClientError("the number of log-probabilities must be one whole number", path="logprobs")
    document["logprobs"], document["top_logprobs"] = True, found[0]


def gather_candidates(document: Json) -> None:
    """Write how many candidates are asked for as completions do: what `spread_candidates` spread."""
    if document.pop("logprobs", None):
        document["logprobs"] = document.pop("top_logprobs", 0)


def most_of(asked: Asked, prompts: int, prompt_bytes: int) -> Most:
    """Return what an answer may hold at most.

    Args:
        asked: what is left of the parameters.
        prompts: how many.
        prompt_bytes: of all prompts, each of whose tokens has one at least.

    Raises:
        ClientError: 400, no choice at all.
    """
    n, best_of = asked.number("n", 1), asked.number("best_of", 1)
    if n < 1 or best_of < 1:
        raise ClientError("n must be at least 1", path="n")
    length = max(asked.number("max_tokens", -1), -1)
    tokens = prompts * max(n, best_of) * max(length, 0)
    if "echo" in asked.values and length >= 0:
        tokens += prompt_bytes * n
    if "logprobs" not in asked.values:
        return Most(prompts * n, tokens, 0)
    each = 1 + max(asked.number("top_logprobs", 0), 0)
    scores = UNBOUNDED if length < 0 else prompts * n * length * each
    prompt = prompt_bytes * n if "echo" in asked.values else 0
    return Most(prompts * n, tokens, scores + prompt * each, prompt)


def opened(reader: Reader, name: str) -> bool:
    """Say whether the policy allows a parameter by name."""
    rule = reader.parameters.get(name)
    return rule is not None and rule.action == "allow"


def streamed(document: Json, *, counts: bool) -> tuple[bool, bool]:
    """Say whether the answer is asked for in events, and whether with a count of tokens at its end.

    The count is always asked of upstream, so that budgets are settled to it.

    Args:
        document: the request, in which it is written.
        counts: the endpoint has `stream_options`.

    Raises:
        ClientError: 400, a value that servers may read either way.
    """
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ClientError("stream must be true or false", path="stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ClientError("stream_options must be an object", path="stream_options")
    if not stream or not counts:
        document.pop("stream_options", None)
        return bool(stream), False
    said = cast("Json", options or {})
    document["stream_options"] = {**said, "include_usage": True}
    return True, said.get("include_usage") is True


def context_of(document: Json, *without: str) -> Mapping[str, object]:
    """Return what else of a request the model may look at beside its prompts."""
    left = {*without, *("stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key")}
    return {name: value for name, value in document.items() if name not in left}
