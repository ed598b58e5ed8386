"""Ranges as tokens: in the range exactly where the number has one of them."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from polyvec.tokens import RangeOperator
from polyvec_adapters.redis.ladder import cover, rungs

COMPARE: dict[RangeOperator, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
FLOATS = [
    0.0, -0.0, 5e-324, -5e-324, 1.0, -1.0, 1.0000000000000002, 0.1, 2.0**53, 2.0**53 + 2, -(2.0**63),
    sys.float_info.max, -sys.float_info.max, 2020.0, 2021.0, 1e-7,
]  # fmt: skip
INSTANTS = [0, 1, -1, 15, 16, 17, 2**53, 2**53 + 1, -62_135_596_800_000_000, 253_402_300_799_999_999]


def numbers(field: str) -> list[float]:
    choose = np.random.default_rng(1)
    if field == "d_x":
        return [*INSTANTS, *choose.integers(min(INSTANTS), max(INSTANTS), 30).tolist()]
    return [*FLOATS, *(choose.uniform(-1, 1, 30) * 10.0 ** choose.integers(-300, 300, 30)).tolist()]


@pytest.mark.parametrize("field", ["n_x", "d_x"])
@pytest.mark.parametrize("comparison", get_args(RangeOperator))
def test_every_pair(field: str, comparison: RangeOperator) -> None:
    found = numbers(field)
    steps = {number: set(rungs(field, number)) for number in found}
    for bound in found:
        tokens = cover(field, comparison, bound)
        assert len(tokens) <= 240
        for number in found:
            assert (not steps[number].isdisjoint(tokens)) == COMPARE[comparison](number, bound)


def test_fields_share_no_token() -> None:
    assert set(rungs("n_a", 1)).isdisjoint(rungs("n_b", 1))
    assert set(rungs("n_a", 1)).isdisjoint(rungs("d_a", 1))


def test_nothing_is_less_than_the_least() -> None:
    assert cover("d_x", "lt", -(2**63)) == []
    assert len(rungs("n_x", 1.5)) == len(set(rungs("n_x", 1.5))) == 16
