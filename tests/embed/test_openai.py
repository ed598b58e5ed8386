"""The OpenAI embedder: the real SDK against a local server that checks limits and misbehaves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polyvec import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    EmbeddingSpace,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
    tokenizer,
)
from polyvec.embed.openai import OpenAIEmbedder
from polyvec.embed.openai_errors import from_status, retry_after_s, translate
from polyvec.embed.packing import Piece, RequestLimits, cut, pack
from polyvec.retry import RetryPolicy
from tests.servers.openai import KEY, FakeOpenAI, Reply, vector_of

MODEL = "text-embedding-3-small"
Make = Callable[..., OpenAIEmbedder]


def expected(*texts: str, dimensions: int = 32) -> np.ndarray[Any, Any]:
    return np.stack([vector_of(tokenizer.encode(text), dimensions) for text in texts])


def test_documents_and_query(server: FakeOpenAI, make: Make) -> None:
    embedder = make()
    assert embedder.space == EmbeddingSpace("openai", MODEL, 32)
    vectors = embedder.embed_documents(["hello", "안녕하세요 <|endoftext|>", "👨‍👩‍👧‍👦"])
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected("hello", "안녕하세요 <|endoftext|>", "👨‍👩‍👧‍👦"))
    np.testing.assert_array_equal(embedder.embed_query("hello"), vectors[0])
    assert embedder.embed_documents([]).shape == (0, 32)
    assert len(server.requests) == 2
    assert server.requests[0].keys() == {"model", "input", "encoding_format", "dimensions"}
    assert server.requests[1] == {
        "model": MODEL, "input": [tokenizer.encode("hello")], "encoding_format": "base64", "dimensions": 32,
    }  # fmt: skip
    tokens = sum(map(len, server.requests[0]["input"])) + 1
    assert (embedder.usage.texts, embedder.usage.tokens, embedder.usage.requests) == (4, tokens, 2)


def test_a_known_model_without_dimensions(server: FakeOpenAI, make: Make) -> None:
    embedder = make(dimensions=None)
    assert embedder.space.dimensions == 1536
    assert server.requests == []
    assert embedder.embed_query("x").shape == (1536,)
    assert "dimensions" not in server.requests[0]


def test_an_unknown_model_is_measured_once(server: FakeOpenAI, make: Make) -> None:
    embedder = make("bge-m3", dimensions=None)
    assert embedder.space == EmbeddingSpace("openai", "bge-m3", 1536)
    assert embedder.space.dimensions == 1536
    assert len(server.requests) == 1
    other = make("bge-m3", dimensions=None)
    other.embed_documents(["a", "b"])
    assert other.space.dimensions == 1536
    assert len(server.requests) == 2


def test_empty_odd_and_long_texts(server: FakeOpenAI, make: Make) -> None:
    long = "word " * 20_000
    vectors = make().embed_documents(["", "lone \ud800", long, "end"])
    tokens = tokenizer.encode(long)
    parts = [tokens[start : start + 8191] for start in range(0, len(tokens), 8191)]
    assert len(parts) == 3
    average = sum(len(part) * vector_of(part, 32).astype(np.float64) for part in parts)
    np.testing.assert_allclose(vectors[2], average / np.linalg.norm(average), rtol=1e-6)
    np.testing.assert_array_equal(vectors[[0, 1, 3]], expected(" ", "lone ?", "end"))
    assert [len(item) for item in server.requests[0]["input"]] == [1, 3, 8191, 8191, len(parts[2]), 1]


def test_requests_are_packed_within_the_limits_and_several_are_under_way(
    server: FakeOpenAI, make: Make
) -> None:
    server.together = 3  # none is answered before three have come
    texts = [f"text {n} " * 40 for n in range(5000)]
    vectors = make(concurrency=3).embed_documents(texts)
    np.testing.assert_array_equal(
        vectors[[0, 2047, 2048, 4999]], expected(*(texts[n] for n in (0, 2047, 2048, 4999)))
    )
    totals = [sum(map(len, request["input"])) for request in server.requests]
    assert server.most_at_once == 3
    assert max(totals) <= 300_000
    assert sorted(totals)[1] > 0.95 * 300_000  # all but the last are full


def test_a_request_that_the_server_finds_too_large_is_halved(server: FakeOpenAI, make: Make) -> None:
    server.max_request_tokens = 30
    texts = [f"word{n} word word" for n in range(30)]
    np.testing.assert_array_equal(make().embed_documents(texts), expected(*texts))
    assert len(server.requests) > 4
    server.max_request_tokens = 0
    with pytest.raises(BackendError, match="Requested"):
        make().embed_documents(["one two three"])


def test_compatible_servers(server: FakeOpenAI, make: Make) -> None:
    server.refuse_tokens = server.ignore_base64 = True
    with pytest.raises(BackendError, match="input must be strings"):
        make().embed_documents(["x"])
    embedder = make(send_tokens=False, encoding_format="float", max_items=2)
    np.testing.assert_array_equal(embedder.embed_documents(["a", "", "가"]), expected("a", " ", "가"))
    assert [request["input"] for request in server.requests[1:]] in (
        [["a", " "], ["가"]],
        [["가"], ["a", " "]],
    )
    assert server.requests[1]["encoding_format"] == "float"
    long = "한 문장이다. " * 30
    short = make(send_tokens=False, max_item_tokens=50)
    assert abs(np.linalg.norm(short.embed_query(long)) - 1) < 1e-6
    assert "".join(server.requests[-1]["input"]).replace(" ", "") == long.replace(" ", "")
    # a server that answers with numbers although it was asked for base64
    np.testing.assert_array_equal(make(send_tokens=False).embed_query("a"), expected("a")[0])


def test_answers_in_another_order_are_sorted(server: FakeOpenAI, make: Make) -> None:
    server.replies = [Reply(change=lambda answer: answer["data"].reverse())]
    np.testing.assert_array_equal(make().embed_documents(["a", "b", "c"]), expected("a", "b", "c"))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, "rate_limit_exceeded", {"retry-after-ms": "1"}),
        Reply(429, None, {"retry-after": "0"}),
        Reply(429),
        Reply(500),
        Reply(503, None, {"retry-after-ms": "1"}),
        Reply(408),
        Reply(409),
        Reply(drop=True),
        Reply(half=True),
    ],
)
def test_passing_trouble_is_tried_again(server: FakeOpenAI, make: Make, reply: Reply) -> None:
    server.replies = [reply, reply]
    np.testing.assert_array_equal(make().embed_query("x"), expected("x")[0])
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "kind", "requests"),
    [
        (Reply(401, "invalid_api_key"), AuthenticationError, 1),
        (Reply(403), AuthenticationError, 1),
        (Reply(404, "model_not_found"), ConfigurationError, 1),
        (Reply(400, "invalid_request"), BackendError, 1),
        (Reply(422), BackendError, 1),
        (Reply(429, "insufficient_quota"), QuotaExceededError, 1),
        (Reply(429, None, {"retry-after": "3600"}), RateLimitedError, 1),
        (Reply(429), RateLimitedError, 4),
        (Reply(500), BackendUnavailableError, 4),
        (Reply(408), BackendTimeoutError, 4),
        (Reply(drop=True), BackendUnavailableError, 4),
        (Reply(half=True), BackendUnavailableError, 4),
        (Reply(garbage=True), BackendError, 1),
        (Reply(413), BackendError, 1),
    ],
)
def test_lasting_trouble_is_an_error(
    server: FakeOpenAI, make: Make, reply: Reply, kind: type[PolyvecError], requests: int
) -> None:
    server.replies = [reply] * 10
    with pytest.raises(PolyvecError) as caught:
        make().embed_query("x")
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, BackendError | ConfigurationError)
    assert caught.value.backend == "openai"
    assert len(server.requests) == requests
    error: BaseException | None = caught.value
    assert KEY not in str(error)
    if reply.headers:
        assert isinstance(caught.value, RateLimitedError)
        assert caught.value.retry_after_s == 3600


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer["data"].pop(),
        lambda answer: answer["data"].append(dict(answer["data"][0])),
        lambda answer: answer["data"][0].update(index=7),
        lambda answer: answer["data"][0].update(embedding=[0.1, 0.2]),
        lambda answer: answer["data"][0].update(embedding="####"),
        lambda answer: answer["data"][0].update(embedding="AAA="),
        lambda answer: answer["data"][0].update(embedding=[math.nan] * 32),
        lambda answer: answer["data"][0].update(embedding=[math.inf] * 32),
        lambda answer: [item.update(embedding=[0.1] * 31) for item in answer["data"]],
        lambda answer: answer.update(data=[]),
        lambda answer: answer.pop("data"),
        lambda answer: answer["data"][1].pop("embedding"),
    ],
)
def test_wrong_answers_are_errors(
    server: FakeOpenAI, make: Make, change: Callable[[dict[str, Any]], object]
) -> None:
    server.replies = [Reply(change=change)]
    with pytest.raises(BackendError):
        make().embed_documents(["a", "b"])


def test_without_a_server(make: Make) -> None:
    with pytest.raises(BackendUnavailableError):
        make(base_url="http://127.0.0.1:9/v1", timeout_s=2.0).embed_query("x")


def test_no_answer_within_the_timeout(server: FakeOpenAI, make: Make) -> None:
    server.together = 99
    with pytest.raises(BackendTimeoutError, match=r"0\.2 s"):
        make(timeout_s=0.2, retry=RetryPolicy(attempts=1)).embed_query("x")
    server.gathered.set()


def test_a_body_that_never_ends_is_no_answer(server: FakeOpenAI, make: Make) -> None:
    server.replies = [Reply(slow=True)] * 2
    started = time.monotonic()
    with pytest.raises(BackendTimeoutError, match="no whole answer within"):
        make(timeout_s=0.5, retry=RetryPolicy(attempts=1)).embed_query("x")
    assert time.monotonic() - started < 30
    np.testing.assert_array_equal(make(timeout_s=0.5).embed_query("x"), expected("x")[0])


def test_azure(server: FakeOpenAI, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # of no meaning here
    endpoint = server.url.removesuffix("/v1")
    embedder = make(base_url=None, azure_endpoint=endpoint, deployment="mine", max_items=2)
    assert embedder.space == EmbeddingSpace("openai", MODEL, 32)
    np.testing.assert_array_equal(embedder.embed_documents(["a", "b", "c"]), expected("a", "b", "c"))
    assert server.paths == ["/openai/deployments/mine/embeddings?api-version=2024-10-21"] * 2
    server.paths.clear()
    azure: dict[str, Any] = {"base_url": None, "azure_endpoint": endpoint, "api_key": None}
    token = make(**azure, azure_ad_token=KEY, api_version="2025-01-01")
    with pytest.raises(AuthenticationError) as caught:  # such a token comes in another header
        token.embed_query("x")
    assert KEY not in str(caught.value)
    assert server.paths == [f"/openai/deployments/{MODEL}/embeddings?api-version=2025-01-01"]
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY"):
        make(**azure)
    with pytest.raises(ConfigurationError, match="not both"):
        make(azure_endpoint=endpoint)


def test_prefixes(server: FakeOpenAI, make: Make) -> None:
    embedder = make(document_prefix="passage: ", query_prefix="query: ")
    np.testing.assert_array_equal(embedder.embed_documents(["a"]), expected("passage: a"))
    np.testing.assert_array_equal(embedder.embed_query("a"), expected("query: a")[0])
    [streamed] = embedder.embed_stream(["a"])
    np.testing.assert_array_equal(streamed, expected("passage: a")[0])


def test_an_error_ends_the_other_requests(server: FakeOpenAI, make: Make) -> None:
    texts = [f"t{n}" for n in range(64)]
    patient = RetryPolicy(max_retry_after_s=600.0)
    server.replies = [Reply(429, None, {"retry-after": "600"}), Reply(401)]
    server.together = 2  # so that one of the two is paused when the other fails
    started = time.monotonic()
    with pytest.raises(AuthenticationError):
        make(max_items=1, concurrency=2, retry=patient).embed_documents(texts)
    assert time.monotonic() - started < 60
    assert len(server.requests) <= 3


def test_close_and_use_again(server: FakeOpenAI, make: Make) -> None:
    with make() as embedder:
        embedder.embed_query("x")
    embedder.close()
    embedder.embed_query("y")
    assert len(server.requests) == 2


def test_the_key_is_never_shown(make: Make) -> None:
    assert KEY not in repr(make())
    assert KEY not in str(translate(ValueError(f"bad {KEY}"), 1, make().redact, 1.0))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"encoding_format": "int8"}, "encoding_format must be base64, float or none"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"max_items": 0}, "max_items"),
        ({"max_item_tokens": 0}, "max_item_tokens"),
        ({"max_request_tokens": 0}, "max_request_tokens"),
        ({"dimensions": 2000}, "dimensions must be 1 to 1536"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": "text-embedding-ada-002", "dimensions": 5}, "cannot be asked for others"),
    ],
)
def test_wrong_options(make: Make, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        make(**options)


def test_keys_from_the_environment(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder(MODEL)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    with OpenAIEmbedder(MODEL) as keyless, pytest.raises(AuthenticationError):
        keyless.embed_query("x")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIEmbedder(MODEL) as embedder:
        assert embedder.embed_query("x").shape == (1536,)


def test_from_status_says_what_may_be_tried_again() -> None:
    retryable = {status for status in range(400, 600) if from_status(status, None, "m", {}).retryable}
    assert retryable == {408, 409, 429} | set(range(500, 600))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


def test_retry_after_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1445412480.0 - 30)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 30.0


def test_packing() -> None:
    limits = RequestLimits(items=3, item_tokens=10, tokens=20)
    pieces = [Piece(row, [1] * size, size) for row, size in enumerate([10, 10, 1, 1, 1, 1, 10, 10, 9])]
    assert [[piece.tokens for piece in request] for request in pack(pieces, limits)] == [
        [10, 10], [1, 1, 1], [1, 10], [10, 9],
    ]  # fmt: skip
    assert list(pack([], limits)) == []
    assert [piece.tokens for piece in cut(["a " * 25], 10, as_tokens=True)][:2] == [10, 10]
    assert all(piece.tokens <= 10 for piece in cut(["a b. " * 25], 10, as_tokens=False))
    assert next(cut(["", "\n" * 500], 8, as_tokens=False)) == Piece(0, " ", 1)
