"""Which codec speaks which API; a codec's module is imported when a policy names it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from guard.wire.base import Codec, Reader

    class CodecClass:
        """A codec's constructor."""

        def __call__(self, reader: Reader) -> Codec:
            """Return the codec of a route; raises ValueError when `reader.select` cannot be used."""
            ...


_CLASSES = {
    "open_inference": "OpenInference",
    "kserve_v1": "KServeV1",
    "tensorflow_serving": "TensorFlowServing",
    "torchserve": "Torchserve",
    "mlflow": "Mlflow",
    "sagemaker": "Sagemaker",
    "huggingface": "Huggingface",
    "json": "JsonApi",
}
_MODULES = {"json": "json_api"}
API_NAMES: tuple[str, ...] = tuple(_CLASSES)
"""What `api:` may name, in the order of the docs."""


def codec_class(api: str) -> CodecClass:
    """Return the codec class of `api`.

    Raises:
        KeyError: no such API.
    """
    name = _CLASSES[api]
    return cast("CodecClass", getattr(import_module(f"guard.wire.{_MODULES.get(api, api)}"), name))
