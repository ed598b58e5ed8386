"""The commands tokens and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polyvec import tokenizer
from tests.servers.openai import KEY, FakeOpenAI, serve

Run = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A scripted OpenAI, and a configuration with an embedder that uses it and has a cache."""
    with serve() as state:
        (tmp_path / "polyvec.toml").write_text(
            f"""
            [embedders.small]
            model = "openai:text-embedding-3-small"
            base_url = "{state.url}"
            api_key = "{KEY}"
            dimensions = 32
            cache = "vectors.sqlite"
            """
        )
        monkeypatch.setenv("POLYVEC_CONFIG", str(tmp_path / "polyvec.toml"))
        yield state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.md").write_text("tiktoken is great! <|endoftext|>", "utf-8")
    (folder / "b.jsonl").write_text('{"text": "안녕하세요"}\n{"text": "hello"}\n', "utf-8")
    return folder


def test_tokens(run: Run, document: Callable[[Any], Any], folder: Path) -> None:
    result = document(run("tokens", str(folder), str(folder / "a.md"), "--json"))
    great = tokenizer.count("tiktoken is great! <|endoftext|>")
    assert result["files"][0] == {
        "path": str(folder), "documents": 3, "characters": 42, "tokens": great + 5 + 1,
    }  # fmt: skip
    assert result["files"][1]["tokens"] == great
    assert result["tokens"] == 2 * great + 6
    assert result["cost_usd"]["text-embedding-3-large"] == pytest.approx(0.13 * result["tokens"] / 1e6)
    assert result["encoding"] == "cl100k_base"
    printed = run("tokens", str(folder)).stdout
    assert f"{great + 6} tokens" in printed
    assert "text-embedding-3-small $0.000000" in printed


def test_tokens_of_stdin(run: Run, document: Callable[[Any], Any]) -> None:
    result = document(run("tokens", "-", "--json", input="tiktoken is great!"))
    assert result["files"] == [{"path": "-", "documents": 1, "characters": 18, "tokens": 6}]


def test_tokens_of_what_cannot_be_read(run: Run, folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"text": "fine"}\n{"no": 1}\n')
    result = run("tokens", str(folder), expect=1)
    assert "field 'text' is missing" in result.stderr
    run("tokens", str(folder / "nowhere.md"), expect=2)


def test_batch(run: Run, document: Callable[[Any], Any], folder: Path, server: FakeOpenAI) -> None:
    first = document(run("batch", str(folder), "--embedder", "small", "--json"))
    assert first["submitted"] == ["batch-0"]
    assert first["batches"][0]["texts"] == 3
    assert first["batches"][0]["cost_usd"] == pytest.approx(0.01 * first["batches"][0]["tokens"] / 1e6)
    again = document(run("batch", str(folder), "--embedder", "small", "--json"))
    assert again["submitted"] == []
    assert again["batches"][0]["status"] == "in_progress"
    server.end_batches()
    printed = run("batch", "--embedder", "small").stdout
    assert "completed" in printed
    assert "there are no batches" in run("batch", "--embedder", "small").stderr
    server.requests.clear()
    run("ingest", str(folder), "--embedder", "small", "--store", "memory://batched", "--quiet")
    assert server.requests == []


def test_batch_waits(
    run: Run,
    document: Callable[[Any], Any],
    folder: Path,
    server: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            server.end_batches()

    monkeypatch.setattr("polyvec.cli.embedding.time.sleep", sleep)
    result = document(run("batch", str(folder), "--embedder", "small", "--wait", "--json"))
    assert slept == [60, 60]
    assert [(batch["status"], batch["done"]) for batch in result["batches"]] == [("completed", 3)]


def test_a_batch_that_fails(run: Run, folder: Path, server: FakeOpenAI) -> None:
    run("batch", str(folder), "--embedder", "small")
    server.end_batches(refused="hello")
    assert "this text is refused" in run("batch", "--embedder", "small", expect=1).stderr
    assert "need an OpenAI model and a cache" in run("batch", "--embedder", "hash", expect=2).stderr
