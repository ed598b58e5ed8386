"""The filter matrix: every node x every kind of literal, against every kind of value at the key.

`RECORD_METADATA` holds, at the key "k", every scalar of `data.SCALARS` as a scalar and inside a list, and
the cases that implementations forget: missing, None, empty, a nested list, a dict. `cases()` yields each node
with each literal. Expected answers come from `filters.matches` alone; a case is guarded against vacuity: the
answer is neither empty nor everything, unless the case says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from polyvec.filters import (
    ALWAYS,
    NEVER,
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    F,
    Filter,
    Gt,
    Gte,
    In,
    Lt,
    Lte,
    Ne,
    Not,
    NotIn,
    Or,
)
from polyvec.testing.data import DATETIMES, HOSTILE_STRINGS, KEYS, NUMBERS, SCALARS
from polyvec.types import Scalar

_MISSING: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"other": 1},
    {"k": None},
    {"k": []},
    {"k": {}},
    {"k": [None]},
    {"k": [[]]},
    {"k": {"k": 1}},
    {"K": 1},
    {"k ": 1},
)

RECORD_METADATA: Final[tuple[dict[str, Any], ...]] = (
    *_MISSING,
    *({"k": value} for value in SCALARS),
    *({"k": [value]} for value in SCALARS),
    {"k": [[1, "a"]]},
    {"k": [{"a": 1}]},
    {"k": list(SCALARS)},
    {"k": [1, "a", True, 0.5, None]},
    {"k": ["a", "A", "a b", ""]},
    {"k": [1, 1.0, "1", "1.0"]},
    {"k": 7, "j": "a"},
    {"k": 7, "j": "b"},
    {"k": "a", "j": "a"},
    {"j": "a"},
    *({key: "x"} for key in KEYS),
    *({key: 5} for key in KEYS),
    *({key: ["x", 5]} for key in KEYS),
    dict.fromkeys(KEYS, 1),
)
"""Metadata of the records that the matrix is run on."""


@dataclass(frozen=True, slots=True)
class FilterCase:
    """A filter of the matrix.

    Attributes:
        name: For the test report.
        filter: The filter.
        vacuous: The answer is meant to be empty or everything.
    """

    name: str
    filter: Filter
    vacuous: bool = False


def _show(value: object) -> str:
    return ascii(value)[:40]


def cases() -> Iterator[FilterCase]:
    """Yield the matrix."""
    for value in SCALARS:
        for one in (Eq, Ne, Contains):
            yield FilterCase(f"{one.__name__}-{_show(value)}", one("k", value))
    yield from _ranges()
    yield from _many()
    yield from _keys()
    yield from _joined()
    yield from _absent()


def _ranges() -> Iterator[FilterCase]:
    for value in (*NUMBERS, *DATETIMES):
        for kind in (Lt, Lte, Gt, Gte):
            # nothing is beyond the first and the last instant, nor beyond the ends of float64
            beyond = (kind is Lt and value in (DATETIMES[4], min(NUMBERS))) or (
                kind is Gt and value in (DATETIMES[5], max(NUMBERS))
            )
            yield FilterCase(f"{kind.__name__}-{_show(value)}", kind("k", value), vacuous=beyond)
            yield FilterCase(f"not-{kind.__name__}-{_show(value)}", Not(kind("k", value)), vacuous=beyond)
    yield FilterCase("between", And((Gte("k", 0), Lt("k", 2))))
    yield FilterCase("not-between", Not(And((Gte("k", 0), Lt("k", 2)))))
    yield FilterCase("two-exclusive-ranges", And((Lt("k", 0), Gt("k", 2))), vacuous=True)
    yield FilterCase("either-end", Or((Lt("k", 0), Gt("k", 2))))


def _many() -> Iterator[FilterCase]:
    groups: dict[str, tuple[Any, ...]] = {
        "bools": (True, False),
        "one-bool": (True,),
        "ints": (1, 42, 2**53 + 1),
        "floats": (0.5, 0.1, 1 / 3),
        "numbers": (1, 0.5, 2**53),
        "strings": HOSTILE_STRINGS,
        "datetimes": DATETIMES[:3],
        "mixed": (True, 1, 0.5, "a", DATETIMES[1]),
        "absent-and-present": ("nowhere", "a"),
        "doubled": ("a", "a", 1, 1.0),
    }
    for name, values in groups.items():
        for many in (In, NotIn, ContainsAny, ContainsAll):
            none = many is ContainsAll and name == "absent-and-present"
            yield FilterCase(f"{many.__name__}-{name}", many("k", values), vacuous=none)
            yield FilterCase(f"not-{many.__name__}-{name}", Not(many("k", values)), vacuous=none)
    thousand: tuple[Scalar, ...] = (*(f"v{index}" for index in range(997)), "a", 1, True)
    for many in (In, NotIn, ContainsAny):
        yield FilterCase(f"{many.__name__}-1000-values", many("k", thousand))
    thousand_numbers = tuple(index / 8 for index in range(1000))
    for many in (In, NotIn, ContainsAny):
        yield FilterCase(f"{many.__name__}-1000-numbers", many("k", thousand_numbers))
    yield FilterCase("ContainsAll-1000-values", ContainsAll("k", thousand), vacuous=True)
    for many in (In, ContainsAny):
        yield FilterCase(f"{many.__name__}-nothing", many("k", ()), vacuous=True)
    yield FilterCase("NotIn-nothing", NotIn("k", ()), vacuous=True)
    yield FilterCase("ContainsAll-nothing", ContainsAll("k", ()))
    yield FilterCase("not-ContainsAll-nothing", Not(ContainsAll("k", ())))


def _keys() -> Iterator[FilterCase]:
    yield FilterCase("Exists", Exists("k"))
    yield FilterCase("not-Exists", Not(Exists("k")))
    for key in KEYS:
        name = _show(key)
        yield FilterCase(f"key-Eq-{name}", Eq(key, "x"))
        yield FilterCase(f"key-Ne-{name}", Ne(key, "x"))
        yield FilterCase(f"key-In-{name}", In(key, ("x", 5)))
        yield FilterCase(f"key-Gt-{name}", Gt(key, 1))
        yield FilterCase(f"key-not-Lte-{name}", Not(Lte(key, 1)))
        yield FilterCase(f"key-Contains-{name}", Contains(key, 5))
        yield FilterCase(f"key-Exists-{name}", Exists(key))


def _joined() -> Iterator[FilterCase]:
    a, b, c = Eq("k", 7), Eq("j", "a"), Contains("k", "a")
    yield FilterCase("and", And((a, b)))
    yield FilterCase("or", Or((a, b)))
    yield FilterCase("or-of-three", Or((a, b, c)))
    yield FilterCase("not-and", Not(And((a, b))))
    yield FilterCase("not-or", Not(Or((a, b, c))))
    yield FilterCase("not-not", Not(Not(a)))
    yield FilterCase("not-ne", Not(Ne("k", 7)))
    yield FilterCase("and-not", And((a, Not(b))))
    yield FilterCase("or-not", Or((b, Not(Exists("k")))))
    yield FilterCase("mixed-nesting", Or((And((a, Not(Or((b, c))))), And((Not(a), b)))))
    yield FilterCase("ne-and-ne", And((Ne("k", 7), Ne("j", "a"))))
    yield FilterCase("or-of-ranges-and-tokens", Or((Gt("k", 40), Contains("k", value=True), Eq("k", "a"))))
    yield FilterCase("and-of-not-ranges", And((Not(Gt("k", 0)), Not(Lt("k", 0)), Exists("k"))))
    deep: Filter = a
    for level in range(31):
        deep = And((deep, Ne("j", f"x{level}"))) if level % 2 else Or((deep, Eq("j", "a")))
    yield FilterCase("32-deep", deep)
    negated: Filter = Or((a, b))
    for _ in range(30):
        negated = Not(negated)
    yield FilterCase("30-negations", negated)
    wide = Or(tuple(Eq("k", value) for value in SCALARS[:40]))
    yield FilterCase("wide-or", wide)
    yield FilterCase("wide-and", And(tuple(Ne("k", value) for value in SCALARS[:40])))
    yield FilterCase("always", ALWAYS, vacuous=True)
    yield FilterCase("never", NEVER, vacuous=True)
    yield FilterCase("and-with-always", And((a, ALWAYS)))
    yield FilterCase("or-with-never", Or((a, NEVER)))


def _absent() -> Iterator[FilterCase]:
    for key in ("nowhere", "j.k", "k.k", "k[]", "k.0", "K.k"):
        known = key in KEYS
        yield FilterCase(f"absent-{key}-Eq", Eq(key, 1), vacuous=not known)
        yield FilterCase(f"absent-{key}-Ne", Ne(key, 1), vacuous=not known)
        yield FilterCase(f"absent-{key}-Lt", Lt(key, 9), vacuous=not known)
        yield FilterCase(f"absent-{key}-not-Lt", Not(Lt(key, 9)), vacuous=not known)
        yield FilterCase(f"absent-{key}-Exists", Exists(key), vacuous=not known)
    yield FilterCase("absent-value-Eq", Eq("k", "no record has this"), vacuous=True)
    yield FilterCase("absent-value-Ne", Ne("k", "no record has this"), vacuous=True)
    yield FilterCase("absent-instant", Eq("k", datetime(2001, 1, 1, tzinfo=UTC)), vacuous=True)
    yield FilterCase("absent-value-and-present", (F("k") == 7) & ~(F("j") == "no record has this"))


CASES: Final = tuple(cases())
