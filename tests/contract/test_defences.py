"""What every defence promises: one suite for all that are registered, with no line for any of them.

Specs are made from their own JSON Schema: required fields take their first example; every choice and switch is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from guard.defences import DEFENCES
from guard.defences.base import Batch, Defence, has_classes
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs
from guard.policy.schema import AnyDefence
from tests.support.randomness import Seeded

ALL_KINDS: tuple[Kind, ...] = ("probabilities", "logits", "logprobs", "value", "embedding", "labels")
SIZES = [(0, 3), (1, 1), (1, 2), (1, 1000), (3, 1), (17, 2), (64, 10), (5, 1000)]
INPUTS = Inputs(kind="vector", size=4, low=0, high=1, step=0.01)


def variants(kind: str) -> Iterator[Defence]:
    """Make a spec of its required fields, and one more for each other choice that a field offers."""
    spec = DEFENCES[kind]
    schema: dict[str, Any] = spec.model_json_schema()  # Any: JSON Schema
    fields = cast("dict[str, dict[str, Any]]", schema["properties"])
    required = {name: fields[name]["examples"][0] for name in schema.get("required", ())}
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
    return spec.apply(before, Seeded(len(before.scores), seed), b"0.0")


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


def marks_dropped_scores_as_zero(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            after = run(spec, before)
            if after.kept is not None:
                assert not after.scores[~after.kept].any()
                assert after.kept[np.arange(len(after.top)), after.top].all()


def works_on_a_truncated_batch(kind: str) -> None:
    for spec in variants(kind):
        for before in batches(spec):
            k = before.scores.shape[1]
            if before.kind == "probabilities" and k > 2:
                kept = before.scores >= np.partition(before.scores, k - 2, axis=1)[:, k - 2, None]
                cut = Batch(before.scores * kept, before.top, before.kind, False, kept)
                after = run(spec, cut)
                assert after.kept is not None
                assert not (after.kept & ~kept).any()
                assert not after.scores[~kept].any()
                assert np.array_equal(after.scores.argmax(axis=1), after.top)


def rejects_kinds_that_it_does_not_suit(kind: str) -> None:
    for spec in variants(kind):
        for outputs_kind in ALL_KINDS:
            outputs = Outputs(kind=outputs_kind, classes=("a", "b"))
            problems = spec.check(outputs, INPUTS)
            assert bool(problems) == (outputs_kind not in spec.suits)
            assert all(p.message and p.hint and p.path for p in problems)


def suits_routes_that_answer_labels(kind: str) -> None:
    assert "labels" in DEFENCES[kind].suits


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


CHECKS: list[Callable[[str], None]] = [
    keeps_shape_and_type,
    changes_no_argument,
    hands_on_its_own_argmax,
    keeps_the_argmax_unless_told_otherwise,
    answers_finite_numbers,
    is_a_function_of_its_arguments,
    treats_rows_independently,
    marks_dropped_scores_as_zero,
    works_on_a_truncated_batch,
    rejects_kinds_that_it_does_not_suit,
    suits_routes_that_answer_labels,
    round_trips_through_yaml,
    refuses_unknown_fields,
    is_frozen,
    says_what_it_costs_and_where_it_fails,
]


@pytest.mark.parametrize(
    ("kind", "check"), [pytest.param(k, c, id=f"{k}:{c.__name__}") for k in DEFENCES for c in CHECKS]
)
def test_defence(kind: str, check: Callable[[str], None]) -> None:
    check(kind)
