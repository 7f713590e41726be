"""Remakes the scores that `guard budget plan` tries a plan on when it is given none.

`python -m tests.support.default_scores > guard/privacy/default_scores.json`; a test holds the file against this. A
softmax regression, as the lab's digits model is, learns half of scikit-learn's digits and answers 250 others.
"""

from __future__ import annotations

import json
import sys

from guard.selftest.lab.data import digits, thirds, untyped
from guard.selftest.measures import Floats

ROWS = 250
DECIMALS = 4
ABOUT = (
    "answers of a softmax regression (scikit-learn, C = 0.01) that learned half of the UCI handwritten digits, to 250"
    " images that it has not seen; made by tests/support/default_scores.py"
)


def scores() -> Floats:
    """Return the model's answers, shape (250, 10)."""
    images, labels = digits()
    train, _, held_out = thirds(len(images), seed=0)
    model = untyped("sklearn.linear_model").LogisticRegression(C=0.01, max_iter=2000)
    model.fit(images[train], labels[train])
    answers: Floats = model.predict_proba(images[held_out[:ROWS]]).round(DECIMALS)
    return answers


def text() -> str:
    """Return the file."""
    rows = ",\n".join(json.dumps(row) for row in scores().tolist())
    return f'{{"about": {json.dumps(ABOUT)},\n"scores": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    sys.stdout.write(text())
