"""A scripted server, and embedders that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from polyvec.embed.openai import OpenAIEmbedder
from polyvec.retry import RetryPolicy
from tests.servers.openai import KEY, FakeOpenAI, serve

MODEL = "text-embedding-3-small"
QUICK = RetryPolicy(attempts=4, first_delay_s=0.001, max_retry_after_s=5.0)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with serve() as state:
        yield state


@pytest.fixture
def make(server: FakeOpenAI) -> Iterator[Callable[..., OpenAIEmbedder]]:
    made: list[OpenAIEmbedder] = []

    def make_one(model: str = MODEL, **options: Any) -> OpenAIEmbedder:
        defaults: dict[str, Any] = {"base_url": server.url, "api_key": KEY, "dimensions": 32, "retry": QUICK}
        made.append(OpenAIEmbedder(model, **defaults | options))
        return made[-1]

    yield make_one
    for embedder in made:
        embedder.close()
