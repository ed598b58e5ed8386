"""What embedding costs: the list prices of OpenAI, at the date below.

From the page of each model, e.g. https://developers.openai.com/api/docs/models/text-embedding-3-large. Prices
change, and contracts differ: an amount computed here is an estimate.
"""

from __future__ import annotations

from typing import Final

from polyvec.types import EmbeddingSpace

DATE: Final = "2026-11-25"
"""When the prices were looked up."""

USD_PER_MILLION_TOKENS: Final = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}

BATCH_DISCOUNT: Final = 0.5
"""The Batch API costs half: https://developers.openai.com/api/docs/guides/batch."""

_FREE: Final = frozenset({"local", "hash"})


def cost_usd(space: EmbeddingSpace, tokens: int, *, batch: bool = False) -> float | None:
    """Return what it costs to embed so many tokens, in US dollars; None where no price is known.

    Args:
        space: Of the embedder (`embedder.space`); a model on this machine costs nothing.
        tokens: Of the texts to embed.
        batch: Through the Batch API.
    """
    if space.provider in _FREE:
        return 0.0
    price = USD_PER_MILLION_TOKENS.get(space.model) if space.provider == "openai" else None
    if price is None:
        return None
    return price * (BATCH_DISCOUNT if batch else 1.0) * tokens / 1_000_000
