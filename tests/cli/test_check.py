"""`polyvec check`: it passes on a right store, finds what is wrong with a wrong one, and cleans up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

import polyvec
from polyvec.base import BaseCollection
from polyvec.types import Record, RecordBatch
from polyvec_adapters.memory.store import MemoryCollection, MemoryStore

Run = Callable[..., Result]
Document = Callable[[Result], Any]

STEPS = [
    "connect", "version", "collections", "create", "write", "round trip", "scores", "filters", "counts",
    "namespaces", "changes", "drop",
]  # fmt: skip


def test_all_is_well(run: Run, url: str, docs: polyvec.Collection, document: Document) -> None:
    result = run("check", "-s", url)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * len(STEPS)
    assert result.stderr == f"12 of 12 steps went well on {url}\n"
    found = document(run("check", "-s", url, "--json"))
    assert (found["ok"], [step["name"] for step in found["steps"]]) == (True, STEPS)
    assert all(step["ok"] and step["seconds"] >= 0 for step in found["steps"])
    assert polyvec.connect(url).list_collections() == ["docs"]
    assert docs.count() == 3


def test_read_only_writes_nothing(
    run: Run, url: str, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(MemoryStore, "_do_create", refuse)
    found = document(run("check", "-s", url, "--read-only", "--json"))
    assert [step["name"] for step in found["steps"]] == ["connect", "version", "collections"]


def breaks(hook: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Make a mutant of the memory store: the answer of one hook is changed."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(MemoryCollection, hook)
        monkeypatch.setattr(
            MemoryCollection,
            hook,
            lambda self, *arguments, **options: change(original(self, *arguments, **options)),
        )

    return apply


def shifted(hits: Any) -> Any:
    return [item._replace(scores=item.scores - 0.01) for item in hits]


def ints_to_floats(batch: RecordBatch) -> RecordBatch:
    assert batch.metadatas is not None
    metadatas = [
        {key: float(value) if type(value) is int else value for key, value in metadata.items()}
        for metadata in batch.metadatas
    ]
    return RecordBatch(batch.ids, batch.vectors, batch.texts, metadatas)


def without_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryCollection._do_query

    def query(self: MemoryCollection, vectors: Any, *, filter: Any, **options: Any) -> Any:
        return original(self, vectors, filter=None, **options)

    monkeypatch.setattr(MemoryCollection, "_do_query", query)


def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    original = BaseCollection.__init__
    monkeypatch.setattr(
        BaseCollection, "__init__", lambda self, store, spec, namespace="": original(self, store, spec)
    )


def deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryCollection, "_do_delete", lambda self, ids: None)


MUTANTS = {
    "scores": (breaks("_do_query", shifted), "scores"),
    "types": (breaks("_do_get", ints_to_floats), "round trip"),
    "count": (breaks("_do_count", lambda number: number + 1), "counts"),
    "filter": (without_filter, "filters"),
    "namespace": (without_namespaces, "namespaces"),
    "delete": (deletes_nothing, "changes"),
}


@pytest.mark.parametrize(("mutate", "step"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_answer_is_found(
    run: Run,
    url: str,
    document: Document,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
    step: str,
) -> None:
    mutate(monkeypatch)
    found = document(run("check", "-s", url, "--json", expect=1))
    assert not found["ok"]
    failed = {item["name"]: item["detail"] for item in found["steps"] if not item["ok"]}
    assert step in failed
    assert polyvec.connect(url).list_collections() == []
    plain = run("check", "-s", url, expect=1)
    assert f"FAILED {step}" in plain.stdout


def test_what_cannot_be_written_is_dropped_again(
    run: Run, url: str, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: MemoryCollection, batch: RecordBatch, *, wait: bool) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MemoryCollection, "_do_upsert", full)
    found = document(run("check", "-s", url, "--json", expect=1))
    assert [(step["name"], step["ok"]) for step in found["steps"][3:]] == [
        ("create", True),
        ("write", False),
        ("drop", True),
    ]
    assert "disk full" in found["steps"][4]["detail"]
    assert polyvec.connect(url).list_collections() == []


def test_an_interrupted_check_is_dropped_too(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: MemoryCollection, *arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryCollection, "_do_query", interrupted)
    result = run("check", "-s", url, expect=130)
    assert result.stdout.splitlines()[-1].split()[:2] == ["ok", "drop"]
    assert polyvec.connect(url).list_collections() == []


def test_a_store_that_cannot_be_reached_fails_and_one_that_is_not_configured_is_a_usage_error(
    run: Run, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MemoryStore) -> None:
        raise ConnectionRefusedError("nobody there")

    assert "no adapter opens 'memroy' URLs" in run("check", "-s", "memroy://", expect=2).stderr
    monkeypatch.setattr(MemoryStore, "_do_connect", refuse)
    found = document(run("check", "-s", "memory://", "--json", expect=1))
    assert [(step["name"], step["ok"]) for step in found["steps"]] == [("connect", False)]
    assert "nobody there" in found["steps"][0]["detail"]


def test_the_records_of_the_check_are_hostile_enough() -> None:
    from polyvec.cli.check import FILTERS, RECORDS
    from polyvec.filter_text import parse
    from polyvec.filters import matches

    for text in FILTERS:  # no filter holds for all or none
        found: list[Record] = [record for record in RECORDS if matches(parse(text), record.metadata)]
        assert 0 < len(found) < len(RECORDS), text
