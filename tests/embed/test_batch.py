"""The Batch API: submit, end the program at any moment, go on in another one, find vectors in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyvec
from polyvec import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidInputError,
    tokenizer,
)
from polyvec.embed import cost_usd
from polyvec.embed.batch import BatchJobs
from polyvec.embed.cache import CachedEmbedder
from polyvec.embed.hashing import HashEmbedder
from polyvec.embed.openai import OpenAIEmbedder
from polyvec.types import EmbeddingSpace
from tests.servers.openai import FakeOpenAI, Reply

Make = Callable[..., OpenAIEmbedder]
TEXTS = [f"text {n}" for n in range(10)]


@pytest.fixture
def program(make: Make, tmp_path: Path) -> Callable[..., Any]:
    """Do something as a program of its own would: nothing is known but what the file says."""

    @contextmanager
    def program(**options: Any) -> Iterator[tuple[BatchJobs, CachedEmbedder]]:
        with CachedEmbedder(make(), tmp_path / "vectors.sqlite") as embedder:
            yield BatchJobs(embedder, **options), embedder

    return program


def asked_for(server: FakeOpenAI) -> list[list[int]]:
    inputs = [batch["input_file_id"] for batch in server.batches.values()]
    lines = [line for name in inputs for line in server.files[name].splitlines()]
    return [json.loads(line)["body"]["input"] for line in lines]


def test_vectors_come_into_the_cache(server: FakeOpenAI, make: Make, program: Callable[..., Any]) -> None:
    long = "word " * 20_000
    texts = [*TEXTS, long, "", "lone \ud800", "text 1"]
    with program() as (jobs, embedder):
        embedder.embed_documents(["text 3"])
        [submitted] = jobs.submit(iter(texts))
        assert (submitted.status, submitted.texts) == ("in_progress", 12)
        assert submitted.tokens == sum(map(len, asked_for(server)))
        assert jobs.submit(texts) == []
        [status] = jobs.poll()
        assert (status.done, status.failed, status.ended) == (1, 0, False)
        assert len(embedder.uncached(texts[:-1])) == 12
    line = json.loads(server.files[server.batches["batch-0"]["input_file_id"]].splitlines()[0])
    assert line.pop("custom_id").endswith("-0-1-3")
    assert line == {
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {
            "model": "text-embedding-3-small", "dimensions": 32, "encoding_format": "base64",
            "input": tokenizer.encode("text 0"),
        },
    }  # fmt: skip
    server.end_batches()
    with program() as (jobs, embedder):
        [status] = jobs.poll()
        assert (status.status, status.done, status.failed, status.reasons) == ("completed", 12, 0, ())
        assert jobs.poll() == []
        requests = len(server.requests)
        found = embedder.embed_documents(texts)
        assert len(server.requests) == requests
        np.testing.assert_allclose(found, make().embed_documents(texts), atol=1e-6)


def test_what_fails_is_asked_for_again(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, embedder):
        jobs.submit(TEXTS)
        server.end_batches(refused="text 4")
        [status] = jobs.poll()
        assert (status.done, status.failed, status.reasons) == (9, 1, ("this text is refused",))
        [again] = jobs.submit(TEXTS)
        assert again.texts == 1
        assert embedder.uncached(TEXTS) == ["text 4"]


def test_an_expired_batch_keeps_what_it_has_done(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, embedder):
        jobs.submit(TEXTS)
        server.end_batches("expired")
        [status] = jobs.poll()
        assert (status.status, status.done, status.failed) == ("expired", 5, 5)
        assert embedder.uncached(TEXTS) == TEXTS[1::2]


def test_a_batch_that_is_refused_as_a_whole(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, _):
        jobs.submit(TEXTS)
        server.batches["batch-0"] |= {
            "status": "failed",
            "errors": {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]},
        }
        [status] = jobs.poll()
        assert (status.failed, status.reasons) == (10, ("Enqueued token limit reached",))
        assert len(jobs.submit(TEXTS)) == 1


def test_wrong_vectors_do_not_come_into_the_cache(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, embedder):
        jobs.submit(TEXTS[:3])
        server.end_batches()
        name = server.batches["batch-0"]["output_file_id"]
        lines = [json.loads(line) for line in server.files[name].splitlines()]
        lines[0]["response"]["body"]["data"][0]["embedding"] = [float("nan")] * 32
        lines[1]["response"]["body"]["data"][0]["embedding"] = [0.5] * 31
        server.files[name] = "\n".join(map(json.dumps, lines)).encode()
        [status] = jobs.poll()
        assert (status.done, status.failed) == (1, 2)
        assert "NaN" in status.reasons[0]
        assert len(embedder.uncached(TEXTS[:3])) == 2


def test_batches_are_cut_to_the_limits(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program(max_inputs=4) as (jobs, _):
        assert [status.texts for status in jobs.submit(TEXTS)] == [4, 4, 2]
    with program(max_tokens=9) as (jobs, _):
        more = [f"more {n}" for n in range(10)]
        assert all(status.tokens <= 9 for status in jobs.submit(more))
    server.end_batches()
    with program() as (jobs, embedder):
        jobs.poll()
        assert embedder.uncached(TEXTS + more) == []


def test_a_batch_whose_begin_was_lost_is_found(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    server.lose_batch_answer = True
    with program() as (jobs, _), pytest.raises(BackendUnavailableError):
        jobs.submit(TEXTS)
    with program() as (jobs, _):
        assert jobs.submit(TEXTS) == []
        assert [status.id for status in jobs.poll()] == ["batch-0"]
        server.end_batches()
        assert jobs.poll()[0].done == 10
    assert len(server.batches) == 1


def test_a_batch_that_was_not_begun_is_begun_later(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, _):
        begin = jobs._begin

        def refused(job: str, file: str) -> object:
            server.replies = [Reply(500)]
            return begin(job, file)

        jobs._begin = refused
        with pytest.raises(BackendUnavailableError):
            jobs.submit(TEXTS)
    assert (len(server.files), len(server.batches)) == (1, 0)
    with program() as (jobs, _):
        assert [status.id for status in jobs.poll()] == ["batch-0"]
    assert (len(server.files), len(server.batches)) == (1, 1)


def test_a_program_that_ended_before_the_upload(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, _):

        def end(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        jobs._model.call = end
        with pytest.raises(KeyboardInterrupt):
            jobs.submit(TEXTS)
    with program() as (jobs, _):
        assert jobs.poll() == []
        assert len(jobs.submit(TEXTS)) == 1


def test_a_refused_upload_leaves_nothing_behind(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, _):
        server.replies = [Reply(401, "invalid_api_key")]
        with pytest.raises(AuthenticationError):
            jobs.submit(TEXTS)
        server.replies = [Reply(500)]  # is tried again, with the whole file
        assert len(jobs.submit(TEXTS)) == 1
    assert len(server.files) == 1
    assert len(asked_for(server)) == len(TEXTS)


def test_a_batch_that_may_not_begin_is_given_up(server: FakeOpenAI, program: Callable[..., Any]) -> None:
    with program() as (jobs, _):
        begin = jobs._begin

        def refused(job: str, file: str) -> object:
            server.replies = [Reply(400, "billing_hard_limit_reached")]
            return begin(job, file)

        jobs._begin = refused
        with pytest.raises(BackendError, match="scripted"):
            jobs.submit(TEXTS)
    with program() as (jobs, _):
        assert jobs.poll() == []
        assert len(jobs.submit(TEXTS)) == 1


def test_other_spaces_have_batches_of_their_own(server: FakeOpenAI, make: Make, tmp_path: Path) -> None:
    with (
        CachedEmbedder(make(), tmp_path / "x.sqlite") as one,
        CachedEmbedder(make(dimensions=16), tmp_path / "x.sqlite") as other,
    ):
        BatchJobs(one).submit(TEXTS)
        assert BatchJobs(other).poll() == []
        assert len(BatchJobs(other).submit(TEXTS)) == 1


def test_what_has_no_batches(make: Make, tmp_path: Path) -> None:
    for embedder in (make(), HashEmbedder(), CachedEmbedder(HashEmbedder(), tmp_path / "x.sqlite")):
        with embedder, pytest.raises(ConfigurationError, match="need an OpenAI model and a cache"):
            BatchJobs(embedder)
    azure = make(base_url=None, azure_endpoint="http://127.0.0.1:9")
    with (
        CachedEmbedder(azure, tmp_path / "x.sqlite") as cached,
        pytest.raises(ConfigurationError, match="not to Azure"),
    ):
        BatchJobs(cached)
    with CachedEmbedder(make(), tmp_path / "x.sqlite") as cached, pytest.raises(InvalidInputError):
        BatchJobs(cached, max_inputs=50_001)


def test_costs() -> None:
    small = EmbeddingSpace("openai", "text-embedding-3-small", 256)
    assert cost_usd(small, 1_000_000) == pytest.approx(0.02)
    assert cost_usd(small, 1_000_000, batch=True) == pytest.approx(0.01)
    assert cost_usd(EmbeddingSpace("openai", "text-embedding-3-large", 3072), 500) == pytest.approx(6.5e-5)
    assert cost_usd(EmbeddingSpace("openai", "bge-m3", 1024), 500) is None
    assert cost_usd(EmbeddingSpace("elsewhere", "text-embedding-3-small", 1536), 500) is None
    assert cost_usd(polyvec.embedder("hash").space, 10**9) == 0
