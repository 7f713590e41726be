"""Take out of generated text what must never leave."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from guard.defences.base import TextDefence
from guard.defences.secret_canaries import LEAST, Canaries, CanarySet
from guard.defences.secret_documents import Documents
from guard.defences.secret_ibans import Ibans
from guard.defences.secret_keys import Shapes, ShapeSet, key_shapes
from guard.defences.secret_mail import Mails
from guard.defences.secret_ngrams import Ngrams
from guard.defences.secret_normal import normal_text
from guard.defences.secret_numbers import Cards
from guard.defences.secret_scanner import Finder, SecretScanner
from guard.defences.secret_shapes import shape
from guard.defences.secret_words import Words
from guard.errors import Problem
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs
from guard.model.secret import Secret

Find = Literal["cards", "ibans", "keys", "emails"]
_ALL: tuple[Find, ...] = ("cards", "ibans", "keys", "emails")


class Secrets(TextDefence, frozen=True):
    r"""Takes out of generated text what must never leave: cards, accounts, keys, addresses, canaries, documents.

    What may be the beginning of a secret waits until it is decided, at most 200 characters. A long one is taken out as
    it comes. What lies in the prompt alone is never touched; what goes on with a secret that begins there is. Digits of
    any script, full width, invisible characters and JSON's escapes are read as what they stand for.

    Costs: 1 ms for 4,000 characters, 20 us for a token that comes alone, with everything on (x86, one core). With
    `emails` text leaves a word late: any word may become an address. Wrongly taken: nothing by `cards`, `ibans`, `keys`
    in 4,862 text messages; 3% of random 16-digit numbers. Does nothing against a secret in another form: in base64,
    backwards, translated, with words between, half in this answer and half in the next. Whoever makes the model repeat
    guesses learns which is right. Budgets, deduplicated training data and differential privacy in training help there.
    Source: output filtering after Ippolito, Tramèr, Nasr, Zhang, Jagielski, Lee, Choquette-Choo, Carlini, INLG 2023,
    who show what passes it; repeated guesses: Debenedetti et al., USENIX Security 2024; check digits of ISO/IEC 7812-1
    and ISO 13616. Differs: runs are characters and not tokens, matched across prompt and answer.

    Args:
        find: what is looked for by its form: payment `cards`, bank accounts (`ibans`), `keys` and tokens, `emails`.
        canaries: texts that must never leave, one a line: a secret, {file: PATH} or {env: NAME}.
        run: letters and digits of a canary in a row that count as it; of a shorter one all do. What is shorter leaves.
        document_files: documents that must not be recited, as `guard secrets hash` writes them; paths, relative to the
            policy's folder.
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
    document_files: tuple[str, ...] = Field(default=(), max_length=16)
    patterns: tuple[str, ...] = Field(default=(), max_length=64)
    action: Literal["redact", "end"] = "redact"
    replacement: str = Field(default="[redacted]", max_length=64)

    _documents: tuple[Ngrams, ...] = PrivateAttr(default=())

    @field_validator("canaries")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        for number, line in enumerate(value.get_secret_value().splitlines() if value else (), 1):
            if line.strip() and len(normal_text(line)) < LEAST:
                raise ValueError(f"line {number} has fewer than {LEAST} letters and digits")
        return value

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

    def reads(self) -> tuple[str, ...]:
        """Return the files of documents."""
        return self.document_files

    def having_read(self, documents: Mapping[str, Ngrams]) -> Self:
        """Return the defence with what its files hold."""
        return self.knowing(_documents=tuple(documents[path] for path in self.document_files))

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Return what is wrong: a route with no generated text, nothing to look for, documents that were not read."""
        problems = super().check(outputs, inputs)
        if not (self.find or self.canaries or self.document_files or self.patterns):
            problems.append(Problem("secrets looks for nothing", "find", hint=f"find: [{', '.join(_ALL)}]"))
        self.scanner("")  # makes its tables, some 40 ms, so that no request has to
        return problems

    def scanner(self, before: str) -> SecretScanner:
        """Return the scanner of one text."""
        finders: list[Finder] = []
        if self._canaries is not None:
            finders.append(Canaries(self._canaries))
        finders += map(Documents, self._documents)
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
