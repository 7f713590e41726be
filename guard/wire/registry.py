"""Which codec speaks which API; a codec's module is imported when a policy names it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from guard.wire.base import Codec, Reader

_CLASSES = {
    "open_inference": "OpenInference",
    "kserve_v1": "KServeV1",
    "tensorflow_serving": "TensorFlowServing",
    "torchserve": "Torchserve",
    "mlflow": "Mlflow",
    "sagemaker": "Sagemaker",
    "huggingface": "Huggingface",
    "openai": "Openai",
    "vllm": "Vllm",
    "ollama": "Ollama",
    "tgi": "Tgi",
    "tei": "Tei",
    "json": "JsonApi",
}
_MODULES = {"json": "json_api"}
TEXT_APIS: frozenset[str] = frozenset({"openai", "vllm", "ollama", "tgi", "tei"})
"""Those of language models, whose requests have parameters that a policy may bound."""
API_NAMES: tuple[str, ...] = tuple(_CLASSES)
"""What `api:` may name, in the order of the docs."""


def codec_class(api: str) -> Callable[[Reader], Codec]:
    """Return the codec class of `api`; calling it raises ValueError when the route's `select` cannot be used.

    Raises:
        KeyError: no such API.
    """
    name = _CLASSES[api]
    return cast("Callable[[Reader], Codec]", getattr(import_module(f"guard.wire.{_MODULES.get(api, api)}"), name))
