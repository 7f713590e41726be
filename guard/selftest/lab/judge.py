"""The lab's judge: it knows the model because it trains the same one."""

from __future__ import annotations

from guard.selftest.base import Rows
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats, Ints


class LabJudge:
    """Holds a lab model's truth.

    Args:
        model: the victim.
    """

    def __init__(self, model: Victim) -> None:
        self.model = model

    @property
    def test_x(self) -> Rows:
        """Held-out inputs."""
        return self.model.test_x

    @property
    def test_y(self) -> Ints | Floats | None:
        """Their labels."""
        return self.model.test_y

    def truth(self, x: Rows) -> Floats:
        """Return the model's own scores."""
        return self.model.predict(x)

    def secret(self, name: str) -> object:
        """Return what only the owner knows."""
        return self.model.secrets[name]
