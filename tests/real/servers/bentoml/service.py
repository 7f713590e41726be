"""A digits service of BentoML: what `tests/recorded/bentoml` came from.

    bentoml serve service:Digits --host 127.0.0.1 --port PORT

`classify` answers an array at the root, `classify_json` a list of objects.
"""

import bentoml
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


@bentoml.service(traffic={"timeout": 10}, workers=1)
class Digits:
    """Scores digits with the same classifier as the other servers'."""

    def __init__(self) -> None:
        pixels, labels = load_digits(return_X_y=True)
        rows, _, truth, _ = train_test_split(pixels / 16.0, labels, test_size=0.5, random_state=0, stratify=labels)
        self.classifier = LogisticRegression(max_iter=2000).fit(rows, truth)

    @bentoml.api
    def classify(self, x: np.ndarray) -> np.ndarray:
        """Answer ten probabilities a row."""
        return self.classifier.predict_proba(x)

    @bentoml.api(batchable=True)
    def classify_json(self, rows: list[list[float]]) -> list[dict]:
        """Answer an object a row."""
        scores = self.classifier.predict_proba(np.array(rows))
        return [{"label": int(row.argmax()), "probabilities": row.tolist()} for row in scores]
