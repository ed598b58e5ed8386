"""Batches: checked and cut before anything is sent, the last of equal ids wins, every bad input refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec import DimensionMismatchError, InvalidInputError, Record, RecordBatch
from polyvec.batches import (
    Limits,
    batches,
    check_batch,
    check_id,
    check_ids,
    check_name,
    check_vectors,
    chunks,
    records_of,
    take,
)
from polyvec.metadata import check_metadata
from tests.core.strategies import FIXED

WIDE = Limits(records=100, bytes_=10**9)


def shown(value: object) -> str:
    """Return an id for a parameter, the same in each run."""
    return re.sub(r" at 0x\w+", "", repr(value))


def record(id: str, first: float = 1.0, **more: Any) -> Record:
    return Record(id, [first, 2.0, 3.0], **more)


def cut(records: Any, limits: Limits = WIDE) -> list[RecordBatch]:
    return list(batches(records, 3, "cosine", limits))


def ids_of(parts: list[RecordBatch]) -> list[list[str]]:
    return [list(part.ids) for part in parts]


# Cutting ---------------------------------------------------------------------------------------------


def test_the_columns_of_a_batch() -> None:
    [batch] = cut([Record("a", (1, 2, 3), "text", {"k": 1}), Record("b", np.ones(3))])
    assert batch.ids == ["a", "b"]
    assert batch.vectors is not None
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    np.testing.assert_array_equal(batch.vectors, [[1, 2, 3], [1, 1, 1]])
    assert batch.texts == ["text", None]
    assert batch.metadatas == [{"k": 1}, {}]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (5, [2, 2, 1])]
)
@pytest.mark.parametrize("form", ["list", "iterator", "batch"])
def test_cut_by_rows(count: int, expected: list[int], form: str) -> None:
    rows = [record(str(i)) for i in range(count)]
    given: Any = {"list": rows, "iterator": iter(rows)}.get(form)
    if form == "batch":
        given = RecordBatch([row.id for row in rows], np.ones((count, 3), np.float32))
    parts = cut(given, Limits(2, 10**9))
    assert [len(part) for part in parts] == expected
    assert [id for part in parts for id in part.ids] == [row.id for row in rows]


def test_cut_by_bytes() -> None:
    sizes = [100, 100, 5000, 100, 100, 100, 900, 900, 900]
    rows = [record(f"{i}", text="x" * size) for i, size in enumerate(sizes)]
    parts = cut(rows, Limits(100, 1000))
    assert ids_of(parts) == [["0", "1"], ["2"], ["3", "4", "5"], ["6"], ["7"], ["8"]], (
        "one too big goes alone"
    )


@FIXED
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=20),
    st.integers(1, 5),
    st.integers(50, 600),
)
def test_parts_are_as_big_as_they_may_be(rows: list[tuple[int, int]], most: int, most_bytes: int) -> None:
    """No part is above the limits unless it is a single row, and none could have taken the next row too."""
    given = [
        record(f"{i}-{size}", text="é" * size, metadata={"k": [key]}) for i, (key, size) in enumerate(rows)
    ]
    parts = cut(given, Limits(most, most_bytes))
    assert [id for part in parts for id in part.ids] == [row.id for row in given]
    sizes = {
        row.id: 12 + len(row.id) + 2 * len(row.text or "") + check_metadata(row.metadata) for row in given
    }
    for part in parts:
        total = sum(sizes[id] for id in part.ids)
        assert len(part) <= most
        assert total <= most_bytes or len(part) == 1
    rest = iter(parts[1:])
    for part in parts[:-1]:
        following = next(rest)
        room = sum(sizes[id] for id in part.ids) + sizes[following.ids[0]] <= most_bytes
        # rows are gathered `most` at a time, so a part ends there too
        end = sum(len(p) for p in parts[: parts.index(part) + 1])
        assert len(part) == most or not room or end % most == 0


def test_metadata_and_ids_count_as_bytes() -> None:
    heavy = [record(f"{i}", metadata={"k": "x" * 900}) for i in range(3)]
    assert len(cut(heavy, Limits(100, 1000))) == 3
    named = [record("n" * 500 + str(i)) for i in range(3)]
    assert len(cut(named, Limits(100, 1000))) == 3
    wide = RecordBatch(["a", "b", "c"], np.ones((3, 300), np.float32))
    assert [len(part) for part in check_batch(wide, 300, "dot", Limits(100, 2000))] == [1, 1, 1]


def test_the_last_of_equal_ids_wins_within_a_part() -> None:
    rows = [record("a", 1), record("b", 2), record("a", 3), record("c", 4), record("b", 5)]
    [part] = cut(rows)
    assert part.ids == ["a", "c", "b"]
    assert part.vectors is not None
    assert part.vectors[:, 0].tolist() == [3, 4, 5]
    assert part.vectors.flags.c_contiguous


def test_the_last_of_equal_ids_comes_last_across_parts() -> None:
    rows = [record("a", 1), record("b", 2), record("a", 3), record("a", 4), record("b", 5)]
    parts = cut(rows, Limits(2, 10**9))
    written = {record.id: record for part in parts for record in records_of(part)}
    assert {id: float(row.vector[0]) for id, row in written.items()} == {"a": 4, "b": 5}  # type: ignore[index]
    assert all(len(set(part.ids)) == len(part) for part in parts)


def test_the_last_wins_with_its_text_and_metadata() -> None:
    rows = [record("a", text="old", metadata={"old": 1}), record("a", metadata={"new": 1})]
    [part] = cut(rows)
    assert (part.texts, part.metadatas) == ([None], [{"new": 1}])


def test_records_and_batches_may_be_mixed() -> None:
    block = RecordBatch(["c", "d"], np.ones((2, 3), np.float32), None, [{"k": 1}, {}])
    parts = cut(iter([record("a"), record("b"), block, record("e")]))
    assert ids_of(parts) == [["a", "b"], ["c", "d"], ["e"]]
    assert ids_of(cut(record("a"))) == [["a"]]
    assert ids_of(cut(block)) == [["c", "d"]]
    assert ids_of(cut(record(id) for id in "ab")) == [["a", "b"]]
    assert ids_of(cut({"x": record("a")}.values())) == [["a"]]
    assert cut([]) == cut(iter(())) == cut(RecordBatch([], np.empty((0, 3), np.float32))) == []


def test_an_iterator_is_read_no_further_than_one_batch_ahead() -> None:
    read = 0

    def rows() -> Iterator[Record]:
        nonlocal read
        while True:
            read += 1
            yield record(str(read))

    parts = batches(rows(), 3, "cosine", Limits(10, 10**9))
    for i in range(1, 4):
        assert len(next(parts)) == 10
        assert read == 10 * i


def test_batches_before_a_bad_record_are_sound() -> None:
    rows = [*(record(str(i)) for i in range(4)), Record("bad", [1.0]), record("after")]
    parts = batches(iter(rows), 3, "cosine", Limits(2, 10**9))
    assert [next(parts).ids, next(parts).ids] == [["0", "1"], ["2", "3"]]
    with pytest.raises(DimensionMismatchError, match="record 'bad': expected 3 dimensions, got 1"):
        next(parts)


def test_what_was_given_is_not_changed() -> None:
    vectors = np.asfortranarray(np.arange(1, 7, dtype=np.float64).reshape(2, 3))
    before = vectors.copy()
    metadata = {"k": [1]}
    cut(RecordBatch(["a", "a"], vectors, None, [metadata, metadata]))  # type: ignore[arg-type]  # converted
    np.testing.assert_array_equal(vectors, before)
    assert metadata == {"k": [1]}


# What is refused -------------------------------------------------------------------------------------

BAD_RECORDS: list[tuple[Any, str]] = [
    (None, r"expected records, not NoneType \(None\)"),
    (5, "expected records, not int"),
    ("abc", "expected records, not str"),
    (b"abc", "expected records, not bytes"),
    ({"a": 1}, "expected records, not dict"),
    (["a"], r"expected Record or RecordBatch, not str \('a'\)"),
    ([("a", [1, 2, 3])], "expected Record or RecordBatch, not tuple"),
    ([[record("a")]], "expected Record or RecordBatch, not list"),
    ([{"id": "a", "vector": [1, 2, 3]}], "not dict"),
    ([Record("a", None)], "the record 'a' has no vector"),
    (RecordBatch(["a"], None), "a batch to write needs vectors"),
    ([Record("", [1, 2, 3])], "record '': an id must have 1 to 512 UTF-8 bytes, not 0"),
    ([Record("x" * 513, [1, 2, 3])], "an id must have 1 to 512 UTF-8 bytes, not 513"),
    ([Record("é" * 257, [1, 2, 3])], "not 514"),
    ([Record("a\0", [1, 2, 3])], r"record 'a\\x00': an id must not hold NUL"),
    ([Record("a\ud800", [1, 2, 3])], "holds a lone surrogate"),
    ([Record(5, [1, 2, 3])], r"record 5: an id must be a str, not int \(5\)"),  # type: ignore[arg-type]
    ([Record(["a"], [1, 2, 3])], "an id must be a str, not list"),  # type: ignore[arg-type]
    ([Record(np.str_("a"), [1, 2, 3])], "an id must be a str, not str_"),
    ([record("a", text=5)], "record 'a': text must be a str or None, not int"),
    ([record("a", text=b"x")], "record 'a': text must be a str or None, not bytes"),
    ([record("a", text="\udcff")], "record 'a': text holds a lone surrogate"),
    ([record("a", metadata=None)], "record 'a': metadata must be a dict, not NoneType"),
    ([record("a", metadata={"k": (1,)})], r"record 'a': metadata\['k'\] is a tuple"),
    ([record("a", metadata={"": 1})], "record 'a': metadata key must have 1 to 128 UTF-8 bytes, not 0"),
    (
        [record("fine"), record("b", metadata={"k": 2**63})],
        r"record 'b': metadata\['k'\] = 9223372036854775808",
    ),
]


@pytest.mark.parametrize(("records", "message"), BAD_RECORDS, ids=[m[:40] for _, m in BAD_RECORDS])
def test_refused_records(records: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cut(records)


ONES = np.ones((2, 3), np.float32)
LENGTHS = "the columns differ in length: 2 ids, {} vectors, {} texts, {} metadatas"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (RecordBatch(["a", "b"], ONES[:1]), LENGTHS.format(1, 2, 2)),
        (RecordBatch(["a", "b"], np.ones((3, 3), np.float32)), LENGTHS.format(3, 2, 2)),
        (RecordBatch(["a", "b"], ONES, ["x"]), LENGTHS.format(2, 1, 2)),
        (RecordBatch(["a", "b"], ONES, None, [{}, {}, {}]), LENGTHS.format(2, 2, 3)),
        (RecordBatch(["a", "b"], ONES, []), LENGTHS.format(2, 0, 2)),
        (RecordBatch("ab", ONES), "ids must be a list, one for each record, not str"),
        (RecordBatch(["a", "b"], ONES, "xy"), "texts must be a list, one for each record, not str"),
        (RecordBatch(["a", "b"], ONES, None, {0: {}, 1: {}}), "metadatas must be a list, .*, not dict"),  # type: ignore[arg-type]
        (RecordBatch(iter(["a", "b"]), ONES), "ids must be a list, one for each record, not list_iterator"),  # type: ignore[arg-type]
        (RecordBatch(["a", "b"], iter(ONES)), "vectors must be a list, .* not "),  # type: ignore[arg-type]
        (RecordBatch(None, ONES), "ids must be a list, one for each record, not NoneType"),  # type: ignore[arg-type]
        (RecordBatch(["a", 5], ONES), r"record 5: an id must be a str, not int"),  # type: ignore[list-item]
        (RecordBatch(np.array(["a", "b"]), ONES), "an id must be a str, not str_"),  # type: ignore[arg-type]
        (RecordBatch(["a", "b"], ONES[0]), "the columns differ in length"),
    ],
)
def test_refused_batches(batch: RecordBatch, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cut(batch)


# Vectors ---------------------------------------------------------------------------------------------

ROWS = [[1.5, -2.0, 3.0], [4.0, 5.0, 6.25]]
WHOLE = [[1, -2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        [np.array(row) for row in ROWS],
        [np.array(ROWS[0], np.float16), ROWS[1]],
        np.array(ROWS),
        np.array(ROWS, np.float32),
        np.array(ROWS, np.float16),
        np.array(ROWS, np.longdouble),
        np.array(ROWS, ">f4"),
        np.asfortranarray(np.array(ROWS, np.float32)),
        np.array(ROWS, np.float32)[:, ::-1][:, ::-1],
        np.repeat(np.array(ROWS, np.float32), 2, axis=1)[:, ::2],
        np.array(ROWS + ROWS, np.float64)[:2],
        np.array(ROWS, np.float32).T.copy().T,
    ],
    ids=lambda value: type(value).__name__,
)
def test_vectors_of_every_form(given: Any) -> None:
    found = check_vectors(given, 3, "cosine")
    assert found.dtype == np.dtype(np.float32)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, ROWS)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_whole_numbers(kind: type[np.integer[Any]]) -> None:
    found = check_vectors(np.abs(np.array(WHOLE)).astype(kind), 3, "dot")
    np.testing.assert_array_equal(found, np.abs(np.array(WHOLE, np.float32)))
    np.testing.assert_array_equal(check_vectors(WHOLE, 3, "dot"), WHOLE)


def test_a_fitting_array_is_not_copied() -> None:
    array = np.array(ROWS, np.float32)
    assert np.shares_memory(check_vectors(array, 3, "cosine"), array)


def test_no_vectors() -> None:
    nothing: list[Any] = [[], np.empty((0, 3)), ()]
    for vectors in nothing:
        assert check_vectors(vectors, 3, "cosine").shape == (0, 3)


GOOD = [1.0, 2.0, 3.0]
BAD_VECTORS: list[tuple[Any, type[InvalidInputError], str]] = [
    ([1.0, 2.0], DimensionMismatchError, "expected 3 dimensions, got 2"),
    ([], DimensionMismatchError, "expected 3 dimensions, got 0"),
    ([1.0] * 4, DimensionMismatchError, "expected 3 dimensions, got 4"),
    ([GOOD], DimensionMismatchError, r"expected 3 dimensions, got shape \(1, 3\)"),
    ([[1], [1, 2]], DimensionMismatchError, "expected 3 dimensions, got 2"),
    ([[1], [1, 2], [1]], InvalidInputError, "expected numbers, not object"),
    (5.0, DimensionMismatchError, r"expected 3 dimensions, got shape \(\)"),
    ("abc", DimensionMismatchError, r"expected 3 dimensions, got shape \(\)"),
    ({"a": 1}, DimensionMismatchError, r"expected 3 dimensions, got shape \(\)"),
    (iter(GOOD), DimensionMismatchError, r"expected 3 dimensions, got shape \(\)"),
    ([True, False, True], InvalidInputError, "expected numbers, not bool"),
    (np.array([True, False, True]), InvalidInputError, "expected numbers, not bool"),
    (["1", "2", "3"], InvalidInputError, "expected numbers, not <U1"),
    ([1.0, None, 3.0], InvalidInputError, "expected numbers, not object"),
    (np.array([1.0, 2.0, 3.0], object), InvalidInputError, "expected numbers, not object"),
    ([Decimal(1)] * 3, InvalidInputError, "expected numbers, not object"),
    ([1j, 2.0, 3.0], InvalidInputError, "expected numbers, not complex128"),
    (np.array(["2024"] * 3, "datetime64[Y]"), InvalidInputError, "expected numbers, not datetime64"),
    ([10**400, 1, 1], InvalidInputError, "expected numbers, not object"),
    ([1.0, float("nan"), 3.0], InvalidInputError, "NaN or infinite as float32"),
    ([1.0, float("inf"), 3.0], InvalidInputError, "NaN or infinite as float32"),
    ([-float("inf"), float("inf"), 3.0], InvalidInputError, "NaN or infinite as float32"),
    ([1e39, 1.0, 1.0], InvalidInputError, "NaN or infinite as float32"),
    ([1e39, -1e39, 1.0], InvalidInputError, "NaN or infinite as float32"),
    (np.array([1, np.nan, 1], np.float32), InvalidInputError, "NaN or infinite as float32"),
    ([0.0, -0.0, 0.0], InvalidInputError, "a zero vector has no direction, so no cosine"),
    ([1e-50, 0, 0], InvalidInputError, "a zero vector has no direction, so no cosine"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("vector", "kind", "message"), BAD_VECTORS, ids=[shown(v)[:30] for v, _, _ in BAD_VECTORS]
)
def test_refused_vectors_name_their_record(vector: Any, kind: type[InvalidInputError], message: str) -> None:
    rows = [Record("good", GOOD), Record("good too", GOOD), Record("bad", vector), Record("more", GOOD)]
    with pytest.raises(InvalidInputError, match=f"^record 'bad': {message}") as caught:
        cut(rows)
    assert type(caught.value) is kind
    with pytest.raises(InvalidInputError, match=f"^record 'bad': {message}"):
        cut(Record("bad", vector))


@pytest.mark.parametrize("value", [None, 5, "abc", {"a": 1}, {1}, iter([GOOD]), np.array(1.0)], ids=shown)
def test_what_is_no_list_of_vectors(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"expected vectors, shape \(n, 3\), not "):
        check_vectors(value, 3, "cosine")


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1), (1, 2, 3), (2, 0)])
def test_arrays_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(DimensionMismatchError, match=r"^vector 0: expected 3 dimensions, got "):
        check_vectors(np.ones(shape), 3, "cosine")


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_zero_vectors_have_a_place_under_other_metrics(metric: Any) -> None:
    assert not check_vectors([[0, 0, 0]], 3, metric).any()


def test_the_largest_and_smallest_float32() -> None:
    most = float(np.finfo(np.float32).max)
    found = check_vectors([[most, -most, most]] * 1000, 3, "cosine")
    assert found.max() == np.finfo(np.float32).max
    tiny = float(np.finfo(np.float32).smallest_subnormal)
    assert check_vectors([[tiny, 0, 0]], 3, "cosine").any()


# Names and ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A-b_c.9", ".", "..", "-", "x" * 128])
def test_names(name: str) -> None:
    assert check_name(name, "a name") == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "a b", "a/b", "é", "a\n", "\n", "a\0", "a:b", "年", None, 5, b"a", ["a"]],
    ids=repr,
)
def test_refused_names(name: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"a name must be 1 to 128 of A-Z a-z 0-9 _ \. -, not "):
        check_name(name, "a name")


@pytest.mark.parametrize(
    ("id", "length"), [("a", 1), ("x" * 512, 512), ("é" * 256, 512), ("🙂", 4), (" ", 1)]
)
def test_ids(id: str, length: int) -> None:
    assert check_id(id) == length


def test_lists_of_ids() -> None:
    several: list[Callable[[], Any]] = [lambda: ["b", "a", "b"], lambda: ("b", "a", "b"), lambda: iter("bab")]
    for make in several:
        assert check_ids(make()) == ["b", "a", "b"]
    refused: list[tuple[Any, str]] = [
        ("abc", r"ids must be a list of ids, not one str; write \['abc'\]"),
        (None, r"ids must be a list of ids, not NoneType \(None\)"),
        (5, r"ids must be a list of ids, not int \(5\)"),
        (b"ab", r"an id must be a str, not int \(97\)"),
        (["a", ["b"]], r"an id must be a str, not list \(\['b'\]\)"),
        (["a", ""], "an id must have 1 to 512 UTF-8 bytes, not 0"),
        (["a", None], "an id must be a str, not NoneType"),
    ]
    for ids, message in refused:
        with pytest.raises(InvalidInputError, match=message):
            check_ids(ids)


def test_chunks() -> None:
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(chunks(iter("ab"), 2)) == [["a", "b"]]
    assert list(chunks([], 2)) == []


def test_take_and_records_of() -> None:
    vectors: npt.NDArray[np.float32] = np.arange(9, dtype=np.float32).reshape(3, 3)
    batch = RecordBatch(["a", "b", "c"], vectors, ["x", None, "z"], [{}, {"k": 1}, {}])
    assert list(records_of(take(batch, [2, 0]))) == [Record("c", [6, 7, 8], "z"), Record("a", [0, 1, 2], "x")]
    bare = take(RecordBatch(["a", "b"], None), [1])
    assert (bare.ids, bare.vectors, bare.texts, bare.metadatas) == (["b"], None, None, None)
    assert list(records_of(bare)) == [Record("b", None)]
