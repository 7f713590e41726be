"""What an attack is, and what it is given: the self-test's contracts.

Theory of operation. An attack is a small frozen dataclass: its fields are its parameters, its class variables say what
it threatens, where it was published and what it must reach on an undefended model. `run` gets a `World`: an API to ask
(the model itself, or the model behind Guard), what an outsider may know of the victim (`Knowledge`), and a judge that
holds the truth and is used to measure, never to attack. `run` returns an `Outcome` with one `Try` for each attacker
that it holds: the published one is `plain`, the others know the policy's source. Whoever reads an outcome takes the
strongest try for each metric.

A wrapper turns a world into another one (its API averages, splits accounts, hides among benign queries), so that every
wrapper goes with every attack. The same attack, seed and world give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from guard.selftest.measures import Floats, Ints, Measure, safer_higher, stronger

if TYPE_CHECKING:
    from guard.selftest.texts import Texts

Rows = Floats | Sequence[str]
"""Queries: numbers of shape (n, d), NaN for a feature that is left out, or n texts."""
Threat = Literal[
    "model extraction", "model inversion", "attribute inference", "membership inference", "evasion", "covert channel",
    "denoising", "memorization",
]  # fmt: skip


class Refused(Exception):
    """The API refused. An attacker goes on with what it has.

    Args:
        status: the HTTP status: 422 outside the domain, 429 a budget is spent, 403 denied, 413 too many rows at once.
        answers: scores of the rows that were answered before the refusal, shape (m, k).
    """

    def __init__(self, status: int, message: str = "", answers: Floats | None = None) -> None:
        super().__init__(f"{status}: {message}" if message else str(status))
        self.status = status
        self.message = message
        self.answers = answers


@runtime_checkable
class Api(Protocol):
    """The model as an outsider sees it. Rows go out in batches, in order."""

    def ask(self, x: Rows) -> Floats:
        """Return the scores of all rows, shape (n, k): the most detailed copy of them that an answer holds.

        A label alone reads as one-hot. A `value` model answers shape (n, 1).

        Raises:
            Refused: some row was refused; `answers` holds what came before.
        """
        ...

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers by name, shape (n, m) each: leaf counts, confidences, labels.

        Raises:
            Refused: some row was refused.
        """
        ...

    @property
    def asked(self) -> int:
        """Rows sent so far, refused ones too."""
        ...

    @property
    def tally(self) -> Tally:
        """What the answers were so far."""
        ...


_SURE = 20
"""Labels in a row before an outsider takes them for a step of the defence: a sure model answers some by itself."""


@dataclass(slots=True)
class Tally:
    """What an outsider can count.

    Args:
        graded: distinct queries answered with more than a label, by account.
        rows: rows answered.
        labels_since: number of the first of the labels that the answers end with; None when the last was graded.
        first_refusal_at: number of the first row refused for good (429, 403); None when never.
        first_denial_at: number of the first row refused with 403, which is a detection ladder's; None when never.
        refusals: refused requests by status.
    """

    graded: dict[str, int] = field(default_factory=dict[str, int])
    rows: int = 0
    labels_since: int | None = None
    first_refusal_at: int | None = None
    first_denial_at: int | None = None
    refusals: dict[int, int] = field(default_factory=dict[int, int])

    def answered(self, account: str, *, label: bool, seen: bool) -> None:
        """Count one row.

        Args:
            account: who asked.
            label: the answer was no more than a label.
            seen: the account was answered with more than a label for this query before.
        """
        self.rows += 1
        if label:
            self.labels_since = self.rows if self.labels_since is None else self.labels_since
            return
        self.labels_since = None
        if not seen:
            self.graded[account] = self.graded.get(account, 0) + 1

    @property
    def first_label_at(self) -> int | None:
        """Number of the row since which answers were labels only, after graded ones; None when that did not happen."""
        since = self.labels_since
        return since if since is not None and self.graded and self.rows - since >= _SURE else None


@dataclass(frozen=True)
class Knowledge:
    """What an outsider may know of a victim, and own.

    Args:
        name: the victim's name.
        kind: what a query is.
        size: features of a query; 0 for texts.
        classes: number of classes; 1 for a value.
        low: least value of each feature, shape (size,).
        high: greatest value, shape (size,).
        std: standard deviation of each feature in the attacker's data, shape (size,).
        own_x: the attacker's own data, from the model's distribution, none of it training data of the model.
        own_y: their true labels (columns, or values), shape (n,); None when unknown.
        extra: what single attacks need besides, by name (candidates for membership, records, foreign data, words).
    """

    name: str
    kind: Literal["vector", "text"]
    size: int
    classes: int
    low: Floats
    high: Floats
    std: Floats
    own_x: Rows
    own_y: Ints | Floats | None = None
    extra: Mapping[str, object] = field(default_factory=dict[str, object])


class Judge(Protocol):
    """Holds the truth: measures, and is never an attacker's oracle."""

    @property
    def test_x(self) -> Rows:
        """Held-out inputs that neither model nor attacker has seen."""
        ...

    @property
    def test_y(self) -> Ints | Floats | None:
        """Their true labels (columns, or values), when known."""
        ...

    def truth(self, x: Rows) -> Floats:
        """Return the undefended model's own scores, shape (n, k)."""
        ...

    def secret(self, name: str) -> object:
        """Return what only the model's owner knows: `members`, `class_means`, `weights`, `bits`.

        Raises:
            KeyError: the target has no such thing.
        """
        ...


@dataclass(frozen=True)
class World:
    """Everything one run of an attack has.

    Args:
        api: what is attacked.
        knows: what the attacker knows.
        judge: the truth, to measure with.
        seed: of every random draw.
        account: gives an API as seen by another account of the attacker; number 0 is `api`'s own.
        shadow: gives the attacker's own deployment of a lab model by name, behind the attacker's own Guard with the
            same policy but for budgets (undefended in the control); models are those of `guard.selftest.lab`.
        progress: told the share that is done, 0 to 1, and what is being done.
        pace: lets a day go by on Guard's clock; None where no clock can be turned.
        others: gives an API as a customer asks it who is not the attacker, by account number: no wrapper changes what
            other people ask. None where there are no other customers.
        clean: gives what a lab model of the attacker's own says before any defence, by name, where it stands behind
            `shadow`: a single model, or an ensemble as the policy's. None where there is no lab.
        texts: gives the API of a model that generates text as seen by an account, number 0 first. None where no text is
            generated.
    """

    api: Api
    knows: Knowledge
    judge: Judge
    seed: int
    account: Callable[[int], Api]
    shadow: Callable[[str], Api]
    progress: Callable[[float, str], None] = lambda share, what: None
    pace: Callable[[], None] | None = None
    others: Callable[[int], Api] | None = None
    clean: Callable[[str], Callable[[Rows], Floats]] | None = None
    texts: Callable[[int], Texts] | None = None

    def rng(self, purpose: str = "") -> np.random.Generator:
        """Return a generator of its own for each purpose, so that one draw more moves no other."""
        return np.random.default_rng([self.seed, *purpose.encode()])


@dataclass(frozen=True)
class Try:
    """One attacker's result.

    Args:
        how: which attacker: the fit, the guide, the wrapper.
        measures: by metric.
        plain: it is the published attack, which knows nothing of the policy.
    """

    how: str
    measures: Mapping[str, Measure]
    plain: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Args:
        tries: at least one.
        queries: rows that were asked.
        curve: (queries, value of the headline metric) along the way, ascending; may be empty.
        artefacts: what plots need, JSON-able: `roc` [[fpr, tpr], ...], `prototypes`
            {"shape": [8, 8], "recovered": [[..]], "truth": [[..]]}.
        notes: sentences for the report.
    """

    tries: Sequence[Try]
    queries: int
    curve: Sequence[tuple[int, float]] = ()
    artefacts: Mapping[str, object] = field(default_factory=dict[str, object])
    notes: Sequence[str] = ()

    def best(self, metric: str, *, plain: bool = False) -> Try:
        """Return the strongest try for a metric, among the plain ones if asked.

        Raises:
            KeyError: no such try measures it.
        """
        found = [t for t in self.tries if metric in t.measures and (t.plain or not plain)]
        if not found:
            raise KeyError(metric)
        best = found[0]
        for other in found[1:]:
            if stronger(metric, other.measures[metric].value, best.measures[metric].value):
                best = other
        return best


@dataclass(frozen=True)
class Criterion:
    """What an attack must reach on an undefended model before its other figures mean anything.

    Args:
        metric: which.
        bound: at most this for metrics that are safer when higher, at least this for the others.
    """

    metric: str
    bound: float

    def met(self, value: float) -> bool:
        """Say whether an undefended value is good enough.

        >>> Criterion("surrogate_l1", 0.005).met(0.0), Criterion("auc", 0.9).met(0.7)
        (True, False)
        """
        return value <= self.bound if safer_higher(self.metric) else value >= self.bound


class Unresolved(Exception):
    """An attack cannot run here: too few rows, no labels, no members. The row says why."""


class Attack(Protocol):
    """An attack. Implementations are frozen dataclasses whose fields are their parameters."""

    name: ClassVar[str]
    """As `--only` and gates call it."""
    title: ClassVar[str]
    """One line for people."""
    threat: ClassVar[Threat]
    atlas: ClassVar[str]
    """MITRE ATLAS technique, such as `AML.T0024.002`."""
    source: ClassVar[str]
    """Authors, title, venue, year, section."""
    published: ClassVar[str]
    """The figure its source reports, in one sentence."""
    victim: ClassVar[str]
    """The lab model it attacks by default."""
    metric: ClassVar[str]
    """The headline."""
    control: ClassVar[tuple[Criterion, ...]]
    """All of them must be met undefended."""
    helps: ClassVar[str]
    """What holds it where nothing here does, in one sentence."""
    needs: ClassVar[frozenset[str]]
    """What a target must offer: `vector`, `text`, `scores`, `value`, `own_labels`, `members`, `generation` (generated
    text), `lab` (knowledge that only lab victims have)."""
    floors: ClassVar[tuple[str, ...]]
    """Of `zero_query` and `label_only`."""

    def run(self, world: World) -> Outcome:
        """Attack.

        Raises:
            Unresolved: the world lacks what it needs.
        """
        ...


def parameters(attack: Attack) -> dict[str, object]:
    """Return an attack's parameters by name."""
    return asdict(attack) if is_dataclass(attack) and not isinstance(attack, type) else {}
