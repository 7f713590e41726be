"""Releases generated text: what of it may leave now, and what of its log-probabilities. Pure.

One value a request, whether its answer comes whole or in events. For each text (a choice's content, its refusal, a tool
call's arguments) it keeps the scanners of the route's text defences and what waits for them; log-probabilities go
through the route's score defences, a row a token, with noise that is keyed by client, prompt and the text before.

A scanner that ends a text ends the whole answer: n choices are n tries at the same memory, and whoever sees which of
them ended learns no more from the others. What the other choices had held back never leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guard.defences.base import Defence, TextDefence
from guard.engine.randomness import QueryNoise
from guard.engine.release import Report, Step
from guard.engine.token_noise import Place, Said
from guard.engine.token_scores import Placed, TokenScores
from guard.engine.token_text import Passage
from guard.errors import UpstreamError
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.model.text import Most, Piece

_MOST_TEXTS = 128
"""Texts a choice: content, refusal, reasoning, and its calls of tools."""


class _Text:
    """What is kept of one text.

    `said` is what its choice has said; `began` the same at the text's first token, for pieces that repeat it.
    """

    __slots__ = ("began", "over", "passage", "said", "seen", "stayed", "upto")

    def __init__(self, said: Said, passage: Passage | None) -> None:
        self.said = said
        self.passage = passage
        self.began: Said | None = None
        self.upto = b""
        self.seen = 0
        self.stayed: dict[int, frozenset[str] | None] = {}
        self.over = False


class Generation:
    """One request's generated text on its way out.

    Args:
        defences: the route's, in order, those that the ladder adds behind them.
        outputs: the route's.
        noise: of the request's queries (prompts); each token's is drawn from it.
        most: what was charged.
        trace: report every step.
    """

    def __init__(
        self, defences: tuple[Defence, ...], outputs: Outputs, noise: QueryNoise, most: Most, *, trace: bool = False
    ) -> None:
        del outputs  # whatever else the route declares, these are log-probabilities
        self.tokens = 0
        """Tokens generated so far, as far as can be told: see `settled`."""
        self.logprobs = 0
        """Log-probabilities let out so far."""
        self.choices = 0
        self.ended = False
        """A filter has ended the answer: nothing that follows may leave."""
        self._most = most
        self._defences = defences
        self._trace = trace
        self._scanning = tuple(defence for defence in defences if isinstance(defence, TextDefence))
        scoring = tuple(defence for defence in defences if not isinstance(defence, TextDefence))
        self._scores = TokenScores(scoring, noise, trace=trace)
        self._remembers = self._scores.random and most.logprobs > 0
        self._texts: dict[str, _Text] = {}
        self._said: dict[str, Said] = {}
        self._usage: int | None = None
        self._least = 0
        self._bound = 0

    def take(self, answer: Answer) -> None:
        """Release one event, or one whole answer, in place.

        Raises:
            UpstreamError: code `too_many_predictions`: more choices, tokens or log-probabilities than were charged.
        """
        self._count(answer)
        for piece in answer.pieces:
            if self.ended:
                piece.put("", [])
                piece.filtered()
            elif piece.whole:
                self._repeat(piece)
            elif self._scanning or piece.tokens or self._remembers:
                self._release(piece)
            else:
                piece.put(piece.text, [])
        most = self._most
        # An end of text may stand beside what was asked for: a token a choice.
        slack = most.choices * -(-most.logprobs // most.tokens) if most.tokens else 0
        if self.logprobs > most.logprobs + slack:
            raise _too_many("log-probabilities")

    def settled(self) -> Most:
        """Return what was let out, or where nobody has said how much was generated, the least bound that is certain.

        Without a word of upstream's, a token is counted as one where its own entry stood beside the text, and as one a
        byte elsewhere: a token of text holds at least one byte. Tokens that leave no text (an end of text, hidden
        reasoning) are known to upstream alone; one a choice is counted.
        """
        most = self._most
        tokens = self._bound + min(self.choices, most.choices) if self._usage is None else self.tokens
        return Most(
            min(self.choices, most.choices),
            min(tokens, most.tokens) if most.tokens else tokens,
            min(self.logprobs, most.logprobs),
        )

    def report(self) -> Report:
        """Return what all defences did to it so far: see `guard.engine.release`."""
        counts = [0] * len(self._scanning)
        for text in self._texts.values():
            if text.passage is not None:
                counts = [a + b for a, b in zip(counts, text.passage.redacted(), strict=True)]
        redacted = [Step(d.kind, d.mode, 0.0, 0, n) for d, n in zip(self._scanning, counts, strict=True)]
        steps: tuple[Step, ...] = ()
        if self._trace:
            scoring, scanning = iter(self._scores.steps()), iter(redacted)
            steps = tuple(next(scanning if isinstance(d, TextDefence) else scoring) for d in self._defences)
        enforced = sum(step.redacted or 0 for step in redacted if step.mode == "enforce")
        made = self._scores.report()
        return replace(made, steps=steps, redacted=enforced, shadow_redacted=sum(counts) - enforced)

    def _count(self, answer: Answer) -> None:
        most = self._most
        self.choices = max(self.choices, answer.choices)
        if answer.usage is not None:
            self._usage = max(self._usage or 0, answer.usage)
        entries, bare = 0, False
        for piece in answer.pieces:
            if piece.whole:
                continue
            if piece.tokens:
                entries += len(piece.tokens)
            elif piece.text:
                # Several texts of one event may be one token, which a parser has split.
                bare = True
                self._bound += len(piece.text) if piece.text.isascii() else len(piece.text.encode("utf-8", "replace"))
        self._least += entries or bare
        self._bound += entries
        self.tokens = max(self._usage or 0, self._least)
        if self.choices > most.choices:
            raise _too_many("choices")
        if most.tokens and self.tokens > most.tokens + most.choices + most.prompt:
            raise _too_many("tokens")

    def _release(self, piece: Piece) -> None:
        """Release what a piece adds."""
        text = self._text(piece)
        if text.over and (piece.text or piece.tokens):
            raise UpstreamError("the model's answer goes on behind its end", code="unreadable_answer")
        tokens = self._placed(piece, text)
        added = piece.text
        if text.passage is not None:
            arrived = tokens
            if not text.over:
                added, tokens = text.passage.take(added, tokens, last=piece.last)
            self._note(text, arrived, tokens)
            self.ended = text.passage.ended
        text.over = text.over or piece.last
        self.logprobs += self._scores.release(tokens)
        piece.put(added, [one.token for one in tokens])
        if self.ended:
            piece.filtered()

    def _text(self, piece: Piece) -> _Text:
        text = self._texts.get(piece.key)
        if text is None:
            if len(self._texts) >= _MOST_TEXTS * max(self._most.choices, 1):
                raise _too_many("texts")
            choice = piece.key.partition("/")[0]
            said = self._said.setdefault(choice, Said())
            passage = Passage(self._scanning, piece.before) if self._scanning else None
            text = self._texts[piece.key] = _Text(said, passage)
        return text

    def _placed(self, piece: Piece, text: _Text) -> list[Placed]:
        """Return the piece's tokens, each with its number and its noise's name."""
        said = text.said
        if not piece.tokens:
            if piece.text and not text.seen:
                said.add_text(piece.text)
            return []
        if text.began is None:
            text.began = said.copy()
        placed: list[Placed] = []
        for token in piece.tokens:
            placed.append(Placed(token, text.seen, Place(piece.row, said.digest())))
            said.add(token.data)
            text.seen += 1
        text.upto = said.digest()
        return placed

    @staticmethod
    def _note(text: _Text, arrived: Sequence[Placed], left: Sequence[Placed]) -> None:
        """Keep which tokens and candidates have stayed behind: nearly none."""
        for one in arrived:
            text.stayed[one.index] = None
        for one in left:
            del text.stayed[one.index]
            if one.barred:
                text.stayed[one.index] = one.barred

    def _repeat(self, piece: Piece) -> None:
        """Say once more what was released of a text, and no more."""
        text = self._texts.get(piece.key)
        passage = None if text is None else text.passage
        if self._scanning:
            if passage is not None and piece.last and text is not None and not text.over:
                _, tokens = passage.take("", [], last=True)
                self._note(text, (), tokens)
                self.logprobs += self._scores.release(tokens)
                text.over, self.ended = True, passage.ended
            said = "" if passage is None else "".join(passage.released)
        else:
            said = piece.text
        again = [] if text is None else self._again(piece, text)
        self._scores.release(again, again=True)
        piece.put(said, [one.token for one in again])
        if self.ended:
            piece.filtered()

    def _again(self, piece: Piece, text: _Text) -> list[Placed]:
        """Return the tokens that have left before; none when these are not the ones that were seen."""
        if len(piece.tokens) != text.seen or text.began is None:
            return []
        said = text.began.copy()
        placed: list[Placed] = []
        for index, token in enumerate(piece.tokens):
            barred = text.stayed.get(index, frozenset[str]())
            if barred is not None:
                placed.append(Placed(token, index, Place(piece.row, said.digest()), barred=barred))
            said.add(token.data)
        return placed if said.digest() == text.upto else []


def _too_many(what: str) -> UpstreamError:
    return UpstreamError(f"the model answered more {what} than were asked for", code="too_many_predictions")
