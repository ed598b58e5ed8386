"""OpenAI's embedding models through the official SDK, and any server that speaks the same protocol.

Limits: https://platform.openai.com/docs/api-reference/embeddings/create (and the docstring of
`openai.resources.embeddings.Embeddings.create`, openai 3.57). Error codes as seen in
https://github.com/langchain-ai/langchain/issues/31227.

The SDK's own retries are off. It would try again after `insufficient_quota`, which waiting does not cure, and
give up at a `Retry-After` above two minutes; and polyvec's `RetryPolicy` is what the stores use, too.
"""

from __future__ import annotations

import base64
import email.utils
import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polyvec.embed.base import BaseEmbedder
from polyvec.embed.packing import Piece, RequestLimits, cut, pack
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    MissingDriverError,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
)
from polyvec.retry import RetryPolicy
from polyvec.types import EmbeddingSpace, FloatArray

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import CreateEmbeddingResponse

DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_FIXED: Final = frozenset({"text-embedding-ada-002"})
"""Models that refuse the parameter `dimensions`."""

RETRY: Final = RetryPolicy(
    attempts=6, first_delay_s=0.5, max_delay_s=20.0, budget_s=120.0, max_retry_after_s=600.0
)


_NO_KEY: Final = "none"
"""For a server of one's own; the SDK insists on a key."""


class _RequestTooLargeError(BackendError):
    """The request has more tokens or bytes than the server takes; half of it may be fine."""


class OpenAIEmbedder(BaseEmbedder):
    """Vectors from OpenAI, or from a server that is compatible with it (`base_url`).

    A text longer than an input may be is cut, and its vector is the average of its parts' vectors, weighted
    by their tokens and scaled to length 1.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        concurrency: int = 4,
        send_tokens: bool = True,
        encoding_format: str = "base64",
        max_items: int = 2048,
        max_item_tokens: int = 8191,
        max_request_tokens: int = 300_000,
        retry: RetryPolicy = RETRY,
    ) -> None:
        """Prepare the client; nothing is sent yet, and the SDK is not yet imported.

        Args:
            model: The provider's name of the model.
            dimensions: Ask for shorter vectors; None is the model's own length, and then nothing is asked.
            base_url: Where the server is; None is `OPENAI_BASE_URL`, or OpenAI itself.
            api_key: None is `OPENAI_API_KEY`; a server of one's own may need none.
            timeout_s: For one request.
            concurrency: Most requests under way at once.
            send_tokens: Send the tokens of cl100k_base; False sends the texts, for servers that refuse tokens
                or whose models have another vocabulary.
            encoding_format: "base64", or "float" for servers that do not know it.
            max_items: Most inputs of a request.
            max_item_tokens: Most tokens of an input.
            max_request_tokens: Most tokens of a request.
            retry: When a failed request is made again.

        Raises:
            MissingDriverError: The SDK is not installed.
            ConfigurationError: A wrong option, or no key.
        """
        super().__init__()
        if importlib.util.find_spec("openai") is None:
            raise MissingDriverError('the OpenAI SDK is not installed; run: pip install "polyvec[openai]"')
        counts = {
            "concurrency": concurrency,
            "max_items": max_items,
            "max_item_tokens": max_item_tokens,
            "max_request_tokens": max_request_tokens,
        }
        for option, value in counts.items():
            if value < 1:
                raise ConfigurationError(f"openai: {option} must be at least 1, not {value}")
        if encoding_format not in ("base64", "float"):
            raise ConfigurationError(
                f"openai: encoding_format must be base64 or float, not {encoding_format!r}"
            )
        if not 0 < timeout_s < float("inf"):
            raise ConfigurationError(f"openai: timeout_s must be a positive number, not {timeout_s}")
        self.model = model
        self.max_tokens = max_item_tokens
        self.batch_size = max_items
        self._dimensions = _check_dimensions(model, dimensions)
        self._parameters: dict[str, Any] = {"encoding_format": encoding_format}
        if dimensions is not None:
            self._parameters["dimensions"] = dimensions
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or (_NO_KEY if self._base_url else None)
        if self._key is None:
            raise ConfigurationError("openai: no key; set OPENAI_API_KEY or the option api_key")
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._send_tokens = send_tokens
        self._limits = RequestLimits(max_items, max_item_tokens, max_request_tokens)
        self._retry = retry
        self._made: OpenAI | None = None

    @property
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`; a model that polyvec does not know is asked for one vector to measure it."""
        if self._dimensions is None:
            self._embed_request([Piece(0, " ", 1)], Event())
        assert self._dimensions is not None  # noqa: S101  # known from the answer
        return EmbeddingSpace("openai", self.model, self._dimensions)

    def __repr__(self) -> str:
        return f"<embedder openai:{self.model}>"

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed again."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def _client(self) -> OpenAI:
        from openai import OpenAI, OpenAIError

        with self._lock:
            try:
                self._made = self._made or OpenAI(
                    api_key=self._key, base_url=self._base_url, timeout=self._timeout_s, max_retries=0
                )
            except OpenAIError as error:
                raise ConfigurationError(f"openai: {self._redact(str(error))}") from error
            return self._made

    def _do_embed(self, texts: list[str]) -> FloatArray:
        pieces = cut(texts, self._limits, as_tokens=self._send_tokens)
        requests = list(pack(pieces, self._limits))
        if len(requests) == 1:
            vectors = self._embed_request(requests[0], Event())
        else:
            vectors = np.concatenate(self._embed_requests(requests))
        return _average(vectors, pieces, len(texts))

    def _embed_requests(self, requests: Sequence[Sequence[Piece]]) -> list[FloatArray]:
        """Return the vectors of each request, several of which are under way; the first error ends all."""
        stop = Event()

        def embed(request: Sequence[Piece]) -> FloatArray:
            try:
                return self._embed_request(request, stop)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(min(self._concurrency, len(requests)), "polyvec-openai") as pool:
            answers = [pool.submit(embed, request) for request in requests]
            try:
                errors = [error for answer in answers if (error := answer.exception()) is not None]
            except BaseException:  # Ctrl-C while waiting
                stop.set()
                raise
        for error in errors:
            if not isinstance(error, CancelledError):
                raise error
        return [answer.result() for answer in answers]

    def _embed_request(self, pieces: Sequence[Piece], stop: Event) -> FloatArray:
        """Return the vectors of one request's inputs; a request that the server finds too large is halved."""

        def attempt() -> FloatArray:
            if stop.is_set():
                raise CancelledError
            return self._send(pieces)

        def pause(seconds: float) -> None:
            stop.wait(seconds)

        try:
            return self._retry.run(attempt, sleep=pause)
        except _RequestTooLargeError:
            if len(pieces) == 1:
                raise
        middle = len(pieces) // 2
        halves = [self._embed_request(half, stop) for half in (pieces[:middle], pieces[middle:])]
        return np.concatenate(halves)

    def _send(self, pieces: Sequence[Piece]) -> FloatArray:
        inputs: Any = [piece.content for piece in pieces]  # all of one kind, which their type does not say
        try:
            response = self._client().embeddings.create(model=self.model, input=inputs, **self._parameters)
            vectors = _vectors(response, len(pieces))
        except PolyvecError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        if self._dimensions is None:
            self._dimensions = vectors.shape[1]
        tokens = response.usage.prompt_tokens if response.usage else sum(piece.tokens for piece in pieces)
        self._count(tokens=tokens, requests=1)
        return vectors

    def _translate(self, error: Exception) -> PolyvecError:
        import openai

        found: PolyvecError
        message = self._redact(str(error))
        if isinstance(error, openai.APITimeoutError):
            found = BackendTimeoutError(f"no answer within {self._timeout_s:g} s")
        elif isinstance(error, openai.APIConnectionError):
            found = BackendUnavailableError(f"{message} {self._redact(str(error.__cause__ or ''))}".strip())
        elif isinstance(error, openai.APIStatusError):
            found = from_status(error.status_code, error.code, message, error.response.headers)
        else:
            found = BackendError(f"{type(error).__name__}: {message}")
        return found.at("openai", "embed", None)

    def _redact(self, text: str) -> str:
        return text if self._key in (None, _NO_KEY) else text.replace(self._key, "***")


def from_status(status: int, code: str | None, message: str, headers: Mapping[str, str]) -> PolyvecError:
    """Return our error for an HTTP status and OpenAI's error code."""
    if code == "max_tokens_per_request" or status == 413:  # noqa: PLR2004  # content too large
        return _RequestTooLargeError(message)
    if code == "insufficient_quota":
        return QuotaExceededError(message)
    pause = retry_after_s(headers)
    if status == 429 or (status == 503 and pause is not None):  # noqa: PLR2004  # try again later
        return RateLimitedError(message, retry_after_s=pause)
    if status in (401, 403):
        return AuthenticationError(message)
    if status == 404:  # noqa: PLR2004  # no such model, or not the path of such a server
        return ConfigurationError(message)
    if status == 408:  # noqa: PLR2004  # request timeout
        return BackendTimeoutError(message)
    if status == 409 or status >= 500:  # noqa: PLR2004  # which the SDK tries again, too
        return BackendUnavailableError(message)
    return BackendError(message)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * factor)
        except ValueError:
            pass
        if (date := email.utils.parsedate_tz(value)) is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    return None


def _check_dimensions(model: str, dimensions: int | None) -> int | None:
    most = DIMENSIONS.get(model)
    if dimensions is None:
        return most
    if model in _FIXED:
        raise ConfigurationError(f"openai: {model} has {most} dimensions and cannot be asked for others")
    if dimensions < 1 or (most is not None and dimensions > most):
        raise ConfigurationError(f"openai: dimensions must be 1 to {most or '...'}, not {dimensions}")
    return dimensions


def _vectors(response: CreateEmbeddingResponse, count: int) -> FloatArray:
    """Return the vectors of a response in the order of the inputs, shape (count, d)."""
    data = sorted(response.data, key=lambda item: item.index)
    if [item.index for item in data] != list(range(count)):
        raise BackendError(f"asked for {count} vectors, got {len(data)}, or some of them twice")
    rows = [_vector(item.embedding) for item in data]
    if any(len(row) != len(rows[0]) for row in rows):
        raise BackendError("the vectors of one response differ in length")
    return np.stack(rows)


def _vector(embedding: Any) -> FloatArray:
    """Return one vector; a server may answer with numbers although it was asked for base64."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32, copy=False)
    return np.asarray(embedding, np.float32)


def _average(vectors: FloatArray, pieces: Sequence[Piece], count: int) -> FloatArray:
    """Return one vector for each text from those of its pieces, which stand together, in order."""
    if len(pieces) == count:
        return vectors
    tokens = np.array([piece.tokens for piece in pieces], np.float64)
    starts = np.searchsorted([piece.text for piece in pieces], np.arange(count))
    sums = np.add.reduceat(vectors * tokens[:, None], starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    parts = np.diff(starts, append=len(pieces))[:, None]
    averages = np.where(parts > 1, sums / np.where(lengths == 0, 1.0, lengths), vectors[starts])
    return averages.astype(np.float32)
