"""Wherever a run is ended, another one ends in the state of an uninterrupted one."""

from __future__ import annotations

import pytest

import polyvec
from polyvec import Collection, Document, IngestReport, Pipeline, ingest
from tests.pipeline.tools import (
    Kill,
    KilledError,
    State,
    WatchedCollection,
    WatchedEmbedder,
    document,
    new_collection,
    state,
)

BEFORE = [
    document("same", 1, 2, 3),
    document("edited", 1, 2, 3, 4),
    document("shrunk", *range(1, 12)),
    document("emptied", 1, 2),
    document("grown", 1),
    document("moved", 1, 2, 3),
    document("relabelled", 1, 2, 3, year=2020),
    document("gone", 1, 2, 3),
]
AFTER = [
    document("new", 1, 2, 3, 4, 5),
    document("same", 1, 2, 3),
    document("edited", 1, 7, 3, 4),
    document("shrunk", 1, 2),
    Document("emptied", " "),
    document("grown", 1, 2, 3, 4, 5, 6),
    document("moved", 9, 1, 2, 3),
    document("relabelled", 1, 2, 3, year=2021),
]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "WINDOW", 4)
    monkeypatch.setattr(ingest, "PRUNED_AT_ONCE", 2)


def run(collection: Collection, documents: list[Document], kill: Kill | None = None) -> IngestReport:
    embedder = WatchedEmbedder()
    watched = WatchedCollection(collection)
    if kill is not None:
        embedder.before, watched.around = kill.embedder, kill.collection
    pipeline = Pipeline(embedder, watched, chunk_tokens=32, overlap_tokens=0)
    return pipeline.ingest(iter(documents), prune=True)


def prepared() -> Collection:
    collection = new_collection(WatchedEmbedder())
    run(collection, BEFORE)
    return collection


@pytest.fixture(scope="module")
def expected() -> State:
    collection = new_collection(WatchedEmbedder())
    assert run(collection, AFTER).failures == ()
    return state(collection)


def steps(moment: str) -> int:
    kill = Kill(-1, moment)
    run(prepared(), AFTER, kill)
    return kill.steps


def test_an_uninterrupted_run_after_an_older_one(expected: State) -> None:
    collection = prepared()
    report = run(collection, AFTER)
    assert state(collection) == expected
    assert (report.deleted, report.pruned) == (9 + 2, 3)
    assert report.reused == 3 + 1 + 1 + 2  # relabelled; the first of shrunk and of grown; moved in one window
    assert len(expected) == 5 + 3 + 4 + 2 + 0 + 6 + 4 + 3


@pytest.mark.parametrize("moment", ["before", "half", "after"])
def test_killed_at_every_step(moment: str, expected: State) -> None:
    count = steps(moment)
    assert count > 30
    for step in range(1, count + 1):
        collection = prepared()
        with pytest.raises(KilledError):
            run(collection, AFTER, Kill(step, moment))
        assert run(collection, AFTER).failures == (), step
        assert state(collection) == expected, step
        again = run(collection, AFTER)
        assert (again.embedded, again.written, again.deleted, again.pruned) == (0, 0, 0, 0), step


def test_killed_twice_and_the_documents_changed_back(expected: State) -> None:
    older = prepared()
    before = state(older)
    for first in range(1, steps("half"), 3):
        collection = prepared()
        with pytest.raises(KilledError):
            run(collection, AFTER, Kill(first, "half"))
        with pytest.raises(KilledError):
            run(collection, BEFORE, Kill(first // 2 + 1, "half"))
        run(collection, BEFORE)
        assert state(collection) == before
        run(collection, AFTER)
        assert state(collection) == expected


def test_errors_leave_a_report_and_a_state_to_go_on_from(expected: State) -> None:
    class Lost(Kill):
        """Not the end of the process, but of the connection."""

        def _next(self) -> bool:
            try:
                if super()._next():
                    raise polyvec.BackendUnavailableError("connection lost")
            except KilledError:
                raise polyvec.BackendUnavailableError("still lost") from None
            return False

    for step in range(1, steps("before") + 1):
        collection = prepared()
        with pytest.raises(polyvec.BackendUnavailableError) as caught:
            run(collection, AFTER, Lost(step, "before"))
        assert isinstance(caught.value.report, IngestReport)
        assert caught.value.report.failures == ()
        run(collection, AFTER)
        assert state(collection) == expected
