"""Stop what must never leave in generated text."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from guard.defences.base import TextDefence
from guard.defences.secret_canaries import LEAST, Canaries, CanarySet, normal_text
from guard.defences.secret_keys import Shapes, ShapeSet, key_shapes
from guard.defences.secret_mail import Mails
from guard.defences.secret_numbers import Cards, Ibans
from guard.defences.secret_scanner import Finder, SecretScanner
from guard.defences.secret_shapes import shape
from guard.defences.secret_words import Words
from guard.model.outputs import Kind
from guard.model.secret import Secret

Find = Literal["cards", "ibans", "keys", "emails"]
_ALL: tuple[Find, ...] = ("cards", "ibans", "keys", "emails")


class Secrets(TextDefence, frozen=True):
    r"""Takes out of generated text what must never leave: cards, accounts, keys, addresses, canaries.

    What may be the beginning of a secret waits, a bounded number of characters; what lies in the prompt alone is never
    touched, what a secret that begins there goes on with is. Text is compared in a folded form: see
    `guard.defences.secret_window`.

    Costs: false positives, and text that leaves a word late where `emails` are looked for. Does nothing against a
    secret that is asked for in another form: in base64, backwards, translated, spelled with words between, half in one
    answer and half in the next. Budgets, deduplicated training data and training with differential privacy help there.
    Source: output filtering after Ippolito, Tramèr, Nasr, Zhang, Jagielski, Lee, Choquette-Choo, Carlini, INLG 2023,
    who also show what passes it; checksums of ISO/IEC 7812-1 and ISO 13616.

    Args:
        find: what is looked for by its form: payment `cards`, bank accounts (`ibans`), `keys` and tokens, `emails`.
        canaries: texts that must never leave, one a line: a secret, {file: PATH} or {env: NAME}.
        run: letters and digits of a canary in a row that count as it; of a shorter one all do.
        patterns: what else must not leave, as `\bEMP-\d{6}`: characters, classes and how often they stand.
        action: `redact` puts `replacement` for it; `end` ends the answer before it.
        replacement: what stands for a secret.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"logprobs"})
    instead: ClassVar[str] = "it looks at generated text: put it on a route with outputs {kind: logprobs}"

    kind: Literal["secrets"] = "secrets"
    find: tuple[Find, ...] = _ALL
    canaries: Secret | None = None
    run: int = Field(default=12, ge=LEAST, le=64)
    patterns: tuple[str, ...] = Field(default=(), max_length=64)
    action: Literal["redact", "end"] = "redact"
    replacement: str = Field(default="[redacted]", max_length=64)

    @field_validator("patterns")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            shape("own", pattern)
        return value

    @cached_property
    def _shapes(self) -> ShapeSet | None:
        own = tuple(shape("own", pattern) for pattern in self.patterns)
        found = (*(key_shapes() if "keys" in self.find else ()), *own)
        return ShapeSet(found) if found else None

    @cached_property
    def _canaries(self) -> CanarySet | None:
        if self.canaries is None:
            return None
        lines = map(normal_text, self.canaries.get_secret_value().splitlines())
        return CanarySet((line for line in lines if line), self.run)

    def scanner(self, before: str) -> SecretScanner:
        """Return the scanner of one text."""
        finders: list[Finder] = []
        if self._canaries is not None:
            finders.append(Canaries(self._canaries))
        if "cards" in self.find:
            finders.append(Cards())
        if "ibans" in self.find:
            finders.append(Ibans())
        if self._shapes is not None:
            finders.append(Shapes(self._shapes))
        if "keys" in self.find:
            finders.append(Words())
        if "emails" in self.find:
            finders.append(Mails())
        return SecretScanner(finders, before, self.action, self.replacement)
