"""vLLM's server: OpenAI's API, and beside it classify, score and rerank, and pooling.

Everything else that it has is closed: what turns texts to tokens and back, what loads adapters, profiles and sleeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guard.wire.openai import Openai
from guard.wire.openai_parts import Part
from guard.wire.openai_vectors import Embeddings
from guard.wire.vllm_scores import Classify, Pairs

_CLOSED_GET = ("/load", "/ping", "/server_info", "/is_sleeping", "/tokenizer_info")
_CLOSED_POST = (
    *("/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/pooling", "/invocations"),
    *("/start_profile", "/stop_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up"),
    *("/reset_prefix_cache", "/reset_mm_cache", "/collective_rpc", "/scale_elastic_ep", "/is_scaling_elastic_ep"),
    *("/inference/v1/generate", "/generate", "/abort_requests", "/pause", "/resume", "/update_weights"),
)


@dataclass(frozen=True)
class Vllm(Openai):
    """Codec of vLLM's API.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "vllm"
    closed_get: ClassVar[tuple[str, ...]] = (*Openai.closed_get, *_CLOSED_GET)
    closed_post: ClassVar[tuple[str, ...]] = (*Openai.closed_post, *_CLOSED_POST)

    def parts(self) -> dict[str, Part]:
        """Make the endpoints that answer the declared kind, by path."""
        found = super().parts()
        kind = self.reader.outputs.kind
        if kind == "embedding":
            found["/pooling"] = Embeddings(self.reader, "data")
        if kind in ("probabilities", "labels"):
            found["/classify"] = Classify(self.reader)
        if kind in ("probabilities", "value"):
            score, rerank = Pairs(self.reader, ranked=False), Pairs(self.reader, ranked=True)
            found |= dict.fromkeys(("/score", "/v1/score"), score)
            found |= dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), rerank)
        return found
