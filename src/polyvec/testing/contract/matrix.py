"""The filter matrix, case by case."""

from __future__ import annotations

import pytest

from polyvec.filters import matches
from polyvec.protocol import Collection
from polyvec.testing import filter_cases
from polyvec.testing.compare import (
    assert_best,
    truth,
)
from polyvec.testing.filter_cases import FilterCase
from polyvec.testing.plugin import MakeCollection
from polyvec.types import Record


class TestFilterMatrix:
    """Every node with every kind of literal on every kind of value: as `filters.matches` says."""

    @pytest.mark.parametrize("case", filter_cases.CASES, ids=lambda case: case.name)
    def test_case(self, matrix: Collection, matrix_records: list[Record], case: FilterCase) -> None:
        expected = {record.id for record in matrix_records if matches(case.filter, record.metadata)}
        assert case.vacuous == (len(expected) in (0, len(matrix_records))), "the case proves nothing"
        assert matrix.count(case.filter) == len(expected)
        found = matrix.scan(case.filter, include_text=False, include_metadata=False)
        assert {record.id for record in found} == expected

    @pytest.mark.parametrize("case", filter_cases.CASES[::7], ids=lambda case: case.name)
    def test_query(self, matrix: Collection, matrix_records: list[Record], case: FilterCase) -> None:
        vector = [1, 0.2, 0.4]
        expected = truth(matrix_records, "cosine", vector, case.filter)
        for limit in (3, 1000):
            assert_best(matrix.query(vector, limit=limit, filter=case.filter), expected, limit=limit)

    @pytest.mark.parametrize(
        "case", [case for case in filter_cases.CASES if not case.vacuous][::40], ids=lambda case: case.name
    )
    def test_delete(
        self, make_collection: MakeCollection, matrix_records: list[Record], case: FilterCase
    ) -> None:
        collection = make_collection(3)
        collection.upsert(matrix_records)
        collection.delete(filter=case.filter)
        assert {record.id for record in collection.scan(include_metadata=False)} == {
            record.id for record in matrix_records if not matches(case.filter, record.metadata)
        }
