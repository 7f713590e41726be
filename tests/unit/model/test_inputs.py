"""What `inputs:` may declare: contradictions are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from guard.errors import ClientError
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.queries import Queries


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"low": (0.0, 1.0)}, "low has one value a feature, so size must be given"),
        ({"size": 3, "high": (0.0, 1.0)}, "high has 2 values for size 3"),
        ({"step": float("inf")}, "step must be finite"),
        ({"low": float("nan")}, "low must be finite"),
        ({"step": 0.0}, "step must be above 0"),
        ({"size": 2, "step": (1.0, -1.0)}, "step must be above 0"),
        ({"low": 1.0, "high": 1.0}, "low must be below high"),
        ({"size": 2, "low": (0.0, 5.0), "high": 4.0}, "low must be below high"),
        ({"kind": "text", "size": 3, "low": 0.0}, "size, low only fit kind: vector"),
    ],
)
def test_contradictions_are_named(declared: dict[str, Any], told: str) -> None:  # Any: decoded YAML
    with pytest.raises(ValidationError, match=told):
        Inputs.model_validate(declared)


def test_numbers_are_no_text_and_texts_are_bounded() -> None:
    with pytest.raises(ClientError, match="must be a text"):
        Inputs(kind="text").admit(Queries(1, [[1.0]]))
    with pytest.raises(ClientError, match="must have at most 3 characters"):
        Inputs(kind="text", max_chars=3).admit(Queries(2, ["abc", "abcd"]))
    assert Inputs(kind="text", max_chars=3).admit(Queries(1, ["abc"])) is None
    with pytest.raises(ClientError, match="must be a list of numbers"):
        Inputs(kind="vector").admit(Queries(1, ["abc"]))


def test_labels_accept_no_scores() -> None:
    assert not Outputs(kind="labels").accepts(np.array([[0.5, 0.5]]), complete=True, named=True)
