"""The digits handler that `tests/recorded/torchserve` was recorded with: an object of label and probability a row.

A body `{"instance": [...]}` or a bare list of 64 pixels is answered with one object, `{"instances": [[...], ...]}` with
a list of objects.
"""

import json
from typing import Any

import torch
from ts.torch_handler.base_handler import BaseHandler


class DigitsHandler(BaseHandler):
    """Scores one request's rows; TorchServe calls the three steps of its base class in turn."""

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        """Read the one request of the batch (batch size 1)."""
        body = data[0].get("data") or data[0].get("body")
        if isinstance(body, bytes | bytearray):
            body = json.loads(body)
        self.one = not (isinstance(body, dict) and "instances" in body)
        if isinstance(body, dict):
            body = body["instance"] if self.one else body["instances"]
        return torch.tensor([body] if self.one else body, dtype=torch.float32)

    def postprocess(self, data: torch.Tensor) -> list[Any]:
        """Name the classes."""
        rows = [{str(label): float(score) for label, score in enumerate(row)} for row in data]
        return rows if self.one else [rows]
