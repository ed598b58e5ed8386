"""A deterministic embedder without a model: for tests, and to try things out.

Texts that share words, or parts of words, are near each other; it knows nothing of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final
from unicodedata import normalize

import numpy as np

from polyvec.embed.base import BaseEmbedder
from polyvec.errors import ConfigurationError
from polyvec.types import EmbeddingSpace, FloatArray

_WORD: Final = re.compile(r"\w+")
_WORD_WEIGHT: Final = 3.0
_TRIGRAM: Final = 3


class HashEmbedder(BaseEmbedder):
    """Adds up a pseudo-random sign for each word and each three letters of a text, one dimension each.

    Equal on every machine and version of Python; of length 1, also for an empty text.
    """

    max_tokens = 8191
    batch_size = 512

    def __init__(self, dimensions: int = 256) -> None:
        super().__init__()
        if dimensions < 1:
            raise ConfigurationError(f"hash: dimensions must be at least 1, not {dimensions}")
        self._space = EmbeddingSpace("hash", "words-trigrams-v1", dimensions)

    @property
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`."""
        return self._space

    def _do_embed(self, texts: list[str]) -> FloatArray:
        self._count(requests=1)
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> FloatArray:
        vector = np.zeros(self._space.dimensions, np.float64)
        for feature, weight in _features(text):
            digest = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")
            vector[(digest >> 1) % len(vector)] += weight if digest & 1 else -weight
        if not vector.any():  # no words, or features that cancel each other
            vector[0] = 1.0
        unit: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(normalize("NFKC", text).casefold()):
        yield f"w{word}", _WORD_WEIGHT
        padded = f" {word} "
        for start in range(len(padded) - _TRIGRAM + 1):
            yield f"t{padded[start : start + _TRIGRAM]}", 1.0
