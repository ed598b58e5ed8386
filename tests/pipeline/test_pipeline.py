"""The pipeline over the memory store: what is written, skipped, reused, removed, reported and refused."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import polyvec
from polyvec import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    Collection,
    Document,
    EmbeddingSpace,
    EmbeddingSpaceError,
    F,
    IngestPlan,
    IngestReport,
    InvalidInputError,
    Pipeline,
    PolyvecError,
    Progress,
    Record,
    RecordBatch,
    SpecMismatchError,
    UnreadableDocument,
    WriteFailure,
    WriteReport,
    ingest,
)
from polyvec.pieces import RESERVED, record_id, same_value, text_hash
from polyvec.types import FloatArray
from tests.pipeline.tools import (
    WatchedCollection,
    WatchedEmbedder,
    document,
    new_collection,
    paragraphs,
    state,
)


class Setup:
    """A watched embedder, a watched collection, and pipelines of them."""

    def __init__(self) -> None:
        self.embedder = WatchedEmbedder()
        self.collection = new_collection(self.embedder)
        self.watched = WatchedCollection(self.collection)

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.embedder, self.watched, chunk_tokens=32, overlap_tokens=0)

    def ingest(self, *documents: Document, **options: Any) -> IngestReport:
        self.embedder.calls.clear()
        self.watched.calls.clear()
        return self.pipeline.ingest(iter(documents), **options)

    def plan(self, *documents: Document, **options: Any) -> IngestPlan:
        return self.pipeline.plan(iter(documents), **options)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def numbers(report: IngestReport | IngestPlan) -> dict[str, int]:
    names = ("documents", "chunks", "skipped", "embedded", "reused", "deleted")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


# What is written ---------------------------------------------------------------------------------------


def test_records(setup: Setup) -> None:
    instant = datetime(2024, 5, 1, tzinfo=UTC)
    text = f"  {paragraphs('a', 1, 2)}\n"
    report = setup.ingest(Document("a", text, {"tags": ["x"], "at": instant, "n": {"deep": [1, 1.0, True]}}))
    assert numbers(report) == {"documents": 1, "chunks": 2, "embedded": 2}
    assert report.written == 2
    assert report.failures == ()
    first, second = setup.collection.get(["a#0", "a#1"])
    assert first is not None
    assert second is not None
    assert first.text == paragraphs("a", 1)
    assert (first.metadata["_chunk"], first.metadata["_chunks"]) == (0, 2)
    start = text.index("Paragraph 2")
    assert second.metadata == {
        "tags": ["x"],
        "at": instant,
        "n": {"deep": [1, 1.0, True]},
        "_source": "a",
        "_chunk": 1,
        "_start": start,
        "_end": len(text) - 1,
        "_hash": text_hash(text[start:-1]),
    }
    assert second.vector is not None
    np.testing.assert_allclose(second.vector, setup.embedder.embed_query(text[start:-1]), rtol=1e-6)
    assert {"_source", "_chunk", "_start", "_end", "_hash", "_chunks"} == RESERVED


def test_running_it_twice_changes_and_embeds_nothing(setup: Setup) -> None:
    documents = [document(f"d{n}", *range(n % 5), n=n) for n in range(40)]  # eight are empty
    setup.ingest(*documents)
    before = state(setup.collection)
    report = setup.ingest(*documents)
    assert state(setup.collection) == before
    assert numbers(report) == {"documents": 40, "chunks": 80, "skipped": 80}
    assert setup.embedder.calls == []
    assert set(setup.watched.calls) == {"count", "get"}


def test_round_trips_are_few(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 50)
    documents = [document(f"d{n}", 1, 2) for n in range(200)]
    setup.ingest(*documents)
    assert set(setup.watched.calls) == {"count", "upsert", "flush"}  # an empty collection is not asked
    setup.ingest(*documents)
    assert setup.watched.calls == ["count"] + ["get"] * (400 // 50)


def test_an_edited_document_is_embedded_where_it_was_edited(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, 3), document("b", 1))
    report = setup.ingest(document("a", 1, 7, 3), document("b", 1))
    assert numbers(report) == {"documents": 2, "chunks": 4, "skipped": 3, "embedded": 1}
    assert setup.embedder.texts == [paragraphs("a", 7)]
    assert state(setup.collection)["a#1"][0] == paragraphs("a", 7)


def test_a_shrunk_document_loses_its_last_chunks(setup: Setup) -> None:
    setup.ingest(document("a", *range(9)), document("b", 1, 2))
    report = setup.ingest(document("a", 0, 1), document("b", 1, 2))
    assert numbers(report) == {"documents": 2, "chunks": 4, "skipped": 3, "reused": 1, "deleted": 7}
    assert sorted(state(setup.collection)) == ["a#0", "a#1", "b#0", "b#1"]
    assert setup.watched.count_of("delete") == 1
    report = setup.ingest(Document("a", "\n "))
    assert numbers(report) == {"documents": 1, "deleted": 2}
    assert sorted(state(setup.collection)) == ["b#0", "b#1"]


def test_what_stands_beyond_a_gap_is_found_too(setup: Setup) -> None:
    setup.ingest(document("a", *range(9)))
    setup.collection.delete(["a#2", "a#3"])
    other = Record("other", np.ones(16), metadata={"year": 2024})
    setup.collection.upsert(other)
    setup.ingest(document("a", 0, 1))
    assert sorted(state(setup.collection)) == ["a#0", "a#1", "other"]


def test_a_first_record_that_somebody_changed_does_no_harm(setup: Setup) -> None:
    for counted in (None, "many", -3, 0):
        setup.ingest(document("a", 1, 2), document("b", 1))
        setup.collection.update_metadata(["a#0", "b#0"], set={"_chunks": counted})
        report = setup.ingest(document("a", 1, 2), Document("b", ""))
        assert (report.reused, report.deleted) == (1, 1)
        assert sorted(state(setup.collection)) == ["a#0", "a#1"]
        assert state(setup.collection)["a#0"][1]["_chunks"] == 2


def test_the_first_record_of_a_document_is_written_before_the_others(setup: Setup) -> None:
    setup.embedder.batch_size = 100
    written: list[list[str]] = []

    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "upsert":
            written.append(args[0].ids)
        return call(*args, **options)

    setup.watched.around = around
    setup.ingest(document("a", 1, 2, 3), document("one", 1), document("b", 1, 2))
    assert written == [["a#0", "b#0"], ["a#1", "a#2", "one#0", "b#1"]]


def test_nothing_is_written_of_a_document_whose_first_record_is_refused(setup: Setup) -> None:
    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name != "upsert" or "a#0" not in args[0].ids:
            return call(*args, **options)
        error = BackendError("too large")
        error.report = WriteReport(len(args[0]) - 1, (WriteFailure("a#0", BackendError("a#0 is too large")),))
        raise error

    setup.watched.around = around
    report = setup.ingest(document("a", *range(10)), document("b", 1))
    assert [item.source for item in report.failures] == ["a"]
    assert sorted(state(setup.collection)) == ["b#0"]
    assert report.written == 1


def test_when_only_metadata_changed_the_vector_is_kept(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, year=2020, old=True))
    before = state(setup.collection)
    report = setup.ingest(document("a", 1, 2, year=2021, tag="x"))
    assert numbers(report) == {"documents": 1, "chunks": 2, "reused": 2}
    assert setup.embedder.calls == []
    after = state(setup.collection)
    kept = {key: value for key, value in before["a#0"][1].items() if key in RESERVED}
    assert after["a#0"][1] == kept | {"year": 2021, "tag": "x"}
    assert after["a#0"][2] == before["a#0"][2]


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1.0), (1, True), (["a"], ["a", "b"]), ({"k": 1}, {"k": 1.0}), (None, 0)]
)
def test_a_change_of_type_is_a_change(setup: Setup, old: object, new: object) -> None:
    setup.ingest(document("a", 1, key=old))
    assert numbers(setup.ingest(document("a", 1, key=new)))["reused"] == 1
    value = state(setup.collection)["a#0"][1]["key"]
    assert same_value(value, new)
    assert not same_value(value, old)


def test_when_a_paragraph_is_inserted_the_others_keep_their_vectors(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, 3))
    report = setup.ingest(document("a", 9, 1, 2, 3))
    assert numbers(report) == {"documents": 1, "chunks": 4, "reused": 3, "embedded": 1}
    fresh = Setup()
    fresh.ingest(document("a", 9, 1, 2, 3))
    assert state(setup.collection) == state(fresh.collection)


def test_a_vector_is_not_taken_from_a_record_that_has_just_changed(setup: Setup) -> None:
    setup.ingest(document("a", 1, year=1))

    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "get" and options.get("include_vectors", True):  # somebody writes in between
            vector = np.ones(16, np.float32)
            setup.collection.upsert(Record("a#0", vector, metadata={"_source": "a", "_hash": "another"}))
        return call(*args, **options)

    setup.watched.around = around
    report = setup.ingest(document("a", 1, year=2))
    assert numbers(report) == {"documents": 1, "chunks": 1, "embedded": 1}


def test_equal_texts_are_embedded_once(setup: Setup) -> None:
    report = setup.ingest(*(Document(f"d{n}", "The same text.") for n in range(10)), document("other", 1))
    assert setup.embedder.texts == ["The same text.", paragraphs("other", 1)]
    assert (report.embedded, report.written) == (2, 11)
    assert report.tokens == setup.plan(Document("x", "The same text."), document("y", 1)).tokens
    assert state(setup.collection)["d0#0"][2] == state(setup.collection)["d9#0"][2]
    twice = Document("twice", f"{paragraphs('p', 1)}\n\n{paragraphs('p', 1)}")
    assert setup.ingest(twice).embedded == 1
    assert {"twice#0", "twice#1"} < state(setup.collection).keys()


def test_batches_are_bounded_where_little_is_embedded(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 50)
    sizes: list[int] = []

    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "upsert":
            sizes.append(len(args[0]))
        return call(*args, **options)

    setup.watched.around = around
    setup.ingest(*(Document(f"d{n}", "The same text.") for n in range(175)))
    assert sizes == [50, 50, 50, 25]


def test_other_records_of_the_collection_are_left_alone(setup: Setup) -> None:
    own = Record("own", np.ones(16), text="mine", metadata={"_chunk": 5})
    setup.collection.upsert(own)
    scoped = setup.collection.scoped("tenant")
    scoped.upsert(Record("a#0", np.ones(16)))
    setup.ingest(document("a", 1, 2))
    setup.ingest(document("b", 1), prune=True)
    assert sorted(state(setup.collection)) == ["b#0", "own"]
    assert scoped.count() == 1


def test_ids_are_short_enough_and_distinct() -> None:
    long = "가" * 300
    sources = ["a", "a#1", long, long + "x", "x" * 510, "x" * 511, "x" * 512, "x" * 513, "é" * 255]
    sources += [
        record_id(source, 0).rpartition(":")[0] for source in sources
    ]  # the shortened form as a source
    ids = [record_id(source, number) for source in dict.fromkeys(sources) if source for number in (0, 1, 10)]
    assert len(set(ids)) == len(ids)
    assert max(len(id.encode()) for id in ids) <= 512
    assert record_id("handbook/travel.md", 3) == "handbook/travel.md#3"
    assert record_id(long, 7).startswith("가가가")
    assert record_id("x" * 510, 1) == "x" * 510 + "#1"
    assert record_id("x" * 510, 10).endswith(":10")


def test_long_sources(setup: Setup) -> None:
    long = "가" * 1000
    documents = [Document(long, paragraphs("a", 1, 2, 3)), Document(f"{long}x", paragraphs("a", 1))]
    setup.ingest(*documents)
    assert numbers(setup.ingest(*documents))["skipped"] == 4
    assert setup.ingest(Document(long, paragraphs("a", 1))).deleted == 2
    assert setup.collection.count(F("_source") == long) == 1


# Pruning -----------------------------------------------------------------------------------------------


def test_prune_removes_what_the_run_did_not_see(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "PRUNED_AT_ONCE", 4)
    setup.ingest(*(document(f"d{n}", 1, 2, 3) for n in range(6)))
    assert setup.plan(document("d0", 1, 2, 3), prune=True).pruned == 15
    assert setup.collection.count() == 18
    report = setup.ingest(document("d0", 1, 2, 3), prune=True)
    assert (report.pruned, report.prune_refused, report.deleted) == (15, None, 0)
    assert sorted(state(setup.collection)) == ["d0#0", "d0#1", "d0#2"]


def test_prune_removes_the_first_record_of_a_document_last(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PRUNED_AT_ONCE", 2)
    setup.ingest(*(document(f"d{n}", 1, 2, 3) for n in range(4)))
    removed: list[str] = []

    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "delete":
            removed.extend(args[0])
        return call(*args, **options)

    setup.watched.around = around
    setup.ingest(document("other", 1), prune=True)
    assert sorted(removed[-4:]) == ["d0#0", "d1#0", "d2#0", "d3#0"]
    assert len(removed) == 12


def test_without_prune_nothing_is_pruned(setup: Setup) -> None:
    setup.ingest(document("a", 1))
    report = setup.ingest(document("b", 1))
    assert (report.pruned, report.prune_refused) == (0, None)
    assert setup.collection.count() == 2


def test_prune_is_refused_when_something_could_not_be_read(setup: Setup) -> None:
    setup.ingest(document("a", 1), document("b", 1))
    lost = UnreadableDocument("dir/b.md", InvalidInputError("no permission"))
    for report in (
        setup.plan(document("a", 1), lost, prune=True),
        setup.ingest(document("a", 1), lost, prune=True),
    ):
        assert report.pruned == 0
        assert report.prune_refused is not None
        assert "could not be read" in report.prune_refused
        assert [(item.source, item.reason) for item in report.failures] == [("dir/b.md", "no permission")]
    assert setup.collection.count() == 2


def test_prune_is_refused_when_nothing_was_read(setup: Setup) -> None:
    setup.ingest(document("a", 1))
    report = setup.ingest(prune=True)
    assert report.prune_refused == "no document was read (clear() empties a collection)"
    assert setup.collection.count() == 1


def test_prune_keeps_what_failed_for_another_reason(setup: Setup) -> None:
    setup.ingest(document("a", 1), document("b", 1))
    report = setup.ingest(document("a", 1), document("b", 1, _hash="mine"), prune=True)
    assert len(report.failures) == 1
    assert setup.collection.count() == 2


# Failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (Document("bad", "lone \ud800"), "the text holds a lone surrogate"),
        (Document("bad \ud800", "x"), "the source holds a lone surrogate"),
        (Document("", "x"), "must not be empty or hold NUL"),
        (Document("a\0b", "x"), "must not be empty or hold NUL"),
        (Document("bad", 5), "the text must be a str, not int"),  # type: ignore[arg-type]
        (Document(5, "x"), "the source must be a str"),  # type: ignore[arg-type]
        (
            Document("bad", "x", {"_source": "me"}),
            "the metadata uses _source, which polyvec keeps for itself",
        ),
        (Document("bad", "x", {"_hash": 1, "_end": 2}), "uses _end, _hash"),
        (Document("bad", "x", {"when": datetime(2024, 1, 1)}), "without a time zone"),  # noqa: DTZ001
        (Document("bad", "x", {"n": 2**63}), "does not fit in an int64"),
        (Document("bad", "x", None), "metadata must be a dict"),  # type: ignore[arg-type]
        (Document("good", "again"), "another document of this run has the source 'good' already"),
    ],
)
def test_a_document_that_breaks_a_rule_is_reported_and_the_rest_goes_on(
    setup: Setup, bad: Document, match: str
) -> None:
    documents = [document("good", 1, 2), bad, document("also good", 1)]
    for report in (setup.plan(*documents), setup.ingest(*documents)):
        assert report.documents == 3
        assert [(item.source, match in item.reason) for item in report.failures] == [(bad.source, True)]
    assert sorted(state(setup.collection)) == ["also good#0", "good#0", "good#1"]
    fresh = Setup()
    with pytest.raises(InvalidInputError, match=match.split("(", maxsplit=1)[0]) as caught:
        fresh.ingest(*documents, fail_fast=True)
    assert isinstance(caught.value.report, IngestReport)
    assert [item.source for item in caught.value.report.failures] == [bad.source]
    assert caught.value.report.documents == 2


def test_what_is_no_document_is_an_error_of_the_program(setup: Setup) -> None:
    with pytest.raises(InvalidInputError, match="expected a Document, not str"):
        setup.ingest("text")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [BackendError, ValueError, InvalidInputError])
def test_a_text_that_cannot_be_embedded_is_isolated(setup: Setup, kind: type[Exception]) -> None:
    setup.embedder.batch_size = 16
    setup.ingest(document("d3", 1, 2))
    before = state(setup.collection)["d3#0"]

    def before_call(texts: list[str]) -> None:
        if any("bad" in text for text in texts):
            raise kind("this text is refused")

    setup.embedder.before = before_call
    documents = [document(f"d{n}", 1, 2) for n in range(10)]
    documents[3] = Document("d3", f"{paragraphs('d3', 8)}\n\nThis is bad.\n\n{paragraphs('d3', 9)}")
    report = setup.ingest(*documents)
    assert [item.source for item in report.failures] == ["d3"]
    assert "this text is refused" in report.failures[0].reason
    assert setup.collection.count() == 9 * 2 + 2
    assert state(setup.collection)["d3#0"] == before  # what it was before
    with pytest.raises(PolyvecError, match="this text is refused"):
        setup.ingest(*documents, fail_fast=True)


def test_a_failing_text_fails_every_document_that_has_it(setup: Setup) -> None:
    def before_call(texts: list[str]) -> None:
        if "bad" in texts:
            raise BackendError("refused")

    setup.embedder.before = before_call
    report = setup.ingest(Document("a", "bad"), Document("b", "good"), Document("c", "bad"))
    assert [item.source for item in report.failures] == ["a", "c"]
    assert list(state(setup.collection)) == ["b#0"]


def test_a_document_that_fails_keeps_what_the_collection_has(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, 3))
    before = state(setup.collection)

    def before_call(texts: list[str]) -> None:
        if "bad" in texts:
            raise BackendError("refused")

    setup.embedder.before = before_call
    report = setup.ingest(Document("a", "bad"), document("b", 1))
    assert (len(report.failures), report.deleted) == (1, 0)
    assert before.items() < state(setup.collection).items()


def test_what_was_written_is_visible_at_the_end(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, 3))
    assert setup.watched.calls == ["count", "upsert", "upsert", "flush"]
    setup.ingest(document("a", 1, 9))
    assert setup.watched.calls == ["count", "get", "get", "delete", "upsert", "upsert", "flush"]


def test_a_long_document_that_fails_is_given_up(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 5)

    def before_call(texts: list[str]) -> None:
        if any("Paragraph 7 " in text for text in texts):
            raise BackendError("refused")

    setup.embedder.before = before_call
    report = setup.ingest(document("long", *range(40)), document("next", 1))
    assert [item.source for item in report.failures] == ["long"]
    assert "next#0" in state(setup.collection)
    assert report.embedded < 15
    setup.embedder.before = lambda texts: None
    assert setup.ingest(document("long", *range(40))).failures == ()
    assert setup.collection.count() == 41


@pytest.mark.parametrize(
    "vectors", [np.zeros((1, 16)), np.full((1, 16), np.nan), np.ones((1, 15)), np.ones((2, 16))]
)
def test_wrong_vectors_of_an_embedder_are_reported(setup: Setup, vectors: FloatArray) -> None:
    """Of an embedder of somebody else's, which checks nothing itself."""
    good = setup.embedder.embed_documents

    class Theirs:
        space, max_tokens, batch_size = setup.embedder.space, 100, 8

        def embed_documents(self, texts: list[str]) -> Any:
            if texts == ["bad"]:
                return vectors
            return np.full((len(texts), 16), np.inf) if "bad" in texts else good(texts)

    theirs: Any = Theirs()
    pipeline = Pipeline(theirs, setup.collection, chunk_tokens=32)
    report = pipeline.ingest([Document("a", "bad"), Document("b", "good")])
    assert [item.source for item in report.failures] == ["a"]
    assert list(state(setup.collection)) == ["b#0"]


def test_an_embedder_that_refuses_every_text_is_asked_twice_only(setup: Setup) -> None:
    def before_call(texts: list[str]) -> None:
        raise BackendError("unknown parameter: dimensions")

    setup.embedder.before = before_call
    setup.embedder.batch_size = 100
    with pytest.raises(BackendError, match="unknown parameter") as caught:
        setup.ingest(*(document(f"d{n}", 1) for n in range(100)))
    assert len(setup.embedder.calls) == 2
    assert isinstance(caught.value.report, IngestReport)
    assert caught.value.report.written == 0


@pytest.mark.parametrize("kind", [AuthenticationError, polyvec.QuotaExceededError, BackendUnavailableError])
def test_trouble_that_no_text_is_the_reason_of_ends_the_run(setup: Setup, kind: type[PolyvecError]) -> None:
    def before_call(texts: list[str]) -> None:
        if len(setup.embedder.calls) == 4:
            raise kind("no more")

    setup.embedder.before = before_call
    with pytest.raises(kind, match="no more") as caught:
        setup.ingest(*(document(f"d{n}", 1) for n in range(30)))
    report = caught.value.report
    assert isinstance(report, IngestReport)
    assert report.written == setup.collection.count() == 9  # what was embedded before is written
    assert report.failures == ()
    assert len(setup.embedder.calls) == 4


def test_a_record_that_the_database_refuses_fails_its_document(setup: Setup) -> None:
    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name != "upsert" or "b#1" not in args[0].ids:
            return call(*args, **options)
        error = BackendError("too large")
        error.report = WriteReport(len(args[0]) - 1, (WriteFailure("b#1", BackendError("b#1 is too large")),))
        raise error

    setup.watched.around = around
    report = setup.ingest(document("a", 1), document("b", 1, 2), document("c", 1))
    assert [(item.source, item.reason) for item in report.failures] == [("b", "b#1 is too large")]
    assert report.written == 3


@pytest.mark.parametrize(
    "error",
    [BackendUnavailableError("gone"), BackendError("odd"), AuthenticationError("no"), OSError("disk")],
)
def test_a_database_that_fails_ends_the_run(setup: Setup, error: Exception) -> None:
    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "upsert":
            raise error
        return call(*args, **options)

    setup.watched.around = around
    with pytest.raises(type(error), match=str(error)):
        setup.ingest(*(document(f"d{n}", 1) for n in range(30)))
    assert len(setup.embedder.calls) <= 3  # it was not embedded in vain for long
    assert threading.active_count() < 10


def test_failures_do_not_keep_their_documents_in_memory(setup: Setup) -> None:
    tracemalloc.start()
    report = setup.ingest(*(Document(f"d{n}", "x" * 100_000, {"_hash": n}) for n in range(2)))
    start = tracemalloc.get_traced_memory()[0]

    def documents() -> Iterator[Document]:
        for n in range(200):
            yield Document(f"d{n}", f"{n}" + "x" * 100_000, {"_hash": n})

    report = setup.pipeline.ingest(documents())
    used = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert len(report.failures) == 200
    assert used < 2_000_000  # of 20 MB


# Flow --------------------------------------------------------------------------------------------------


def test_embedding_goes_on_while_the_batch_before_is_written(setup: Setup) -> None:
    embedding = threading.Event()
    overlapped = []

    def around(name: str, call: Any, args: Any, options: dict[str, Any]) -> Any:
        if name == "upsert" and len(setup.embedder.calls) < 4:
            overlapped.append(embedding.wait(20))  # until the next batch is being embedded
            embedding.clear()
        return call(*args, **options)

    def before_call(texts: list[str]) -> None:
        if len(setup.embedder.calls) > 1:
            embedding.set()

    setup.watched.around = around
    setup.embedder.before = before_call
    setup.ingest(*(document(f"d{n}", 1) for n in range(30)))
    assert overlapped[0] is True


def test_documents_are_read_no_further_ahead_than_a_window(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 10)
    ahead = []
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for n in range(300):
            ahead.append(read - setup.collection.count())
            read += 1
            yield document(f"d{n}", 1)

    setup.pipeline.ingest(documents())
    assert setup.collection.count() == 300
    assert max(ahead) <= 10 + 3 * 3


def test_ctrl_c_stops_cleanly(setup: Setup) -> None:
    def before_call(texts: list[str]) -> None:
        if len(setup.embedder.calls) == 3:
            raise KeyboardInterrupt

    setup.embedder.before = before_call
    documents = [document(f"d{n}", 1) for n in range(30)]
    with pytest.raises(KeyboardInterrupt):
        setup.ingest(*documents)
    assert setup.collection.count() == 6  # what was on its way has arrived
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("polyvec-ingest")]
    setup.embedder.before = lambda texts: None
    assert setup.ingest(*documents).skipped == 6


def test_an_error_of_the_iterable_passes_through(setup: Setup) -> None:
    def documents() -> Iterator[Document]:
        yield document("a", 1)
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        setup.pipeline.ingest(documents())


def test_progress(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 5)
    seen: list[Progress] = []
    documents = [document(f"d{n}", 1, 2) for n in range(20)] + [document("bad", 1, _hash=0)]
    report = setup.pipeline.ingest(documents, on_progress=seen.append)
    last = seen[-1]
    assert (last.documents, last.total, last.failures) == (21, 21, 1)
    assert (last.chunks, last.written, last.embedded, last.skipped) == (40, 40, 40, 0)
    assert last.tokens == report.tokens > 0
    assert last.rate == pytest.approx(40 / last.elapsed_s)
    assert len(seen) > 10
    for before, after in pairwise(seen):
        assert before.documents <= after.documents
        assert before.written <= after.written
    seen.clear()
    setup.pipeline.ingest(iter(documents), on_progress=seen.append)
    assert (seen[-1].total, seen[-1].skipped, seen[-1].documents) == (None, 40, 21)


def test_memory_is_bounded_by_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sink:
        """A collection that keeps nothing."""

        def __init__(self, collection: Collection) -> None:
            self.info, self.name, self.written = collection.info, "sink", 0

        def count(self, filter: object = None) -> int:
            return 0 if filter is None else 1000

        def upsert(self, batch: RecordBatch, *, wait: bool) -> WriteReport:
            self.written += len(batch)
            return WriteReport(len(batch))

        def flush(self) -> None:
            pass

    class Constant(WatchedEmbedder):
        """Is quick under tracemalloc, and remembers nothing."""

        def _do_embed(self, texts: list[str]) -> FloatArray:
            return np.ones((len(texts), 16), np.float32)

    def peak(count: int) -> int:
        embedder = Constant(batch_size=50)
        sink: Any = Sink(new_collection(embedder))
        tracemalloc.start()
        Pipeline(embedder, sink).ingest(Document(f"d{n}", f"{n} " + "words " * 100) for n in range(count))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sink.written == count
        return used

    monkeypatch.setattr(ingest, "WINDOW", 100)
    peak(10)
    small, large = peak(300), peak(3000)
    assert large - small < 2700 * 200  # the sources seen, and nothing else: a document has 600 bytes


# Plan --------------------------------------------------------------------------------------------------


def test_plan_says_what_ingest_does_and_does_nothing(setup: Setup) -> None:
    setup.ingest(document("a", 1, 2, 3, 4), document("b", 1, 2, year=1), document("gone", 1))
    before = state(setup.collection)
    documents = [
        document("a", 1, 9),
        document("b", 1, 2, year=2),
        document("new", 1),
        document("newer", 5, _end=1),
    ]
    setup.embedder.calls.clear()
    setup.watched.calls.clear()
    plan = setup.plan(*documents, prune=True)
    assert setup.embedder.calls == []
    assert set(setup.watched.calls) <= {"count", "get", "scan_batches"}
    assert state(setup.collection) == before
    report = setup.ingest(*documents, prune=True)
    for name in ("documents", "chunks", "skipped", "embedded", "reused", "deleted", "pruned", "tokens"):
        assert getattr(plan, name) == getattr(report, name), name
    assert numbers(plan) == {
        "documents": 4, "chunks": 5, "embedded": 2, "reused": 3, "deleted": 2,
    }  # fmt: skip
    assert plan.pruned == 1
    assert [item.source for item in plan.failures] == ["newer"]
    again = setup.plan(*documents)
    assert (again.embedded, again.tokens, again.deleted, again.pruned) == (0, 0, 0, 0)


# Embedding space ---------------------------------------------------------------------------------------


def test_another_model_of_the_same_dimension_is_refused(setup: Setup) -> None:
    space = EmbeddingSpace("openai", "text-embedding-3-small", 16)
    other = polyvec.connect("memory://").create_collection("other", embedding=space)
    with pytest.raises(EmbeddingSpaceError) as caught:
        Pipeline(setup.embedder, other)
    message = str(caught.value)
    assert "openai:text-embedding-3-small (16 dimensions)" in message
    assert "hash:words-trigrams-v1 (16 dimensions)" in message
    assert caught.value.collection == "other"


def test_a_collection_of_an_unknown_model_is_refused(setup: Setup) -> None:
    plain = polyvec.connect("memory://").create_collection("plain", 16)
    with pytest.raises(EmbeddingSpaceError, match=r"create_collection\(\.\.\., embedding=embedder\.space\)"):
        Pipeline(setup.embedder, plain)


def test_open_creates_or_opens(setup: Setup) -> None:
    store = polyvec.connect("memory://")
    made = Pipeline.open(store, "docs", setup.embedder, indexes={"year": int}, chunk_tokens=50)
    assert made.collection.info.embedding == setup.embedder.space
    assert (made.collection.info.metric, made.collection.info.indexes) == ("cosine", {"year": "int"})
    assert made.chunk_tokens == 50
    made.ingest([document("a", 1)])
    assert Pipeline.open(store, "docs", setup.embedder).collection.count() == 1
    assert Pipeline.open(store, "docs", setup.embedder, indexes={"year": int}).collection.count() == 1
    with pytest.raises(SpecMismatchError, match="metric is cosine, asked for dot"):
        Pipeline.open(store, "docs", setup.embedder, metric="dot")
    with pytest.raises(EmbeddingSpaceError):
        Pipeline.open(store, "docs", polyvec.embedder("hash:32"))
    assert Pipeline.open(store, "dot", setup.embedder, metric="dot").collection.info.metric == "dot"
    assert Pipeline.open(store, "dot", setup.embedder).collection.info.metric == "dot"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"chunk_tokens": 9000}, "chunk_tokens is 9000, but hash:.* reads at most 8191"),
        ({"chunk_tokens": 3}, "at least 8"),
        ({"overlap_tokens": 101}, "overlap_tokens must be an int from 0 to 100"),
    ],
)
def test_wrong_sizes(setup: Setup, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        Pipeline(setup.embedder, setup.collection, **options)


# Search ------------------------------------------------------------------------------------------------


def test_search(setup: Setup) -> None:
    texts = {
        "tea": "Green tea is steeped for two minutes.",
        "bike": "A bicycle chain needs oil.",
        "cat": "Cats sleep.",
    }
    setup.ingest(*(Document(name, text, {"n": n}) for n, (name, text) in enumerate(texts.items())))
    match = setup.pipeline.search("bicycle chain", limit=1)[0]
    assert (match.text, match.metadata["_source"], match.metadata["_start"]) == (texts["bike"], "bike", 0)
    assert match.score > 0.4
    everything = setup.pipeline.search("cats", exact=True)
    assert everything[0].metadata["_source"] == "cat"
    assert setup.pipeline.search("cats", offset=1, exact=True) == everything[1:]
    assert [item.id for item in setup.pipeline.search("cats", filter="n < 2", limit=5)] == [
        item.id for item in everything if item.id != "cat#0"
    ]
    assert [item.id for item in setup.pipeline.search("Cats sleep.", min_score=0.99)] == ["cat#0"]


def test_search_with_the_local_model_across_languages() -> None:
    with polyvec.embedder("local") as embedder:
        pipeline = Pipeline.open(polyvec.connect("memory://"), "docs", embedder)
        pipeline.ingest(
            [
                Document("cat", "고양이는 하루에 열여섯 시간까지 잔다.", {"lang": "ko"}),
                Document("tax", "Income tax returns are due at the end of May.", {"lang": "en"}),
                Document("bread", "Sourdough needs a starter that is fed every day.", {"lang": "en"}),
            ]
        )
        assert pipeline.search("How long do cats sleep?", limit=1)[0].id == "cat#0"
        assert pipeline.search("빵 반죽 발효종", limit=1, filter='lang == "en"')[0].id == "bread#0"


def test_replacing_metadata_of_what_was_read() -> None:
    """Documents may be changed on their way; one that could not be read cannot be taken for an empty one."""
    assert replace(document("a", 1), metadata={"x": 1}).metadata == {"x": 1}
    lost = UnreadableDocument("b", InvalidInputError("no permission"))
    with pytest.raises(InvalidInputError, match="no permission"):
        replace(lost, metadata={"x": 1})
    assert "no permission" in repr(lost)
    assert lost == lost  # noqa: PLR0124
    assert lost != UnreadableDocument("b", lost.error)
    assert len({lost, lost}) == 1
