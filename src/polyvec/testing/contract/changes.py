"""Changing metadata and deleting."""

from __future__ import annotations

from typing import Any

import pytest

from polyvec.errors import (
    InvalidInputError,
)
from polyvec.filters import F, matches
from polyvec.protocol import Collection
from polyvec.testing import data
from polyvec.testing.compare import (
    assert_holds,
    assert_same_record,
    assert_same_vector,
)
from polyvec.testing.contract.common import A, vector_of
from polyvec.types import Record


class TestUpdateAndDelete:
    """Metadata changes and deletes touch what they should, and nothing else."""

    @pytest.fixture
    def written(self, collection: Collection) -> list[Record]:
        written = data.records(60, 4)
        collection.upsert(written)
        return written

    def test_update_by_ids(self, collection: Collection, written: list[Record]) -> None:
        changed = collection.update_metadata(
            ["r00001", "r00002", "missing"], set={"n": "one", "new": [1, {"x": None}]}, unset=["half", "nope"]
        )
        assert changed == 2
        expected = {record.id: record for record in written}
        for id in ("r00001", "r00002"):
            old = expected[id]
            metadata = {key: value for key, value in old.metadata.items() if key != "half"}
            metadata |= {"n": "one", "new": [1, {"x": None}]}
            expected[id] = Record(id, old.vector, old.text, metadata)
        assert_holds(collection, expected.values())
        assert collection.count(F("n") == "one") == 2
        assert collection.count(F("n") == 1) == 0
        assert collection.count((F("n") > 0) & (F("n") < 3)) == 0
        assert collection.count(F("half").exists()) == 58
        assert collection.count(F("half") >= 0) == 58
        assert collection.count(F("new").contains(1)) == 2

    def test_update_by_filter(self, collection: Collection, written: list[Record]) -> None:
        assert collection.update_metadata(filter=F("third") == 1, set={"third": 7, "n": None}) == 20
        assert collection.count(F("third") == 7) == 20
        assert collection.count(F("third") == 1) == 0
        assert collection.count(F("n").exists()) == 40
        assert collection.update_metadata(filter=F("third") == 99, set={"x": 1}) == 0
        assert collection.count(F("x").exists()) == 0
        assert_same_vector(collection.get(["r00001"])[0].vector, written[1].vector, "vector")  # type: ignore[union-attr]

    def test_update_to_nothing(self, collection: Collection, written: list[Record]) -> None:
        keys = list(written[0].metadata)
        assert collection.update_metadata(["r00003"], unset=keys) == 1
        [got] = collection.get(["r00003"])
        assert_same_record(got, Record("r00003", written[3].vector, written[3].text, {}))
        assert collection.count(~F("n").exists()) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"set": {"a": 1}},
            {"ids": ["a"], "filter": "a == 1", "set": {"a": 1}},
            {"ids": ["a"]},
            {"ids": ["a"], "set": {"a": 1}, "unset": ["a"]},
            {"ids": ["a"], "set": {"a": float("nan")}},
            {"ids": ["a"], "unset": "abc"},
            {"ids": ["a"], "unset": [""]},
            {"filter": "true", "set": {"a": 1}},
            {"ids": "a", "set": {"a": 1}},
        ],
    )
    def test_wrong_updates_are_refused(self, collection: Collection, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError):
            collection.update_metadata(**arguments)

    def test_delete_by_ids(self, collection: Collection, written: list[Record]) -> None:
        collection.delete(["r00000", "missing", "r00059", "r00000"])
        assert_holds(collection, written[1:59])
        collection.delete([])
        assert collection.count() == 58
        assert "r00000" not in [match.id for match in collection.query(vector_of(written[0]), limit=60)]
        collection.upsert(written[0])
        assert_holds(collection, written[:59])

    def test_delete_by_filter(self, collection: Collection, written: list[Record]) -> None:
        filter = (F("lang") == "ko") | (F("n") >= 50)
        collection.delete(filter=filter)
        left = [record for record in written if not matches(filter, record.metadata)]
        assert 0 < len(left) < len(written)
        assert_holds(collection, left)
        collection.delete(filter=F("n") < 0)
        assert collection.count() == len(left)

    def test_delete_refuses_what_is_ambiguous(self, collection: Collection, written: list[Record]) -> None:
        everything = (F("n") == 1) | ~F("n").is_in([])
        with pytest.raises(InvalidInputError, match="exactly one"):
            collection.delete()
        with pytest.raises(InvalidInputError, match="exactly one"):
            collection.delete(["r00000"], filter="n == 0")
        refused: list[Any] = ["true", {}, "", F("n").not_in([]), everything]
        for filter in refused:
            with pytest.raises(InvalidInputError):
                collection.delete(filter=filter)
        assert collection.count() == len(written)

    def test_clear(self, collection: Collection, written: list[Record]) -> None:
        collection.clear()
        assert_holds(collection, [])
        assert collection.query(A) == []
        collection.clear()
        collection.upsert(written[:3])
        assert_holds(collection, written[:3])
