"""What a key of the policy means when it changes: the words, and which way is stricter.

Rules as data. A key that is not here is told all the same, by its name, its two values and the meaning that its spec
gives it, and without a direction: nothing changes silently, and nothing is called stricter that nobody thought about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf
from typing import Literal, cast

from guard.policy.detection_words import duration

Direction = Literal["looser", "stricter", "neutral", "unclear"]
ANY = "*"

GREATER: dict[tuple[str, str], Direction] = {
    ("bin", "width"): "stricter",
    ("boundary_response", "margin"): "stricter",
    ("boundary_response", "epsilon"): "looser",
    ("bounded_shift", "epsilon"): "stricter",
    ("codebook", "epsilon"): "stricter",
    ("dp_gaussian", "noise_multiplier"): "stricter",
    ("dp_gaussian", "epsilon"): "looser",
    ("dp_gaussian", "delta"): "looser",
    ("dp_laplace", "noise_multiplier"): "stricter",
    ("dp_laplace", "epsilon"): "looser",
    ("dp_laplace", "delta"): "looser",
    ("noisy_max", "noise_multiplier"): "stricter",
    ("noisy_max", "epsilon"): "looser",
    ("noisy_max", "delta"): "looser",
    ("noisy_max", "threshold"): "stricter",
    ("noisy_max", "threshold_noise_multiplier"): "stricter",
    ("exponential", "epsilon"): "looser",
    ("randomised_response", "epsilon"): "looser",
    ("grid", "step"): "stricter",
    ("noise", "scale"): "stricter",
    ("round", "decimals"): "looser",
    ("top_k", "k"): "looser",
    ("rows", "limit"): "looser",
    ("information", "graded_answers"): "looser",
    ("information", "per_dimension"): "looser",
    ("information", "parameters"): "looser",
    ("information", "equations"): "stricter",
    ("information", "meter"): "looser",
    ("privacy", "epsilon"): "looser",
    ("privacy", "delta"): "looser",
    (ANY, "hard_limit"): "looser",
    ("rung", "false_alarm"): "stricter",
    ("rung", "count"): "looser",
    ("rung", "hold"): "stricter",
    ("rung", "rows_per_minute"): "looser",
    ("inputs", "low"): "stricter",
    ("inputs", "high"): "looser",
    ("inputs", "step"): "stricter",
    ("inputs", "max_chars"): "looser",
    ("ensemble", "noise_multiplier"): "stricter",
    ("limits", "body_bytes"): "looser",
    ("limits", "answer_bytes"): "looser",
    ("limits", "header_bytes"): "looser",
    ("limits", "rows"): "looser",
    ("limits", "concurrency"): "looser",
    ("limits", "read_timeout_s"): "looser",
    ("limits", "upstream_timeout_s"): "neutral",
    ("limits", "drain_s"): "neutral",
    ("jwt", "leeway_s"): "looser",
}
"""Which way a greater value is."""
MISSING: dict[tuple[str, str], float] = {
    (ANY, "hard_limit"): inf,
    ("inputs", "low"): -inf,
    ("inputs", "high"): inf,
    ("inputs", "step"): 0.0,
    ("inputs", "max_chars"): inf,
    ("information", "meter"): inf,
    ("rung", "count"): inf,
}
"""What a key that is left out comes to."""
ORDERS: dict[tuple[str, str], tuple[object, ...]] = {
    (ANY, "mode"): ("shadow", "enforce"),
    (ANY, "then"): ("label_only", "deny"),
    (ANY, "forward"): (True, False),
    ("noise", "reuse"): ("none", "query"),
    ("privacy", "guarantee"): ("per_period", "for_ever"),
    ("route", "fields"): ("all", "known"),
    ("audit", "when_full"): ("drop", "refuse"),
    ("rung", "action"): ("alert", "degrade", "throttle", "deny"),
    ("inputs", "kind"): ("any", "vector"),
}
"""Values from loose to strict."""
_DURATIONS = frozenset({"window", "period", "hold"})


def _rounded(value: object) -> str:
    return f"{10.0 ** -cast('int', value):g}"


def shown(value: object) -> str:
    """Return a value to read.

    >>> shown(20000), shown(None), shown([0.5, 1]), shown(True)
    ('20,000', 'none', '0.5, 1', 'yes')
    """
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case str():
            return value or "none"
        case list() | tuple():
            return ", ".join(map(shown, cast("Sequence[object]", value))) or "none"
        case _:
            return json.dumps(value, sort_keys=True)


_SAID: dict[tuple[str, str], tuple[str, Callable[[object], str]]] = {
    ("round", "decimals"): ("scores are rounded to {}", _rounded),
    ("grid", "step"): ("scores become multiples of {}", shown),
    ("bin", "width"): ("values become the middle of a bin as wide as {}", shown),
    ("top_k", "k"): ("of each row's scores the greatest are left, as many as {}", shown),
    ("levels", "levels"): ("the top score becomes one of {}", shown),
    ("noise", "scale"): ("scores get noise of scale {}", shown),
    ("temperature", "t"): ("logits are divided by {}", shown),
    ("rows", "limit"): ("rows are limited to {}", shown),
    ("information", "graded_answers"): ("graded answers are limited to {}", shown),
    ("information", "per_dimension"): ("graded answers are limited to so many a feature: {}", shown),
    ("information", "meter"): ("answers are graded until a copy may come as close as {}", shown),
    ("privacy", "epsilon"): ("epsilon is limited to {}", shown),
    ("privacy", "delta"): ("delta is {}", shown),
    (ANY, "hard_limit"): ("whoever gets labels only is refused behind all rows together: {}", shown),
    (ANY, "then"): ("a batch beyond the limit leads to {}", shown),
    (ANY, "mode"): ("mode is {}", shown),
    ("rung", "false_alarm"): ("the bound on honest clients that ever reach it is {}", shown),
    ("rung", "count"): ("it takes so many offences an hour: {}", shown),
    ("inputs", "low"): ("the least value of a feature is {}", shown),
    ("inputs", "high"): ("the greatest value of a feature is {}", shown),
    ("inputs", "step"): ("queries are snapped to multiples of {}", shown),
    ("inputs", "size"): ("a query has so many features: {}", shown),
    ("limits", "rows"): ("the most rows in one request are {}", shown),
    ("limits", "body_bytes"): ("the largest request body is, in bytes, {}", shown),
    ("limits", "concurrency"): ("the most requests in flight are {}", shown),
    ("audit", "when_full"): ("when the audit log cannot take another line, requests lead to {}", shown),
}


def words(kind: str, key: str, old: object, new: object, meaning: str = "") -> str:
    """Return what it means that a key changes.

    Args:
        kind: the spec's.
        key: the field's name.
        old: value before, as JSON has it.
        new: value now.
        meaning: the field's, from its spec; said where there are no better words.

    >>> words("round", "decimals", 2, 1)
    'scores are rounded to 0.1 instead of 0.01'
    >>> words("outputs", "clip", False, True, "what lies outside is moved into the domain.")
    'clip is yes instead of no (what lies outside is moved into the domain)'
    """
    found = _SAID.get((kind, key)) or _SAID.get((ANY, key))
    if found is not None:
        said, say = found
        return f"{said.format(_say(say, new))} instead of {_say(say, old)}"
    before, now = (_timed(key, value) for value in (old, new))
    short = meaning.partition(". ")[0].rstrip(".")
    return f"{key} is {now} instead of {before}" + (f" ({short})" if short else "")


def _say(say: Callable[[object], str], value: object) -> str:
    return shown(value) if value is None or isinstance(value, str) else say(value)


def _timed(key: str, value: object) -> str:
    return duration(value) if key in _DURATIONS and isinstance(value, int) else shown(value)


def direction(kind: str, key: str, old: object, new: object) -> Direction:
    """Return which way a change goes; `unclear` where that cannot be said.

    >>> direction("round", "decimals", 2, 1), direction("rows", "limit", 10, 20), direction("rows", "then", "deny", 1)
    ('stricter', 'looser', 'unclear')
    """
    order = ORDERS.get((kind, key)) or ORDERS.get((ANY, key))
    if order is not None and old in order and new in order:
        return "stricter" if order.index(new) > order.index(old) else "looser"
    if (kind, key) == ("levels", "levels"):
        more = len(cast("list[object]", new)) - len(cast("list[object]", old))
        return "unclear" if not more else "looser" if more > 0 else "stricter"
    greater = GREATER.get((kind, key)) or GREATER.get((ANY, key))
    if greater is None:
        return "unclear"
    if greater == "neutral":
        return greater
    missing = MISSING.get((kind, key), MISSING.get((ANY, key)))
    before, now = _number(old, missing), _number(new, missing)
    if before is None or now is None or len({len(before), len(now)} - {1}) > 1:
        return "unclear"
    width = max(len(before), len(now))
    pairs = list(zip(_wide(before, width), _wide(now, width), strict=True))
    if all(b <= a for b, a in pairs):
        return greater
    if all(b >= a for b, a in pairs):
        return "looser" if greater == "stricter" else "stricter"
    return "unclear"


def _number(value: object, missing: float | None) -> list[float] | None:
    if value is None:
        return None if missing is None else [missing]
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, list):
        found = [v for v in cast("list[object]", value) if isinstance(v, int | float)]
        return [float(v) for v in found] if len(found) == len(cast("list[object]", value)) else None
    return None


def _wide(values: list[float], width: int) -> list[float]:
    return values * width if len(values) == 1 else values
