"""Vectors kept in a file: what is paid for once is not paid for again."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyvec
from polyvec import BackendError, ConfigurationError, Document, EmbeddingSpace, Pipeline, PolyvecError
from polyvec.embed import cache as cache_module
from polyvec.embed.cache import CachedEmbedder
from polyvec.embed.hashing import HashEmbedder


class Counting(HashEmbedder):
    """Remembers the texts that it was asked for, and refuses those with "bad"."""

    def __init__(self, dimensions: int = 16, model: str = "m") -> None:
        super().__init__(dimensions)
        self.batch_size = 8
        self.asked: list[str] = []
        self._space = EmbeddingSpace("test", model, dimensions)

    def _do_embed(self, texts: list[str]) -> Any:
        if any("bad" in text for text in texts):
            raise BackendError("a bad one")
        self.asked += texts
        return super()._do_embed(texts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "vectors.sqlite"


def outcomes_of(embedder: CachedEmbedder, texts: list[str]) -> list[np.ndarray[Any, Any] | str]:
    return [
        str(outcome) if isinstance(outcome, PolyvecError) else outcome
        for outcome in embedder.embed_stream(texts)
    ]


def test_a_second_database_costs_nothing(path: Path) -> None:
    documents = [Document(f"doc {n}", f"What there is to say about thing {n}.") for n in range(50)]
    usage = []
    for _ in range(2):  # as two programs, one after the other
        with polyvec.connect("memory://") as store, CachedEmbedder(Counting(), path) as embedder:
            pipeline = Pipeline.open(store, "docs", embedder)
            assert pipeline.ingest(documents).written == 50
            assert pipeline.search("thing 7", limit=1)[0].id == "doc 7#0"
            usage.append((embedder.usage.texts, embedder.usage.cached))
    assert usage == [(51, 0), (0, 51)]


def test_vectors_are_the_same_with_and_without(path: Path) -> None:
    texts = [f"text {n}" for n in range(30)] + ["", "lone \ud800", "text 3"]
    plain = HashEmbedder(16)
    for _ in range(2):
        with CachedEmbedder(Counting(), path) as embedder:
            np.testing.assert_array_equal(embedder.embed_documents(texts), plain.embed_documents(texts))
            np.testing.assert_array_equal(outcomes_of(embedder, texts), plain.embed_documents(texts))
            np.testing.assert_array_equal(embedder.embed_query("text 3"), plain.embed_query("text 3"))
            assert embedder.uncached(["text 1", "new"]) == ["new"]
            assert embedder.embed_documents([]).shape == (0, 16)


def test_equal_texts_of_one_call_are_asked_for_once(path: Path) -> None:
    with CachedEmbedder(inner := Counting(), path) as embedder:
        embedder.embed_documents(["a", "b", "a"])
    assert inner.asked == ["a", "b"]


def test_spaces_variants_and_queries_are_kept_apart(path: Path) -> None:
    inner = [Counting(), Counting(model="n"), Counting(dimensions=32), Counting()]
    inner[3].variant = "passage: "
    for one in inner:
        with CachedEmbedder(one, path) as embedder:
            embedder.embed_documents(["a"])
            embedder.embed_query("a")
            assert one.asked == ["a", "a"]
    for one in inner:
        with CachedEmbedder(one, path) as embedder:
            assert embedder.uncached(["a"]) == []


@pytest.mark.parametrize(
    "known", [[], range(0, 40, 2), range(20), range(20, 40), range(40), [0, 1, *range(34, 40)]]
)
@pytest.mark.parametrize("held", [1, 3, 4000])
def test_a_stream_keeps_the_order(
    path: Path, known: list[int], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_HELD", held)
    monkeypatch.setattr(cache_module, "_AT_ONCE", 6)
    texts = [f"text {n}" if n not in (9, 33) else f"bad {n}" for n in range(40)]
    with CachedEmbedder(inner := Counting(), path) as embedder:
        embedder.embed_documents([texts[n] for n in known if n not in (9, 33)])
        already = len(inner.asked)
        found = outcomes_of(embedder, texts)
        expected = HashEmbedder(16).embed_documents(texts)
        for n, outcome in enumerate(found):
            if n in (9, 33):
                assert outcome == "a bad one"
            else:
                np.testing.assert_array_equal(outcome, expected[n])
        asked = set(inner.asked[already:]) - {"hello"}
        assert asked == {texts[n] for n in range(40) if n not in (9, 33) and n not in known}
        assert embedder.usage.cached == len([n for n in known if n not in (9, 33)])
        embedder.embed_documents([text for text in texts if "bad" not in text])
        assert set(inner.asked[already:]) - {"hello"} == asked


def test_a_stream_without_end_and_its_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_HELD", 50)
    monkeypatch.setattr(cache_module, "_AT_ONCE", 10)
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for n in itertools.count():
            read += 1
            yield "known" if n % 100 else f"new {n}"

    with CachedEmbedder(Counting(), path) as embedder:
        embedder.embed_documents(["known"])
        for n, _ in enumerate(itertools.islice(embedder.embed_stream(texts()), 2000)):
            assert read <= n + 1 + 50 + 10 + 8


def test_what_was_paid_for_is_kept_when_a_run_is_interrupted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_AT_ONCE", 4)
    with CachedEmbedder(Counting(), path) as embedder:
        stream = embedder.embed_stream(f"text {n}" for n in itertools.count())
        list(itertools.islice(stream, 5))
        stream.close()  # type: ignore[attr-defined]
        assert embedder.uncached([f"text {n}" for n in range(5)]) == []

        def broken() -> Iterator[str]:
            yield from (f"other {n}" for n in range(8))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(embedder.embed_stream(broken()))
        assert embedder.uncached([f"other {n}" for n in range(8)]) == []


def test_a_damaged_vector_is_made_again(path: Path) -> None:
    with CachedEmbedder(inner := Counting(), path) as embedder:
        embedder.embed_documents(["a", "b", "c"])
        for text, data in (("a", bytes(20)), ("b", np.full(16, np.nan, "<f4").tobytes())):
            embedder.file.execute("UPDATE vectors SET vector = ? WHERE key = ?", (data, embedder.key(text)))
        inner.asked.clear()
        found = embedder.embed_documents(["a", "b", "c"])
        np.testing.assert_array_equal(found, HashEmbedder(16).embed_documents(["a", "b", "c"]))
        assert inner.asked == ["a", "b"]


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no database at all, and long enough to be looked at." * 20)
    with pytest.raises(ConfigurationError, match="cannot be opened: file is not a database; name another"):
        CachedEmbedder(Counting(), tmp_path / "text")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        CachedEmbedder(Counting(), tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        CachedEmbedder(Counting(), tmp_path / "text" / "below")


def test_a_cache_that_breaks_costs_no_vectors(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with CachedEmbedder(inner := Counting(), path) as embedder, caplog.at_level(logging.WARNING):
        embedder.embed_documents(["a"])
        embedder.file.execute("DROP TABLE vectors")
        texts = ["a", "b", "c"]
        expected = HashEmbedder(16).embed_documents(texts)
        np.testing.assert_array_equal(outcomes_of(embedder, texts), expected)
        np.testing.assert_array_equal(embedder.embed_documents(texts), expected)
        assert inner.asked == ["a", *texts, *texts]
    assert [record.message for record in caplog.records] == [
        f"the embedding cache {path} is not used any more: no such table: vectors"
    ]


def test_close_and_use_again(path: Path) -> None:
    embedder = CachedEmbedder(inner := Counting(), path)
    embedder.embed_query("x")
    embedder.close()
    embedder.close()
    embedder.embed_query("x")
    embedder.close()
    assert inner.asked == ["x"]


def test_many_threads(path: Path) -> None:
    with CachedEmbedder(Counting(), path) as embedder:
        failures: list[BaseException] = []

        def embed(n: int) -> None:
            try:
                for k in range(20):
                    embedder.embed_documents([f"text {(n + k) % 13}", f"own {n} {k}"])
            except Exception as error:  # noqa: BLE001  # looked at below
                failures.append(error)

        threads = [threading.Thread(target=embed, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert embedder.uncached([f"own {n} 19" for n in range(8)]) == []


PROGRAM = """
import logging, sys
from polyvec.embed.cache import CachedEmbedder
from polyvec.embed.hashing import HashEmbedder
logging.basicConfig(level=logging.WARNING)
with CachedEmbedder(HashEmbedder(16), sys.argv[1]) as embedder:
    for n in range(200):
        embedder.embed_documents([f"text {n}", f"{sys.argv[2]} {n}"])
"""


def test_many_processes_begin_one_file(path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(n)], stderr=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    with CachedEmbedder(HashEmbedder(16), path) as embedder:
        assert embedder.uncached([f"{n} {k}" for n in range(4) for k in range(200)]) == []


def test_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "polyvec.toml").write_text(
        '[embedders.kept]\nmodel = "hash:8"\ncache = "kept/vectors.sqlite"\n'
    )
    monkeypatch.setenv("POLYVEC_CONFIG", str(folder / "polyvec.toml"))
    with polyvec.embedder("kept") as embedder:
        assert isinstance(embedder, CachedEmbedder)
        assert repr(embedder).startswith("<embedder hash:words")
    assert (folder / "kept" / "vectors.sqlite").exists()
    with polyvec.embedder("hash:8", cache=tmp_path / "here.sqlite"):
        assert (tmp_path / "here.sqlite").exists()
    with pytest.raises(ConfigurationError, match="cache must be the path of a file, not 5"):
        polyvec.embedder("hash", cache=5)
    with pytest.raises(ConfigurationError, match=r"unknown option 'cash' \(did you mean 'cache'\?\)"):
        polyvec.embedder("hash", cash="x")
