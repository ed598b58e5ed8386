"""OpenAI's embedding models through the official SDK, and any server that speaks the same protocol.

Limits: https://platform.openai.com/docs/api-reference/embeddings/create (and the docstring of
`openai.resources.embeddings.Embeddings.create`, openai 3.57). Azure:
https://learn.microsoft.com/azure/ai-services/openai/reference#embeddings.

The SDK's own retries are off. It would try again after `insufficient_quota`, which waiting does not cure, and
give up at a `Retry-After` above two minutes; and polyvec's `RetryPolicy` is what the stores use, too.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from threading import Event
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from polyvec.embed.base import BaseEmbedder, Outcome, isolate
from polyvec.embed.flight import in_order
from polyvec.embed.limits import RateGate
from polyvec.embed.openai_errors import TooLargeError, translate
from polyvec.embed.packing import Piece, RequestLimits, cut, cut_piece, pack
from polyvec.errors import (
    BackendError,
    BackendTimeoutError,
    ConfigurationError,
    MissingDriverError,
    PolyvecError,
    RateLimitedError,
)
from polyvec.retry import RetryPolicy
from polyvec.types import EmbeddingSpace, FloatArray

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")

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

AZURE_VERSION: Final = "2024-10-21"
"""The newest version of Azure's interface that is no preview."""

_NO_KEY: Final = "none"
"""For a server of one's own; the SDK insists on a key."""

_LONGEST_WAIT_S: Final = 1.0
"""After so long the rate limits are looked at again: other requests may have taught something new."""


class OpenAIEmbedder(BaseEmbedder):
    """Vectors from OpenAI, from Azure, or from a server that is compatible with OpenAI (`base_url`).

    A text longer than an input may be is cut, and its vector is the average of its parts' vectors, weighted
    by their tokens and scaled to length 1; likewise one that only the server finds too long.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        azure_endpoint: str | None = None,
        azure_ad_token: str | None = None,
        azure_ad_token_provider: Callable[[], str] | None = None,
        api_version: str | None = None,
        deployment: str | None = None,
        timeout_s: float = 60.0,
        concurrency: int = 4,
        send_tokens: bool = True,
        encoding_format: str | None = "base64",
        max_items: int = 2048,
        max_item_tokens: int = 8191,
        max_request_tokens: int = 300_000,
        document_prefix: str = "",
        query_prefix: str = "",
        retry: RetryPolicy = RETRY,
    ) -> None:
        """Prepare the client; nothing is sent yet, and the SDK is not yet imported.

        Args:
            model: The provider's name of the model.
            dimensions: Ask for shorter vectors; None is the model's own length, and then nothing is asked.
            base_url: Where the server is; None is `OPENAI_BASE_URL`, or OpenAI itself.
            api_key: None is `OPENAI_API_KEY` (`AZURE_OPENAI_API_KEY` with an endpoint); a server of one's own
                may need none.
            azure_endpoint: `https://NAME.openai.azure.com`, for a model that is deployed in Azure.
            azure_ad_token: A token of Microsoft Entra instead of a key; None is `AZURE_OPENAI_AD_TOKEN`.
            azure_ad_token_provider: Returns such a token whenever one is needed.
            api_version: Of Azure's interface; None is `OPENAI_API_VERSION`, or 2024-10-21.
            deployment: The name of the deployment, where it is not the model's.
            timeout_s: Within which a request is answered as a whole.
            concurrency: Most requests under way at once.
            send_tokens: Send the tokens of cl100k_base; False sends the texts, for servers that refuse tokens
                or whose models have another vocabulary.
            encoding_format: "base64", "float" for servers that do not know it, or "none" for servers that do
                not know the parameter.
            max_items: Most inputs of a request.
            max_item_tokens: Most tokens of an input.
            max_request_tokens: Most tokens of a request.
            document_prefix: What a model wants to stand before each text to be found, e.g. "passage: ".
            query_prefix: What it wants before a text to search with, e.g. "query: ".
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
        if encoding_format not in ("base64", "float", "none", None):
            raise ConfigurationError(
                f"openai: encoding_format must be base64, float or none, not {encoding_format!r}"
            )
        if not 0 < timeout_s < float("inf"):
            raise ConfigurationError(f"openai: timeout_s must be a positive number, not {timeout_s}")
        if azure_endpoint and base_url:
            raise ConfigurationError("openai: give azure_endpoint or base_url, not both")
        self.model = model
        self.max_tokens = max_item_tokens
        self.batch_size = max_items
        self.variant = document_prefix
        self._dimensions = _check_dimensions(model, dimensions)
        self._parameters: dict[str, Any] = {"model": deployment or model}
        if encoding_format not in ("none", None):
            self._parameters["encoding_format"] = encoding_format
        if dimensions is not None:
            self._parameters["dimensions"] = dimensions
        self._azure: dict[str, Any] = {}
        if azure_endpoint:
            self._azure = {
                "azure_endpoint": azure_endpoint,
                "azure_ad_token": azure_ad_token or os.environ.get("AZURE_OPENAI_AD_TOKEN"),
                "azure_ad_token_provider": azure_ad_token_provider,
                "api_version": api_version or os.environ.get("OPENAI_API_VERSION") or AZURE_VERSION,
            }
        self._base_url = None if self._azure else base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = self._find_key(api_key)
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._send_tokens = send_tokens
        self._limits = RequestLimits(max_items, max_item_tokens, max_request_tokens)
        self._document_prefix = document_prefix
        self._query_prefix = query_prefix
        self._retry = retry
        self._gate = RateGate()
        self._made: OpenAI | None = None

    @property
    def space(self) -> EmbeddingSpace:
        """See `Embedder.space`; a model that polyvec does not know is asked for one vector to measure it."""
        if self._dimensions is None:
            self._request([Piece(0, " ", 1)], Event())
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

    def client(self) -> OpenAI:
        """Return the SDK's client, which makes no call again by itself; it is made at the first call."""
        from openai import AzureOpenAI, OpenAI, OpenAIError

        options: dict[str, Any] = {"api_key": self._key, "timeout": self._timeout_s, "max_retries": 0}
        with self._lock:
            try:
                if self._made is None and self._azure:
                    self._made = AzureOpenAI(**options, **self._azure)
                elif self._made is None:
                    self._made = OpenAI(**options, base_url=self._base_url)
            except OpenAIError as error:
                raise ConfigurationError(f"openai: {self.redact(str(error))}") from error
            return self._made

    def call(self, do: Callable[[OpenAI], T], *, again: bool = True) -> T:
        """Return what a call of the SDK returns, with our errors, and made again where that may help.

        Args:
            do: Makes the call.
            again: False for a call that must not be made twice.
        """

        def attempt() -> T:
            try:
                return do(self.client())
            except PolyvecError:
                raise
            except Exception as error:
                raise translate(error, 0, self.redact, self._timeout_s) from error

        return self._retry.run(attempt) if again else attempt()

    def body(self, content: list[int] | str) -> dict[str, Any]:
        """Return a request for the vector of one input."""
        return {"input": content, **self._parameters}

    def vector_in(self, answer: Any) -> FloatArray:
        """Return the vector in the answer to such a request.

        Raises:
            PolyvecError: There is none, or it is not as it should be.
        """
        try:
            vector: FloatArray = self._checked(answer, 1)[0]
        except PolyvecError:
            raise
        except Exception as error:
            raise translate(error, 0, self.redact, self._timeout_s) from error
        return vector

    @property
    def azure(self) -> bool:
        """Whether the model is deployed in Azure."""
        return bool(self._azure)

    def redact(self, text: str) -> str:
        """Return a text without the key and the token."""
        for secret in (self._key, self._azure.get("azure_ad_token")):
            if secret not in (None, _NO_KEY):
                text = text.replace(secret, "***")
        return text

    def _find_key(self, given: str | None) -> str | None:
        name = "AZURE_OPENAI_API_KEY" if self._azure else "OPENAI_API_KEY"
        key = given or os.environ.get(name) or (_NO_KEY if self._base_url else None)
        tokens = ("azure_ad_token", "azure_ad_token_provider")
        if key is None and not any(self._azure.get(token) for token in tokens):
            raise ConfigurationError(f"openai: no key; set {name} or the option api_key")
        return key

    # From texts to requests, and back ----------------------------------------------------------------

    def pieces(self, texts: Iterable[str]) -> Iterator[Piece]:
        """Yield the inputs that texts to be found are sent as."""
        prefixed = (self._document_prefix + text for text in texts)
        return cut(prefixed, self._limits.item_tokens, as_tokens=self._send_tokens)

    def _do_stream(self, texts: Iterator[str]) -> Iterator[Outcome]:
        for outcome in self._stream(self.pieces(texts), alone=True):
            self._count(texts=1)
            yield outcome

    def _do_embed(self, texts: list[str]) -> FloatArray:
        return self._all(self.pieces(texts))

    def _do_embed_query(self, text: str) -> FloatArray:
        prefixed = [self._query_prefix + text]
        return self._all(cut(prefixed, self._limits.item_tokens, as_tokens=self._send_tokens))

    def _all(self, pieces: Iterator[Piece]) -> FloatArray:
        outcomes = self._stream(pieces, alone=False)
        return np.stack([outcome for outcome in outcomes if not isinstance(outcome, PolyvecError)])

    def _stream(self, pieces: Iterator[Piece], *, alone: bool) -> Iterator[Outcome]:
        """Yield the outcome of each text; `alone`: a text that is refused takes no other one with it."""
        stop = Event()
        jobs = (partial(self._outcomes, request, stop, alone=alone) for request in pack(pieces, self._limits))
        for _, parts in groupby(
            chain.from_iterable(in_order(jobs, self._concurrency, stop, "polyvec-openai")), key=itemgetter(0)
        ):
            yield combined([(tokens, outcome) for _, tokens, outcome in parts])

    def _outcomes(self, pieces: list[Piece], stop: Event, *, alone: bool) -> list[tuple[int, int, Outcome]]:
        """Return the text, the tokens and the outcome of each input of a request."""
        embed = partial(self._request, stop=stop)
        outcomes = isolate(pieces, embed, self._probe) if alone else list(embed(pieces))
        return [(piece.text, piece.tokens, outcome) for piece, outcome in zip(pieces, outcomes, strict=True)]

    def _request(self, pieces: Sequence[Piece], stop: Event) -> FloatArray:
        """Return the vectors of one request's inputs; what the server finds too large is halved."""
        try:
            return self._retry.run(lambda: self._attempt(pieces, stop), sleep=partial(_pause, stop))
        except TooLargeError:
            if len(pieces) > 1:
                middle = len(pieces) // 2
                halves = [self._request(half, stop) for half in (pieces[:middle], pieces[middle:])]
                return np.concatenate(halves)
            parts = cut_piece(pieces[0], (pieces[0].tokens + 1) // 2)
            if len(parts) == 1:
                raise
        vectors = self._request(parts, stop)
        return _average(vectors, [part.tokens for part in parts])[np.newaxis]

    def _attempt(self, pieces: Sequence[Piece], stop: Event) -> FloatArray:
        """Send a request when the rate limits allow it, and learn from what comes back."""
        _pause(stop, 0.0)
        tokens = sum(piece.tokens for piece in pieces)
        deadline = time.monotonic() + self._retry.max_retry_after_s
        while wait := self._gate.enter(tokens, anyway=time.monotonic() > deadline):
            _pause(stop, min(wait, _LONGEST_WAIT_S))
        headers: Mapping[str, str] | None = None
        try:
            answer, headers = self._send(pieces)
            vectors = self._checked(answer, len(pieces))
        except PolyvecError as error:
            raise error.at("openai", "embed", None)  # noqa: B904  # it is the same one
        except Exception as error:
            headers = getattr(getattr(error, "response", None), "headers", None)
            found = translate(error, tokens, self.redact, self._timeout_s)
            pause = found.retry_after_s if isinstance(found, RateLimitedError) else None
            if pause is not None and pause <= self._retry.max_retry_after_s:
                self._gate.close(pause)  # the other requests would only be refused, too
            raise found from error
        finally:
            self._gate.leave(tokens, headers)
        usage = answer.get("usage") or {}
        self._count(tokens=usage.get("prompt_tokens") or tokens, requests=1)
        return vectors

    def _send(self, pieces: Sequence[Piece]) -> tuple[Any, Mapping[str, str]]:
        """Return the body of an answer as JSON data, and its headers."""
        inputs: Any = [piece.content for piece in pieces]  # all of one kind, which their type does not say
        create = self.client().embeddings.with_streaming_response.create
        deadline = time.monotonic() + self._timeout_s
        # the SDK's timeout is for each piece of the body, of which there may be many
        with create(input=inputs, **self._parameters) as response:
            body = bytearray()
            for data in response.iter_bytes():
                body += data
                if time.monotonic() > deadline:
                    raise BackendTimeoutError(f"no whole answer within {self._timeout_s:g} s")
            return json.loads(body), response.headers

    def _checked(self, answer: Any, count: int) -> FloatArray:
        vectors = vectors_of(answer, count)
        if self._dimensions is None:
            self._dimensions = vectors.shape[1]
        return self._check(vectors, count)


def _pause(stop: Event, seconds: float) -> None:
    """Wait, but not once everything is to stop."""
    if stop.wait(seconds):
        raise CancelledError


def _check_dimensions(model: str, dimensions: int | None) -> int | None:
    most = DIMENSIONS.get(model)
    if dimensions is None:
        return most
    if model in _FIXED:
        raise ConfigurationError(f"openai: {model} has {most} dimensions and cannot be asked for others")
    if dimensions < 1 or (most is not None and dimensions > most):
        raise ConfigurationError(f"openai: dimensions must be 1 to {most or '...'}, not {dimensions}")
    return dimensions


def vectors_of(answer: Any, count: int) -> FloatArray:
    """Return the vectors of an answer in the order of the inputs, shape (count, d).

    Raises:
        BackendError: It has others than were asked for, or of different lengths.
    """
    data = sorted(answer["data"], key=lambda item: item["index"])
    if [item["index"] for item in data] != list(range(count)):
        raise BackendError(f"asked for {count} vectors, got {len(data)}, or some of them twice")
    rows = [_vector(item["embedding"]) for item in data]
    if any(row.shape != rows[0].shape for row in rows):
        raise BackendError("the vectors of one response differ in length")
    return np.stack(rows)


def _vector(embedding: Any) -> FloatArray:
    """Return one vector; a server may answer with numbers although it was asked for base64."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32, copy=False)
    return np.asarray(embedding, np.float32)


def combined(parts: Sequence[tuple[int, Outcome]]) -> Outcome:
    """Return the outcome of a text from the tokens and the outcomes of its parts."""
    vectors = []
    for _, outcome in parts:
        if isinstance(outcome, PolyvecError):
            return outcome
        vectors.append(outcome)
    if len(vectors) == 1:
        return vectors[0]
    return _average(np.stack(vectors), [tokens for tokens, _ in parts])


def _average(vectors: FloatArray, tokens: Sequence[int]) -> FloatArray:
    """Return the average of vectors weighted by tokens, of length 1."""
    total = np.asarray(tokens, np.float64) @ vectors
    length = np.linalg.norm(total)
    unit: FloatArray = (total / (length or 1.0)).astype(np.float32)
    return unit
