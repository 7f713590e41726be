"""For tests of attacks on generated text: a lab model asked in process, with any rule that a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import orjson

from guard.selftest.base import Refused, World
from guard.selftest.lab import text_server
from guard.selftest.lab.language import Language
from guard.selftest.lab.victim import Victim
from guard.selftest.texts import Json, Written, written
from tests.unit.selftest.support import world

Rule = Callable[[Json], None]
"""Changes a request in place, or raises `Refused`."""
Filter = Callable[[Json, Written], Written]
"""Changes what a request is answered with."""


class ModelTexts:
    """A language model's API in process.

    Args:
        model: what generates.
        rule: what is done to requests.
        answer: what is done to choices.
        limit: answers before 429.
    """

    def __init__(
        self, model: Language, rule: Rule | None = None, answer: Filter | None = None, limit: int | None = None
    ) -> None:
        self.model, self.rule, self.answer, self.limit = model, rule, answer, limit
        self.asked = 0

    def complete(self, **asked: object) -> list[Written]:
        """Return the choices of a completion."""
        return self._whole(asked, chat=False)

    def chat(self, **asked: object) -> list[Written]:
        """Return the choices of a chat completion."""
        return self._whole(asked, chat=True)

    def stream(self, **asked: object) -> list[Written]:
        """Return what events add: the filter sees each by itself."""
        body = self._admitted(asked)
        events = text_server.events(self.model, text_server.understood(body, chat=False), usage=True)
        found = [written(orjson.loads(event[6:])) for event in events if b"[DONE]" not in event]
        return [self._filtered(body, one) for event in found for one in event]

    def _whole(self, asked: Json, *, chat: bool) -> list[Written]:
        body = self._admitted(asked)
        answer = text_server.whole(self.model, text_server.understood(body, chat=chat))
        return [self._filtered(body, one) for one in written(answer)]

    def _admitted(self, asked: Json) -> Json:
        body: Json = {"model": "x", "seed": self.asked, **asked}
        if self.rule is not None:
            self.rule(body)
        prompt: Any = body.get("prompt")  # Any: as the attack wrote it
        prompts = cast("list[str]", prompt) if isinstance(prompt, list) else [prompt]
        self.asked += len(prompts) * int(body.get("n") or 1)
        if self.limit is not None and self.asked > self.limit:
            raise Refused(429)
        return body

    def _filtered(self, body: Json, one: Written) -> Written:
        return one if self.answer is None else self.answer(body, one)


def text_world(
    victim: Victim, rule: Rule | None = None, answer: Filter | None = None, *, seed: int = 0, limit: int | None = None
) -> World:
    """Return the world around a language model; every account has limits of its own.

    Args:
        victim: the model.
        rule: what is done to requests.
        answer: what is done to answers.
        seed: of every draw.
        limit: answers before 429, an account.
    """
    model = cast("Language", victim.language)

    def account(number: int) -> ModelTexts:
        del number
        return ModelTexts(model, rule, answer, limit)

    return replace(world(victim, seed=seed), texts=account)


def without(*names: str) -> Rule:
    """Return the rule that takes parameters out."""

    def drop(body: Json) -> None:
        for name in names:
            body.pop(name, None)

    return drop
