"""Tokens: a compiled filter, tested on the tokens and companions of a record, means what `matches` means."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.filters import (
    NEVER,
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
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
    matches,
    normalise,
    scalar_key,
)
from polyvec.metadata import INT64_MAX, INT64_MIN, MAX_KEY_BYTES
from polyvec.tokens import (
    HasAny,
    InRange,
    companion_field,
    compile_filter,
    element_token,
    exists_token,
    list_token,
    record_companions,
    record_tokens,
    scalar_token,
)
from tests.core.strategies import (
    FIXED,
    HOSTILE_KEYS,
    HOSTILE_SCALARS,
    few_filters,
    few_metadatas,
    field_keys,
    metadatas,
    scalars,
)

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip


def holds(filter: Filter, tokens: Collection[str], companions: Mapping[str, float]) -> bool:
    """What an engine does with a compiled filter."""
    match filter:
        case And(operands):
            return all(holds(operand, tokens, companions) for operand in operands)
        case Or(operands):
            return any(holds(operand, tokens, companions) for operand in operands)
        case Not(operand):
            return not holds(operand, tokens, companions)
        case HasAny(wanted):
            assert wanted
            return any(token in tokens for token in wanted)
        case InRange(field, compare, bound):
            return field in companions and COMPARE[compare](companions[field], bound)
    raise AssertionError(f"an engine does not know {filter!r}")


def by_tokens(filter: Filter, metadata: dict[str, Any]) -> bool:
    normal = normalise(filter)
    if normal is None or normal is NEVER:
        return normal is None
    tokens = record_tokens(metadata)
    assert len(set(tokens)) == len(tokens)
    return holds(compile_filter(normal), tokens, record_companions(metadata))


@FIXED
@given(few_filters, st.lists(few_metadatas, min_size=1, max_size=5))
def test_tokens_mean_what_matches_means(filter: Filter, records: list[dict[str, Any]]) -> None:
    for metadata in records:
        assert by_tokens(filter, metadata) == matches(filter, metadata)


@FIXED
@given(metadatas, few_metadatas, field_keys, scalars)
def test_conditions_on_what_a_record_has(
    metadata: dict[str, Any], more: dict[str, Any], key: str, literal: Any
) -> None:
    """Each own value, and a foreign one, asked for at each own key and at a foreign one."""
    metadata |= more
    inside = [item for value in metadata.values() for item in (value if isinstance(value, list) else [value])]
    literals = [literal, *(value for value in inside if scalar_key(value) is not None)]
    for asked, value in itertools.product([key, *metadata], literals):
        leaves: list[Filter] = [Exists(asked), *(kind(asked, value) for kind in (Eq, Ne, Contains))]
        leaves += [kind(asked, tuple(literals)) for kind in (In, NotIn, ContainsAny, ContainsAll)]
        if not isinstance(value, bool | str):
            leaves += [kind(asked, value) for kind in (Lt, Lte, Gt, Gte)]
        for leaf in leaves:
            assert by_tokens(leaf, metadata) == matches(leaf, metadata)


def test_every_hostile_value_against_every_other() -> None:
    found = set()
    for value, literal in itertools.product(HOSTILE_SCALARS, repeat=2):
        leaves: list[Filter] = [
            Eq("k", literal), Ne("k", literal), In("k", ("other", literal)), NotIn("k", (literal,)),
            Contains("k", literal), ContainsAny("k", (literal, 7)), ContainsAll("k", (literal,)),
            ContainsAll("k", (literal, "other")),
        ]  # fmt: skip
        if not isinstance(literal, bool | str):
            leaves += [kind("k", literal) for kind in (Lt, Lte, Gt, Gte)]
        forms: list[dict[str, Any]] = [{"k": value}, {"k": [value, "other"]}]
        if literal is value:
            forms += [{"k": [[value]]}, {"k": {"k": value}}]
        for metadata in forms:
            for leaf in leaves:
                expected = matches(leaf, metadata)
                assert by_tokens(leaf, metadata) == expected, (leaf, metadata)
                found.add((type(leaf), expected))
    assert len(found) == 2 * 11, "each kind was true and was false"


def test_every_hostile_key_against_every_other() -> None:
    keys = [key for key in HOSTILE_KEYS if key]
    for key, other in itertools.product(keys, repeat=2):
        for leaf in (Eq(key, 1), Contains(key, "a"), Exists(key), ContainsAll(key, ()), Gte(key, 1)):
            for value in (1, ["a"]):
                assert by_tokens(leaf, {other: value}) == matches(leaf, {other: value})


def test_key_and_value_cannot_be_confused() -> None:
    """What a careless concatenation would make equal: the boundary, the kind, the place."""
    tokens = [
        scalar_token("a", "1:b"),
        scalar_token("1:a", "b"),
        scalar_token("a1:", "b"),
        scalar_token("a", "b1"),
        scalar_token("ab", "1"),
        scalar_token("ab", 1),
        scalar_token("ab", True),
        scalar_token("ab", "True"),
        scalar_token("ab", 0.5),
        scalar_token("ab", "0.5"),
        scalar_token("ab", datetime.fromtimestamp(0, UTC)),
        scalar_token("ab", 0),
        scalar_token("ab", "0"),
        scalar_token("ab", ""),
        exists_token("ab"),
        list_token("ab"),
        exists_token("e2:ab"),
        element_token("ab", "1"),
        element_token("ab", 1),
        element_token("ab", True),
        element_token("ab", ""),
        element_token("a", "b1"),
        scalar_token("1", "1:1"),
        scalar_token("11:1", ""),
        scalar_token("é", ""),
        scalar_token("e\u0301", ""),
        scalar_token("a", "b\0"),
        scalar_token("a", "b"),
        scalar_token("a\0", "b"),
    ]
    assert len(set(tokens)) == len(tokens)


def test_a_token_is_made_from_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind, length of the key, key, value: from the message each of them can be read back."""
    from polyvec import tokens as module

    seen: dict[bytes, tuple[str, str, object]] = {}
    digest = blake2b

    def spy(message: bytes, *, digest_size: int) -> Any:
        seen[message] = parts
        return digest(message, digest_size=digest_size)

    monkeypatch.setattr(module, "blake2b", spy)
    facts = [
        (tag, key, value)
        for tag in "bnsdBNSDel"
        for key in ["a", "1", "1:", "1:a", "a1", "é", "11:a", "k" * 128]
        for value in ["", "1", ":", "a", "1:a", "aa", "1:1", "é"]
    ]
    for parts in facts:
        module._token(*parts)
    assert len(seen) == len(facts), "two facts with one message"
    for message, (tag, key, value) in seen.items():
        found = re.fullmatch(r"(.)(\d+):(.*)", message.decode(), re.DOTALL)
        assert found is not None
        length = int(found[2])
        assert (found[1], found[3][:length], found[3][length:]) == (tag, key, value)


def test_tokens_follow_equality() -> None:
    assert scalar_token("k", 1) == scalar_token("k", 1.0)
    assert scalar_token("k", 0) == scalar_token("k", -0.0)
    assert scalar_token("k", 2**53 + 1) != scalar_token("k", 2.0**53)
    assert scalar_token("k", INT64_MAX) != scalar_token("k", float(2**63))
    assert scalar_token("k", True) != scalar_token("k", 1)
    assert scalar_token("k", "é") != scalar_token("k", "e\u0301")
    assert element_token("k", 1) == element_token("k", 1.0) != scalar_token("k", 1)


def test_the_cache_does_not_mix_kinds() -> None:
    """`lru_cache` takes 1, 1.0 and True for one key; the tokens must not."""
    alike: list[Any] = [True, 1, "1", "True"]
    for first, second in itertools.permutations(alike, 2):
        assert scalar_token("cache", first) != scalar_token("cache", second)
    assert scalar_token("k", "x" * 10_000) == scalar_token("k", "x" * 10_000)


def test_the_form_of_a_token() -> None:
    metadata = {
        "a": 1,
        "b": ["x", "x", None, ["y"]],
        "c": None,
        "d": {"e": 1},
        "f": [],
        "🙂" * 32: "\0" * 1000,
    }
    tokens = record_tokens(metadata)
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)
    assert set(tokens) == {
        exists_token("a"),
        scalar_token("a", 1),
        exists_token("b"),
        list_token("b"),
        element_token("b", "x"),
        exists_token("d"),
        exists_token("f"),
        list_token("f"),
        exists_token("🙂" * 32),
        scalar_token("🙂" * 32, "\0" * 1000),
    }
    assert record_tokens({}) == record_tokens({"a": None}) == []


def test_tokens_stay_what_they_are() -> None:
    """They are kept in databases, so a new version must make the same ones."""
    assert scalar_token("year", 2024) == "7197f872f390be3b673a9e1040f80fe6"
    assert scalar_token("ok", True) == "287bcefd9213a2adfd4dad95af06717f"
    assert scalar_token("at", datetime(1970, 1, 1, tzinfo=UTC)) == "02f80c5ff884ef3ad7a70b691692f5a7"
    assert element_token("tags", "x") == "805173e56b1906214af2a55793621739"
    assert exists_token("year") == "8bcead37a70dcd066f2cd8fa3d6b14fe"
    assert list_token("tags") == "37da4cb72c3bf9326e0ae885417237be"
    assert companion_field("n", "year") == "n_3c6c7f7aaec741524f47"
    assert companion_field("d", "at") == "d_310c72dc7c988720b984"


def test_companions() -> None:
    at = datetime(2024, 5, 1, tzinfo=UTC)
    metadata = {
        "int": 2**53 + 1, "float": 0.5, "zero": -0.0, "at": at, "min": INT64_MIN,
        "bool": True, "str": "1", "none": None, "list": [1], "dict": {"a": 1},
    }  # fmt: skip
    companions = record_companions(metadata)
    assert companions == {
        companion_field("n", "int"): 2.0**53,
        companion_field("n", "float"): 0.5,
        companion_field("n", "zero"): 0.0,
        companion_field("n", "min"): -(2.0**63),
        companion_field("d", "at"): 1_714_521_600_000_000,
    }
    assert [type(value) for value in companions.values()] == [float, float, float, int, float]
    assert str(companions[companion_field("n", "zero")]) == "0.0"


def test_the_name_of_a_companion() -> None:
    names = {companion_field(kind, key) for kind in "nd" for key in [*HOSTILE_KEYS, "k" * MAX_KEY_BYTES]}
    assert len(names) == 2 * len(set(HOSTILE_KEYS))
    assert all(re.fullmatch("[nd]_[0-9a-f]{20}", name) for name in names)


def test_compile_filter() -> None:
    at = datetime(2024, 5, 1, tzinfo=UTC)
    cases: list[tuple[Filter, Filter]] = [
        (Eq("k", 1), HasAny((scalar_token("k", 1),))),
        (In("k", (1, 1.0, "a")), HasAny((scalar_token("k", 1), scalar_token("k", "a")))),
        (Contains("k", 1), HasAny((element_token("k", 1),))),
        (ContainsAny("k", (1, 1.0, "a")), HasAny((element_token("k", 1), element_token("k", "a")))),
        (ContainsAll("k", ()), HasAny((list_token("k"),))),
        (ContainsAll("k", (1, 1.0)), HasAny((element_token("k", 1),))),
        (
            ContainsAll("k", (1, "a")),
            And((HasAny((element_token("k", 1),)), HasAny((element_token("k", "a"),)))),
        ),
        (Exists("k"), HasAny((exists_token("k"),))),
        (Lt("k", 2), InRange(companion_field("n", "k"), "lt", 2.0)),
        (Lte("k", 2.5), InRange(companion_field("n", "k"), "lte", 2.5)),
        (Gt("k", at), InRange(companion_field("d", "k"), "gt", 1_714_521_600_000_000)),
        (Gte("k", at), InRange(companion_field("d", "k"), "gte", 1_714_521_600_000_000)),
        (
            Not(Or((Eq("k", 1), Exists("l")))),
            Not(Or((compile_filter(Eq("k", 1)), compile_filter(Exists("l"))))),
        ),
        (NEVER, NEVER),
    ]
    for filter, expected in cases:
        assert compile_filter(filter) == expected


@pytest.mark.parametrize("filter", [Ne("k", 1), NotIn("k", (1,)), HasAny(("x",))])
def test_compile_filter_wants_a_normalised_filter(filter: Filter) -> None:
    with pytest.raises(TypeError, match=f"{type(filter).__name__} is not a node of a normalised filter"):
        compile_filter(filter)
