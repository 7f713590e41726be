"""One watched client: its evidence, its standing, and what the state is owed of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guard.engine.ladder import EPOCH
from guard.evidence.values import BINS, MOST_SIGNALS, Strength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.detectors.setup import Setup
    from guard.engine.tracker import Tracker
    from guard.model.client import Client
    from guard.model.evidence import Record
    from guard.proxy.owed import Owed
    from guard.proxy.pools import Shares

_HOUR_S = 3600
_HOUR_FIELDS = MOST_SIGNALS * BINS  # an hour is a bucket, so the newest 32 are kept
_MINUTE_S = 60.0


def hour_field(now_s: float) -> int:
    """Return the field of a record of marks that counts the offences of an hour.

    >>> hour_field(7200.0)
    512
    """
    return int(now_s // _HOUR_S) * _HOUR_FIELDS


@dataclass(slots=True, eq=False)
class Watched:
    """One client of one route, as long as it is in the set.

    Args:
        client: who.
        ledger: the route's.
        setup: the route's detectors.
        tracker: its evidence; another object when it begins anew.
        evidence: what its counts' record is owed beside `tracker.pending`.
        standing: what the record of its marks and offences is owed.
        marks: as last merged, with what was set here since; `HotSet.mark` changes them.
        hot: it is in the set.
        strength: its evidence when it was last looked at.
        shares: its contributions to pools.
        pooled: those pools' evidence when it was last looked at.
    """

    client: Client
    ledger: str
    setup: Setup
    tracker: Tracker
    evidence: Owed
    standing: Owed
    marks: dict[int, int]
    hot: bool = True
    strength: Strength = field(default_factory=Strength)
    shares: dict[str, Shares] = field(default_factory=dict[str, "Shares"])
    pooled: dict[str, Strength] = field(default_factory=dict[str, Strength])
    _hour: int = 0  # the field of the hour that `_offences` are of
    _offences: int = 0
    _rows: float | None = None
    _filled_s: float = 0.0

    @property
    def epoch(self) -> int:
        """How often it has begun anew."""
        return self.marks.get(EPOCH, 0)

    def offences(self, now_s: float) -> int:
        """Return how many protocol offences it has committed in this hour, as far as replicas have told each other."""
        return self._offences if hour_field(now_s) == self._hour else 0

    def offend(self, now_s: float) -> None:
        """Count a protocol offence; `HotSet.offence` has it merged, too."""
        self._offences = self.offences(now_s) + 1
        self._hour = hour_field(now_s)
        counts = self.standing.counts
        counts[self._hour] = counts.get(self._hour, 0) + 1

    def learn_offences(self, counts: Mapping[int, int], now_s: float) -> None:
        """Take over what the record of offences says, beside what it has not been told yet."""
        hour = hour_field(now_s)
        known = counts.get(hour, 0) + self.standing.counts.get(hour, 0)
        self._hour, self._offences = hour, max(self.offences(now_s), known)

    def learn_counts(self, record: Record) -> None:
        """Add what the record of counts holds beyond what is known: that is all but what is pending."""
        if record.whole and record.counts:
            known, pending = self.tracker.wealth.counts(), self.tracker.pending
            more = {f: n + pending.get(f, 0) - known.get(f, 0) for f, n in record.counts.items()}
            self.tracker.merge({f: n for f, n in more.items() if n > 0})

    def throttle(self, rows: int, rate: float, now_s: float) -> float:
        """Take rows out of a bucket that holds a minute's.

        Args:
            rows: of this request; one that is larger than the bucket takes a full one.
            rate: rows a second.
            now_s: wall clock.

        Returns:
            Seconds to wait when there are too few, and nothing is taken; 0 when they were taken.
        """
        most = rate * _MINUTE_S
        held = most if self._rows is None else min(most, self._rows + max(0.0, now_s - self._filled_s) * rate)
        self._filled_s = now_s
        wanted = min(float(rows), most)
        taken = held >= wanted
        self._rows = held - wanted if taken else held
        return 0.0 if taken else (wanted - held) / rate
