"""What an embedder is, and what all of ours have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar, final, runtime_checkable

import numpy as np

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
    shown,
)
from polyvec.tokenizer import repair
from polyvec.types import EmbeddingSpace, FloatArray

T = TypeVar("T")

Outcome: TypeAlias = FloatArray | PolyvecError
"""What became of one text: its vector, shape (d,), or why it has none."""

NO_TEXT_IS_THE_REASON: Final = (
    AuthenticationError, RateLimitedError, BackendUnavailableError, BackendTimeoutError, ConfigurationError,
)  # fmt: skip
"""Errors that the next text would meet, too."""

_HARMLESS: Final = "hello"


@dataclass(slots=True)
class Usage:
    """What an embedder has done since it was made.

    Attributes:
        texts: Texts embedded, queries included.
        tokens: Tokens as the provider counts (and bills) them; 0 where it does not count.
        requests: Calls to the model that succeeded.
        cached: Texts whose vector a cache had; they are not among `texts`.
    """

    texts: int = 0
    tokens: int = 0
    requests: int = 0
    cached: int = 0


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

    def embed_stream(self, texts: Iterable[str]) -> Iterator[Outcome]:
        """Yield for each text its vector, shape (d,), or the error that it caused; in the order of the texts.

        This is how many texts are embedded: requests are filled to the provider's limits whatever the length
        of the texts, several of them are under way at once, and memory is bounded, so `texts` may be endless.
        It is read in the calling thread, while the iterator is, and ahead of what has been yielded: by a few
        requests. So remember the order of what you passed in:

            waiting = deque()
            def texts():
                for piece in pieces:
                    waiting.append(piece)
                    yield piece.text
            for outcome in embedder.embed_stream(texts()):
                piece = waiting.popleft()

        A text that the model refuses costs no other text its vector. Closing the iterator, or an exception of
        `texts`, ends it: requests under way are waited for, no further one is begun.

        Raises:
            PolyvecError: One that no text is the reason of (see `embed_documents`), or that a harmless text
                meets, too. What had been asked for and was not yielded yet is lost.
        """

    def uncached(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that the model would be asked for: all, unless there is a cache that has some."""

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
    variant: str = ""
    """What beside the space decides on the vector of a text; a cache keeps variants apart."""

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
        checked = list(_checked(texts))
        if not checked:
            return np.empty((0, self.space.dimensions), np.float32)
        return self._embed(checked)

    @final
    def embed_stream(self, texts: Iterable[str]) -> Iterator[Outcome]:
        """See `Embedder.embed_stream`."""
        return self._do_stream(_checked(texts))

    def _do_stream(self, texts: Iterator[str]) -> Iterator[Outcome]:
        """Yield the outcomes of texts, none of them with a lone surrogate; `batch_size` at once."""
        while batch := list(islice(texts, self.batch_size)):
            yield from isolate(batch, self._embed, self._probe)

    def uncached(self, texts: Sequence[str]) -> list[str]:
        """See `Embedder.uncached`."""
        return list(texts)

    @final
    def embed_query(self, text: str) -> FloatArray:
        """See `Embedder.embed_query`."""
        [checked] = _checked([text])
        vector: FloatArray = self._check(self._do_embed_query(checked), 1)[0]
        self._count(texts=1)
        return vector

    def _do_embed_query(self, text: str) -> Any:
        """Return the vector of a text to search with, shape (1, d); the same as of one to be found."""
        return self._do_embed([text])

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

    def _embed(self, texts: list[str]) -> FloatArray:
        vectors = self._check(self._do_embed(texts), len(texts))
        self._count(texts=len(texts))
        return vectors

    def _probe(self) -> None:
        """Embed a text that is not the reason of any error."""
        self._check(self._do_embed([_HARMLESS]), 1)

    def _count(self, *, texts: int = 0, tokens: int = 0, requests: int = 0, cached: int = 0) -> None:
        with self._lock:
            self.usage.texts += texts
            self.usage.tokens += tokens
            self.usage.requests += requests
            self.usage.cached += cached

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


def isolate(
    items: Sequence[T], embed: Callable[[list[T]], FloatArray], probe: Callable[[], object]
) -> list[Outcome]:
    """Return what becomes of each item where one of them may be the reason that all are refused.

    Args:
        items: At least one.
        embed: Returns the vectors of items, or raises.
        probe: Raises if the model refuses everything: then it is not worth while to look for an item.

    Raises:
        PolyvecError: The reason is none of the items.
    """
    try:
        return list(embed(list(items)))
    except NO_TEXT_IS_THE_REASON:
        raise
    except PolyvecError as error:
        try:
            probe()
        except PolyvecError:
            raise error from error.__cause__
        return _halved(items, embed, error)


def _halved(items: Sequence[T], embed: Callable[[list[T]], FloatArray], error: PolyvecError) -> list[Outcome]:
    if len(items) == 1:
        return [error]
    middle = len(items) // 2
    outcomes: list[Outcome] = []
    for half in (items[:middle], items[middle:]):
        try:
            outcomes.extend(embed(list(half)))
        except NO_TEXT_IS_THE_REASON:
            raise
        except PolyvecError as found:
            outcomes.extend(_halved(half, embed, found))
    return outcomes


def _checked(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str):
        raise InvalidInputError(f"texts must be a list of texts, not one str; write [{shown(texts)}]")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidInputError(f"a text must be a str, not {type(text).__name__} ({shown(text)})")
        yield repair(text)
