"""What an embedder is, and what all of ours have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, final, runtime_checkable

import numpy as np

from polyvec.errors import BackendError, InvalidInputError, shown
from polyvec.tokenizer import repair
from polyvec.types import EmbeddingSpace, FloatArray


@dataclass(slots=True)
class Usage:
    """What an embedder has done since it was made.

    Attributes:
        texts: Texts embedded, queries included.
        tokens: Tokens as the provider counts (and bills) them; 0 where it does not count.
        requests: Calls to the model that succeeded.
    """

    texts: int = 0
    tokens: int = 0
    requests: int = 0


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one embedding space. Thread-safe; a context manager that closes it."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of its vectors: kept with a collection, which then takes no others."""

    @property
    def max_tokens(self) -> int:
        """Most tokens (cl100k_base) of a text that one vector represents well."""

    @property
    def batch_size(self) -> int:
        """How many texts at once are worth while; more or fewer are no error."""

    @property
    def usage(self) -> Usage:
        """What it has done so far."""

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts to be found, shape (n, d), float32, in the order of the texts.

        Any text has a vector: also an empty one, one that is too long, one with lone surrogates.

        Raises:
            BackendError: The model refused or failed. No text can have been the reason of an
                `AuthenticationError`, a `RateLimitedError`, a `BackendUnavailableError` or a
                `BackendTimeoutError`.
            MissingDriverError: The model's package is not installed.
        """

    def embed_query(self, text: str) -> FloatArray:
        """Return the vector of a text to search with, shape (d,); see `embed_documents`."""

    def close(self) -> None:
        """Release connections and memory; calling it again is no error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class BaseEmbedder(ABC):
    """How embedders are written: the public methods, done once, over `_do_embed`."""

    max_tokens: int
    batch_size: int

    def __init__(self) -> None:
        self.usage = Usage()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<embedder {self.space}>"

    @property
    @abstractmethod
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`."""

    @abstractmethod
    def _do_embed(self, texts: list[str]) -> Any:
        """Return vectors of shape (n, d) of at least one text, none of them with a lone surrogate.

        Each call to the model is reported to `_count`.
        """

    @final
    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """See `Embedder.embed_documents`."""
        if isinstance(texts, str):
            raise InvalidInputError(f"texts must be a list of texts, not one str; write [{shown(texts)}]")
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInputError(f"a text must be a str, not {type(text).__name__} ({shown(text)})")
        if not len(texts):
            return np.empty((0, self.space.dimensions), np.float32)
        vectors = self._check(self._do_embed([repair(text) for text in texts]), len(texts))
        self._count(texts=len(texts))
        return vectors

    @final
    def embed_query(self, text: str) -> FloatArray:
        """See `Embedder.embed_query`."""
        vector: FloatArray = self.embed_documents([text])[0]
        return vector

    def close(self) -> None:  # noqa: B027  # nothing to release, unless an embedder says otherwise
        """See `Embedder.close`."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, *, texts: int = 0, tokens: int = 0, requests: int = 0) -> None:
        with self._lock:
            self.usage.texts += texts
            self.usage.tokens += tokens
            self.usage.requests += requests

    def _check(self, vectors: Any, count: int) -> FloatArray:
        array = np.ascontiguousarray(vectors, np.float32)
        expected = (count, self.space.dimensions)
        if array.shape != expected:
            raise BackendError(f"expected vectors of shape {expected}, got {array.shape}")
        with np.errstate(invalid="ignore"):
            total = array.sum(dtype=np.float64)
        if not np.isfinite(total):  # a sum is finite only where all summands are
            row = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise BackendError(f"the vector of text {row} holds NaN or infinity")
        return array
