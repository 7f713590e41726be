"""Parameters of a language model's request: each API's spelling of them, and what the policy lets through.

Theory of operation. A codec lists the members that its API knows. `Rules.apply` walks the request once: a parameter
that the policy drops leaves the document, a number beyond its bounds is moved to them, what is refused raises, and
under `fields: known` so does a member that neither the API's list nor the policy names, because it may reveal anything.
What is left are the effective values, from which the codec works out what the answer may hold at most.

Three rules no policy lifts: `logit_bias` and log-probabilities never go together (the bias moves any token into the
top, and the differences are the last layer: Carlini 2024); what says nothing (`n: null`, `echo: false`) counts as left
out; and a name that two spellings of one request give different values is refused. A negative count is how servers
spell `as many as there are`, so it is beyond every `max`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import cast

from guard.errors import ClientError
from guard.model.parameters import Parameter, ParameterAction
from guard.wire.base import Reader

Json = dict[str, object]

_COUNTS = frozenset({"max_tokens", "logprobs", "top_logprobs", "prompt_logprobs", "n", "best_of", "dimensions"})
"""Numbers of things that are answered: a negative one, but for the length, is refused where no `max` is set."""
RISKY: Mapping[str, ParameterAction] = {
    "prompt_logprobs": "refuse",  # scores the prompt itself: whatever text a client likes
    "echo": "refuse",  # with logprobs, the same
    "token_ids": "refuse",  # prompts as numbers pass every filter of text
    "best_of": "refuse",  # generates what is not shown
}
"""What happens to a parameter that the policy does not name; others are let through."""


@dataclass(frozen=True, slots=True)
class Known:
    """A member of an API's request.

    Args:
        path: where it stands, such as `max_tokens` or `options.num_predict`.
        name: the parameter that it spells; empty for a member that is none (`messages`, `stream`, `stop`), which is
            always let through.
        number: it is a number, which bounds apply to.
    """

    path: str
    name: str = ""
    number: bool = True


@dataclass(slots=True)
class Asked:
    """What is left of a request's parameters.

    Args:
        values: effective value by name; what was left out, says nothing or was dropped is not there.
    """

    values: dict[str, object] = field(default_factory=dict[str, object])

    def number(self, name: str, default: int) -> int:
        """Return a parameter as a whole number, rounded up; `default` when it was left out."""
        value = self.values.get(name, default)
        return -int(-value // 1) if isinstance(value, int | float) else default


class Rules:
    """What one route lets through of one endpoint's request.

    Args:
        reader: the route's.
        known: the API's members.
        fills: where a `max` is written when the request has no such parameter: path by name.
    """

    def __init__(self, reader: Reader, known: tuple[Known, ...], fills: Mapping[str, str]) -> None:
        self._reader = reader
        self._known = {one.path: one for one in known}
        self._fills = fills
        self._objects = frozenset(path.rpartition(".")[0] for path in self._known if "." in path)

    def apply(self, document: Json) -> Asked:
        """Hold a decoded request against the rules; `document` is changed in place.

        Raises:
            ClientError: 400, a parameter is refused, unknown, or not a number.
        """
        asked = Asked()
        self._walk(document, "", asked)
        values = asked.values
        if "logit_bias" in values and values.keys() & {"logprobs", "top_logprobs", "prompt_logprobs"}:
            raise ClientError(
                "logit_bias and log-probabilities are not answered together",
                code="unsupported_parameter",
                path="logit_bias",
            )
        for name, path in self._fills.items():
            rule = self._reader.parameters.get(name)
            if name not in values and rule is not None and rule.action == "allow" and rule.max is not None:
                _write(document, path, _plain(rule.max))
                values[name] = _plain(rule.max)
        return asked

    def drops(self, name: str) -> bool:
        """Say whether the policy takes a parameter out of every request."""
        rule = self._reader.parameters.get(name)
        return rule is not None and (rule.action == "drop" or rule.max == 0)

    def _walk(self, members: Json, at: str, asked: Asked) -> None:
        for member in list(members):
            path = f"{at}{member}"
            value = members[member]
            if path in self._objects and isinstance(value, dict):
                self._walk(cast("Json", value), f"{path}.", asked)
                continue
            known = self._known.get(path)
            if known is not None and not known.name:
                continue
            name = member if known is None else known.name
            if not value and (known is None or not known.number or value is None or value is False):
                # Says nothing: as if it were left out. It leaves, since a server may read another thing into it.
                if known is None or value is None:
                    del members[member]
                continue
            rule = self._reader.parameters.get(name)
            action = rule.action if rule is not None else self._default(name, known)
            if rule is not None and rule.max == 0:
                action = "drop"  # at 0 some servers answer one all the same
            if action == "refuse":
                raise ClientError(f"{shown(member)} is not let through", code="unsupported_parameter", path=shown(path))
            if action == "drop":
                del members[member]
                continue
            if known is not None and known.number:
                value = self._bounded(members, member, value, known, rule)
            if name in asked.values and asked.values[name] != value:
                raise ClientError(f"{shown(member)} is given twice", code="bad_request", path=shown(path))
            asked.values[name] = value

    def _default(self, name: str, known: Known | None) -> ParameterAction:
        if known is None:
            return "refuse" if self._reader.fields == "known" else "allow"
        return RISKY.get(name, "allow")

    def _bounded(self, members: Json, member: str, value: object, known: Known, rule: Parameter | None) -> object:
        """Return a number within the rule's bounds, and write it where it had to be moved."""
        if isinstance(value, bool):
            value = int(value)  # `logprobs: true` of chat completions counts one
            if rule is None or (rule.max is None or rule.max >= 1):
                return value
        if not isinstance(value, int | float) or not isfinite(value):
            raise ClientError(f"{shown(member)} must be a number", code="bad_request", path=shown(member))
        bounded = value
        endless = value < 0 and known.name in _COUNTS
        if rule is not None and rule.max is not None and (value > rule.max or endless):
            bounded = _plain(rule.max)
        elif endless and known.name != "max_tokens":
            raise ClientError(f"{shown(member)} must not be negative", code="bad_request", path=shown(member))
        elif rule is not None and rule.min is not None and value < rule.min:
            bounded = _plain(rule.min)
        if bounded != value:
            members[member] = bounded
        return bounded


def _write(document: Json, path: str, value: object) -> None:
    *parents, member = path.split(".")
    for parent in parents:
        inner = document.get(parent)
        if not isinstance(inner, dict):
            inner = document[parent] = {}
        document = cast("Json", inner)
    document[member] = value


def _plain(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def shown(name: str) -> str:
    """Return a client's own member name, if it is short and plain enough to repeat."""
    return name if len(name) <= 64 and name.replace(".", "_").isidentifier() else "a parameter"
