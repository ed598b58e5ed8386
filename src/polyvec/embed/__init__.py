"""Embedders: text to vectors, from a local model, from OpenAI, or from hashes for tests."""

from polyvec.embed.base import BaseEmbedder, Embedder, Outcome, Usage
from polyvec.embed.factory import embedder
from polyvec.embed.prices import cost_usd

__all__ = ["BaseEmbedder", "Embedder", "Outcome", "Usage", "cost_usd", "embedder"]
