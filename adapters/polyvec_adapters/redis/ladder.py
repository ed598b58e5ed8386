"""Ranges without a numeric field: for keys that an index has no field left for, and datetimes far away.

A number has a rank, an integer of 64 bits that orders as the numbers do. Cut off 0, 4, 8, ... of its bits,
and each of the 16 prefixes names an interval that the number lies in, from itself up to a sixteenth of all.
A record carries one token for each of its intervals, and a range is the few intervals that it consists of
(at most 240), so "in the range" becomes "has one of these tokens".
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from polyvec.encoding import sortable_int
from polyvec.tokens import RangeOperator

_BITS: Final = 4
_LEVELS: Final = 16
_WIDTH: Final = 2**_BITS
_MIDDLE: Final = 2**63
_LAST: Final = 2**64 - 1


def rungs(field: str, number: float) -> list[str]:
    """Return the tokens of a record whose companion `field` has this value, 32 hex digits each."""
    rank = sortable_int(field, number) + _MIDDLE
    return [_rung(field, level, rank >> _BITS * level) for level in range(_LEVELS)]


def cover(field: str, operator: RangeOperator, bound: float) -> list[str]:
    """Return tokens of which a record has one exactly where `companion <operator> bound` holds."""
    rank = sortable_int(field, bound) + _MIDDLE
    low, high = {
        "lt": (0, rank - 1),
        "lte": (0, rank),
        "gt": (rank + 1, _LAST),
        "gte": (rank, _LAST),
    }[operator]
    found: list[str] = []
    for level in range(_LEVELS):
        last = level == _LEVELS - 1
        while low <= high and (last or low % _WIDTH != 0):
            found.append(_rung(field, level, low))
            low += 1
        while low <= high and high % _WIDTH != _WIDTH - 1:
            found.append(_rung(field, level, high))
            high -= 1
        if low > high:
            break
        low, high = low >> _BITS, high >> _BITS
    return found


def _rung(field: str, level: int, prefix: int) -> str:
    return blake2b(f"{field}/{level}/{prefix}".encode(), digest_size=16).hexdigest()
