"""Releases generated text: what of it may leave now, and what of its log-probabilities. Pure.

One value a request, whether its answer comes whole or in events. For each text (a choice's content, its refusal, a tool
call's arguments) it keeps the scanners of the route's text defences and what waits for them; log-probabilities go
through the route's score defences, a row a token, with noise that is keyed by client, prompt, text and position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.defences.base import Defence
    from guard.engine.randomness import QueryNoise
    from guard.engine.release import Report
    from guard.model.outputs import Outputs
    from guard.model.prediction import Answer
    from guard.model.text import Most


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
        self.tokens = 0
        """Tokens generated so far, as far as can be told: see `settled`."""
        self.logprobs = 0
        """Log-probabilities let out so far."""
        self.choices = 0
        self.ended = False
        """A filter has ended the answer: nothing that follows may leave."""

    def take(self, answer: Answer) -> None:
        """Release one event, or one whole answer, in place.

        Raises:
            UpstreamError: code `too_many_predictions`: more choices, tokens or log-probabilities than were charged.
        """
        raise NotImplementedError

    def settled(self) -> Most:
        """Return what was let out, or where nobody has said how much was generated, the least bound that is certain."""
        raise NotImplementedError

    def report(self) -> Report:
        """Return what all defences did to it so far: see `guard.engine.release`."""
        raise NotImplementedError
