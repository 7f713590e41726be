from __future__ import annotations

import numpy as np
import pytest

from guard.engine.margins import margins
from guard.model.outputs import Kind


@pytest.mark.parametrize("kind", ["probabilities", "logits", "logprobs"])
def test_one_row_is_as_one_of_many(kind: Kind) -> None:
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.ones(7), 40)
    scores = scores if kind == "probabilities" else np.log(scores) + (3.0 if kind == "logits" else 0.0)
    scores[3, 2] = np.nan
    scores[5, 0] = np.inf
    single = [found for row in scores if (found := margins(kind, row[None])) is not None]
    together = margins(kind, scores)
    assert together is not None
    np.testing.assert_allclose(np.concatenate(single), together, atol=1e-12)
    assert len(together) == 38


def test_a_margin_is_of_probabilities() -> None:
    found = margins("logits", np.array([[9.0, 0.0], [1.0, 1.0]]))
    assert found is not None
    assert found[0] > 0.99
    assert found[1] == 0


@pytest.mark.parametrize(("kind", "columns"), [("value", 1), ("embedding", 5), ("labels", 2), ("probabilities", 1)])
def test_other_answers_have_none(kind: Kind, columns: int) -> None:
    assert margins(kind, np.ones((2, columns))) is None
