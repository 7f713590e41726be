"""What every defence promises: one suite for all that are registered, with no line for any of them.

Specs are made from their own JSON Schema: required fields take their first example; every choice and switch is tried.
What learns from calibration answers is given some.

A mechanism of differential privacy (`spends`) has a contract of its own where the others keep the model's label, take
what a step before them has truncated, and pass over routes without scores: it changes labels on purpose, it stands
first, and without scores it protects nothing. One that looks at generated text (`TextDefence`) leaves scores as they
are, and has laws of its own about text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from guard.defences import DEFENCES
from guard.defences.base import (
    DROPPED_LOGPROB,
    Batch,
    Cleared,
    Defence,
    Randomness,
    Scanner,
    TextDefence,
    drop,
    has_classes,
)
from guard.defences.dp_gaussian import DpGaussian
from guard.defences.mechanism import Mechanism
from guard.errors import InvariantError, UpstreamError
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.outputs import CLASS_KINDS, Kind
from guard.policy.schema import AnyDefence
from guard.privacy.events import parse, text
from guard.privacy.filters import MOST, choose
from tests.support.generated import Word
from tests.support.mechanisms import Cryptographic, outputs_of
from tests.support.randomness import Seeded
from tests.support.scanning import SAID, keep_laws

ALL_KINDS: tuple[Kind, ...] = ("probabilities", "logits", "logprobs", "value", "embedding", "labels")
SIZES = [(0, 3), (1, 1), (1, 2), (1, 1000), (3, 1), (17, 2), (64, 10), (5, 1000)]
INPUTS = Inputs(kind="vector", size=4, low=0, high=1, step=0.01)


def variants(kind: str) -> Iterator[Defence]:
    """Make a spec of each set of required fields, and one more for each other choice that a field offers."""
    spec = DEFENCES[kind]
    schema: dict[str, Any] = spec.model_json_schema()  # Any: JSON Schema
    fields = cast("dict[str, dict[str, Any]]", schema["properties"])
    required: dict[str, Any] = {}
    for way in schema.get("oneOf", [{}]):
        names = (*schema.get("required", ()), *way.get("required", ()))
        required = {name: fields[name]["examples"][0] for name in names}
        yield spec.model_validate({"kind": kind, **required})
    for name, field in fields.items():
        choices = [True, False] if field.get("type") == "boolean" else field.get("enum", [])
        for choice in choices:
            if name != "mode" and choice != field.get("default"):
                yield spec.model_validate({"kind": kind, **required, name: choice})


def batches(spec: Defence) -> Iterator[Batch]:
    """Make batches of every kind that it suits: plain, coarse (many ties), truncated, and certain."""
    generator = np.random.default_rng(7)
    for kind in ALL_KINDS:
        if kind not in spec.suits or kind == "labels":
            continue
        for n, k in SIZES:
            plain = generator.dirichlet(np.full(k, 0.5), n).reshape(n, k)
            coarse = np.rint(plain * 4) / 4 if kind != "probabilities" else generator.multinomial(4, [1 / k] * k, n) / 4
            certain = np.eye(k)[generator.integers(k, size=n)].reshape(n, k)
            for scores, complete in (
                (plain, True),
                (coarse, True),
                (certain, True),
                (plain[:, : max(k // 2, 1)], False),
            ):
                if spec.spends and not complete:
                    continue  # refused, see `takes_whole_distributions_only`
                if spec.spends and kind == "value" and k > 1:
                    continue  # a value is one number
                if kind == "logprobs":
                    yield batch(np.maximum(np.log(scores + 1e-300), -600.0), kind, complete=complete)
                elif kind == "probabilities":
                    yield batch(scores, kind, complete=complete and k > 1)
                else:
                    yield batch(scores * 20 - 10, kind, complete=complete)


def batch(scores: np.ndarray[Any, np.dtype[np.float64]], kind: Kind, *, complete: bool) -> Batch:
    top = scores.argmax(axis=1)
    scores = scores.copy()
    scores.flags.writeable = False
    return Batch(scores, top, kind, complete)


def run(spec: Defence, before: Batch, seed: int = 0) -> Batch:
    return ready(spec, before).apply(before, Seeded(len(before.scores), seed), b"0.0")


def ready(spec: Defence, before: Batch) -> Defence:
    """Bind a mechanism to a route that answers such batches; show what learns from calibration answers a few."""
    columns = before.scores.shape[1]
    if isinstance(spec, Mechanism):
        return bound(spec, before.kind, columns)
    return calibrated(spec, max(columns, 2)) if spec.calibrates else spec


@cache
def calibrated(spec: Defence, columns: int) -> Defence:
    return spec.calibrated(answers_of(columns))


def answers_of(columns: int) -> Floats:
    return np.random.default_rng(9).dirichlet(np.full(columns, 0.5), 60)


@cache
def bound(spec: Mechanism, kind: Kind, columns: int) -> Mechanism:
    return spec.bind(outputs_of(kind, columns), 1, columns)


def keeps_shape_and_type(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            after = run(spec, before)
            assert after.scores.shape == before.scores.shape
            assert after.scores.dtype == np.float64
            assert after.top.shape == before.top.shape
            assert after.kind == before.kind


def changes_no_argument(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):  # whose scores are read-only
            top = before.top.copy()
            run(spec, before)
            assert np.array_equal(before.top, top)


def hands_on_its_own_argmax(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            after = run(spec, before)
            if has_classes(before.kind):
                assert np.array_equal(after.scores.argmax(axis=1), after.top), (spec, before)


def keeps_the_argmax_unless_told_otherwise(kind: str) -> None:
    for spec in variants(kind):
        if getattr(spec, "keep_argmax", True):
            for before in batches(spec):
                assert np.array_equal(run(spec, before).top, before.top)


def answers_finite_numbers(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            after = run(spec, before).scores
            assert np.isfinite(after).all()
            if before.kind == "probabilities":
                assert after.min(initial=0.0) >= 0
                assert after.max(initial=0.0) <= 1 + 1e-9
            if before.kind == "logprobs":
                assert after.max(initial=-1.0) <= 0


def is_a_function_of_its_arguments(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            one, other = run(spec, before), run(spec, before)
            assert np.array_equal(one.scores, other.scores)
            assert spec.random or np.array_equal(one.scores, run(spec, before, seed=1).scores)


def treats_rows_independently(kind: str) -> None:
    for spec in variants(kind):
        if spec.random:
            continue  # the rows' noise is QueryNoise's promise, and tested there
        for before in batches(spec):
            after = run(spec, before).scores
            for i in range(min(len(after), 5)):
                alone = Batch(before.scores[i : i + 1], before.top[i : i + 1], before.kind, before.complete)
                assert np.array_equal(run(spec, alone).scores[0], after[i])


def marks_dropped_scores_as_the_least(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            after = run(spec, before)
            if after.kept is not None:
                assert (after.scores[~after.kept] == dropped(before.kind)).all()
                assert after.kept[np.arange(len(after.top)), after.top].all()


def dropped(kind: Kind) -> float:
    return DROPPED_LOGPROB if kind == "logprobs" else 0.0


def works_on_a_truncated_batch(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            k = before.scores.shape[1]
            if before.kind in ("probabilities", "logprobs") and k > 2:
                kept = before.scores >= np.partition(before.scores, k - 2, axis=1)[:, k - 2, None]
                cut = Batch(drop(before.scores, kept, before.kind), before.top, before.kind, False, kept)
                after = run(spec, cut)
                assert after.kept is not None
                assert not (after.kept & ~kept).any()
                assert (after.scores[~kept] == dropped(before.kind)).all()
                assert np.array_equal(after.scores.argmax(axis=1), after.top)


def rejects_kinds_that_it_does_not_suit(kind: str) -> None:
    for spec in variants(kind):
        for outputs_kind in ALL_KINDS:
            outputs = outputs_of(outputs_kind, 2)
            problems = spec.check(outputs, INPUTS)
            assert bool(problems) == (outputs_kind not in spec.suits)
            assert all(p.message and p.hint and p.path for p in problems)


def suits_routes_that_answer_labels(kind: str) -> None:
    # But for what is about no classes, and what would be relied on to change labels, which it does by their scores.
    spec = DEFENCES[kind]
    serves = bool(spec.suits & CLASS_KINDS) and getattr(spec, "keep_argmax", True)
    assert ("labels" in spec.suits) == serves


def learns_from_calibration_answers_alone(kind: str) -> None:
    for spec in variants(kind):
        answers = answers_of(3)
        answers.flags.writeable = False
        learnt = spec.calibrated(answers)
        assert learnt.model_dump() == spec.model_dump()
        if not spec.calibrates:
            assert learnt is spec
            continue
        for before in batches(spec):
            if before.scores.shape[1] == 3:
                first = run_with(learnt, before)
                run_with(learnt, before._replace(scores=before.scores[::-1], top=before.top[::-1]))
                assert np.array_equal(first, run_with(learnt, before))
                assert np.array_equal(first, run_with(spec.calibrated(answers), before))


def run_with(spec: Defence, before: Batch) -> Floats:
    return spec.apply(before, Seeded(len(before.scores)), b"0.0").scores


def round_trips_through_yaml(kind: str) -> None:
    adapter: TypeAdapter[Defence] = TypeAdapter(AnyDefence)
    for spec in variants(kind):
        assert spec.kind == kind
        assert adapter.validate_python(spec.model_dump()) == spec
        assert adapter.validate_json(spec.model_dump_json()) == spec


def refuses_unknown_fields(kind: str) -> None:
    for spec in variants(kind):
        with pytest.raises(ValidationError, match="surprise"):
            type(spec).model_validate({**spec.model_dump(), "surprise": 1})


def is_frozen(kind: str) -> None:
    for spec in variants(kind):
        with pytest.raises(ValidationError, match="frozen"):
            spec.__setattr__("mode", "shadow")


def says_what_it_costs_and_where_it_fails(kind: str) -> None:
    text = DEFENCES[kind].__doc__ or ""
    assert "Costs:" in text
    assert "Does nothing" in text
    assert "Source:" in text


def runs_only_once_it_is_bound(kind: str) -> None:
    for spec in mechanisms(kind):
        before = next(batches(spec))
        with pytest.raises(InvariantError):
            spec.apply(before, Cryptographic(), b"")
        assert ready(spec, before) is not spec


def draws_anew_from_the_cryptographic_source_alone(kind: str) -> None:
    for spec in mechanisms(kind):
        before = batch(np.full((400, 3), 1 / 3), "probabilities", complete=True)
        one, other = (ready(spec, before).apply(before, Cryptographic(), b"").scores for _ in range(2))
        assert not np.array_equal(one, other)
        # Equal rows of one batch are as independent as two calls.
        assert len(np.unique(one, axis=0)) > 1


def releases_distributions(kind: str) -> None:
    for spec in mechanisms(kind):
        for before in batches(spec):
            if before.kind == "probabilities":
                after = run(spec, before).scores
                assert after.sum(axis=1) == pytest.approx(np.ones(len(after)), abs=1e-9)


def forgets_the_exact_scores(kind: str) -> None:
    for spec in mechanisms(kind):
        forgets(spec)


def forgets(spec: Defence) -> None:
    """Check that no score survives, nor a bit below the grid: with equal draws, what rounds alike is released alike."""
    for before in batches(spec):
        after = run(spec, before).scores
        exact = np.isin(after, before.scores) & ~np.isin(after, (0.0, 1.0, -10.0, 10.0))
        assert not exact.any(), spec
        near = before._replace(scores=np.nextafter(before.scores, 0.5))
        assert np.array_equal(run(spec, near).scores, after), spec


def costs_what_a_ledger_can_keep(kind: str) -> None:
    for spec in mechanisms(kind):
        for before in batches(spec):
            event = cast("Mechanism", ready(spec, before)).event()
            assert parse(text(event)) == event
            filter_ = choose([event], 8.0, 1e-6, before.scores.shape[1])
            assert 0 < filter_.cost(event) <= MOST


def takes_whole_distributions_only(kind: str) -> None:
    for spec in mechanisms(kind):
        whole = batch(np.full((2, 4), 0.25), "probabilities", complete=True)
        mechanism = ready(spec, whole)
        for part in (
            whole._replace(complete=False),
            whole._replace(kept=whole.scores > 1),
            batch(np.full((2, 2), 0.5), "probabilities", complete=True),
        ):
            with pytest.raises(UpstreamError):
                mechanism.apply(part, Cryptographic(), b"")


def does_not_suit_routes_that_answer_labels(kind: str) -> None:
    for spec in mechanisms(kind):
        assert "labels" not in spec.suits
        assert not spec.coarsens  # or what follows it would be told to go before


def mechanisms(kind: str) -> Iterator[Mechanism]:
    for spec in variants(kind):
        assert isinstance(spec, Mechanism)
        yield spec


KEEPING: list[Callable[[str], None]] = [
    keeps_the_argmax_unless_told_otherwise,
    works_on_a_truncated_batch,
    suits_routes_that_answer_labels,
    learns_from_calibration_answers_alone,
]
SPENDING: list[Callable[[str], None]] = [
    runs_only_once_it_is_bound,
    draws_anew_from_the_cryptographic_source_alone,
    releases_distributions,
    forgets_the_exact_scores,
    costs_what_a_ledger_can_keep,
    takes_whole_distributions_only,
    does_not_suit_routes_that_answer_labels,
]
CHECKS: list[Callable[[str], None]] = [
    keeps_shape_and_type,
    changes_no_argument,
    hands_on_its_own_argmax,
    answers_finite_numbers,
    is_a_function_of_its_arguments,
    treats_rows_independently,
    marks_dropped_scores_as_the_least,
    rejects_kinds_that_it_does_not_suit,
    round_trips_through_yaml,
    refuses_unknown_fields,
    is_frozen,
    says_what_it_costs_and_where_it_fails,
]


def leaves_scores_alone(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            assert run(spec, before) is before
        assert not spec.random
        assert not spec.coarsens
        assert spec.suits == {"logprobs"}


def keeps_the_laws_of_scanners(kind: str) -> None:
    for spec in variants(kind):
        assert isinstance(spec, TextDefence)
        for before in ("", "my key is AKIAIOSF", "Pay with 4111 1111"):
            keep_laws(spec, SAID, before)


def takes_something_out_and_leaves_the_rest(kind: str) -> None:
    spec = next(variants(kind))
    assert isinstance(spec, TextDefence)
    assert spec.scanner("").feed(SAID, last=True).redacted
    plain = "Nothing of this need be hidden: 3 eggs, a pint of milk, and flour.\n"
    assert spec.scanner("").feed(plain, last=True) == Cleared(plain, len(plain))


TEXTS: list[Callable[[str], None]] = [
    leaves_scores_alone,
    keeps_the_laws_of_scanners,
    takes_something_out_and_leaves_the_rest,
    learns_from_calibration_answers_alone,
]


def checks(kind: str) -> list[Callable[[str], None]]:
    spec = DEFENCES[kind]
    return CHECKS + (TEXTS if issubclass(spec, TextDefence) else SPENDING if spec.spends else KEEPING)


@pytest.mark.parametrize(
    ("kind", "check"), [pytest.param(k, c, id=f"{k}:{c.__name__}") for k in DEFENCES for c in checks(k)]
)
def test_defence(kind: str, check: Callable[[str], None]) -> None:
    check(kind)


class Leaking(DpGaussian, frozen=True):
    """A faulty mechanism: noise on the grid, and scores that are not."""

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        after = super().draw(self.grid.scores(self.grid.snap(scores)), batch, rng).scores
        return Batch(np.clip(after + scores * 1e-9, 0, 1), after.argmax(axis=1), batch.kind)


def test_a_mechanism_that_leaks_bits_below_its_grid_is_caught() -> None:
    with pytest.raises(AssertionError):
        forgets(Leaking(noise_multiplier=20.0))


def test_the_toy_scanner_of_the_tests_keeps_the_laws() -> None:
    for spec in (Word(), Word(redaction=""), Word(ends=True)):
        keep_laws(spec, "a SECRE SECRET SECSECRETS\N{EURO SIGN} SECRET", "the SEC")


class Hasty(Word, frozen=True):
    """A faulty text defence: it looks at each piece by itself."""

    def scanner(self, before: str) -> Scanner:
        del before
        return HastyScanner()


class HastyScanner:
    def __init__(self) -> None:
        self.fed = 0

    def feed(self, text: str, *, last: bool) -> Cleared:
        begin, self.fed = self.fed, self.fed + len(text)
        found = text.find("SECRET")
        spans = () if found < 0 else ((begin + found, begin + found + 6),)
        return Cleared(text.replace("SECRET", "[-]"), self.fed, spans)

    def completes(self, token: str) -> bool:
        return token == "SECRET"


def test_a_scanner_that_is_blind_between_pieces_is_caught() -> None:
    with pytest.raises(AssertionError):
        keep_laws(Hasty(), "a SECRET b", "")
