"""What adapters share of how records are written; its values lie in databases and must never change."""

from __future__ import annotations

import math
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.encoding import (
    NO_RECORD_UUID,
    join_lengths,
    namespace_token,
    packed_floats,
    record_key,
    record_uuid,
    sortable_int,
    sortable_pair,
    split_lengths,
)
from polyvec.metadata import microseconds
from polyvec.testing import data
from polyvec.tokens import record_tokens

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


class TestKeys:
    PAIRS = sorted(
        {(namespace, id) for namespace in ("", "a", "A", "ab", "a.b") for id in (*data.IDS, "a", "b")}
    )

    def test_no_two_records_share_one(self) -> None:
        assert len({record_key(*pair) for pair in self.PAIRS}) == len(self.PAIRS)
        assert len({record_uuid(*pair) for pair in self.PAIRS}) == len(self.PAIRS)
        assert record_key("a", "bc") != record_key("ab", "c")
        assert record_uuid("a", "bc") != record_uuid("ab", "c")

    def test_uuids_are_of_version_5_and_one_is_nobodys(self) -> None:
        found = [record_uuid(*pair) for pair in self.PAIRS]
        assert all(str(uuid.UUID(text)) == text and uuid.UUID(text).version == 5 for text in found)
        assert NO_RECORD_UUID not in found

    def test_they_are_what_they_were(self) -> None:
        assert record_key("tenant", "a").hex() == "5099de2484c6d1034574ca44cb202f66"
        assert record_uuid("tenant", "a") == "5bf7ad17-0821-5ec4-84e2-f7681567c784"
        assert namespace_token("") == "scae66941d9efbd404e4d88758ea67670"

    def test_the_token_of_a_namespace_is_none_of_metadata(self) -> None:
        assert namespace_token("a") != namespace_token("A")
        assert len(namespace_token("a")) == 33
        assert all(len(token) == 32 for token in record_tokens(data.METADATAS[3]))


class TestNumbers:
    @given(FLOATS, FLOATS)
    def test_they_order_as_numbers_do(self, left: float, right: float) -> None:
        for make in (sortable_int, sortable_pair):
            a, b = make("n_x", left), make("n_x", right)
            assert ((a < b), (a == b)) == (left < right, left == right)  # type: ignore[operator]  # of one type
        assert -(2**63) < sortable_int("n_x", left) < 2**63 - 1

    @given(FLOATS)
    def test_they_tell_neighbours_apart(self, number: float) -> None:
        above = math.nextafter(number, math.inf)
        if math.isfinite(above):
            assert sortable_pair("n_x", number) < sortable_pair("n_x", above)

    @given(INT64, INT64)
    def test_they_order_as_instants_do(self, left: int, right: int) -> None:
        assert sortable_int("d_x", left) == left
        assert (sortable_pair("d_x", left) < sortable_pair("d_x", right)) == (left < right)

    @given(st.one_of(st.tuples(st.just("n_x"), FLOATS), st.tuples(st.just("d_x"), INT64)))
    def test_pairs_survive_json_and_float64(self, companion: tuple[str, float]) -> None:
        for half in sortable_pair(*companion):
            assert abs(half) < 2**53
            assert int(float(half)) == half

    def test_the_ends_of_the_numbers(self) -> None:
        assert sortable_int("n_x", -0.0) == sortable_int("n_x", 0.0) == 0
        assert sortable_int("n_x", 5e-324) == 1
        assert sortable_int("n_x", -5e-324) == -1
        last = microseconds(data.DATETIMES[5])
        assert last > 2**53
        assert sortable_int("d_x", last) == last

    def test_zeros_are_equal_and_short_numbers_have_no_low_half(self) -> None:
        assert sortable_pair("n_x", 0.0) == sortable_pair("n_x", -0.0) == (0, 0)
        for number in (1.0, -1.0, 7.0, 0.5, -2024.0, 1_000_000.0, 2.0**-1000):
            assert sortable_pair("n_x", number)[1] == 0
        assert sortable_pair("d_x", 5_000_000) == (5, 0)
        assert sortable_pair("d_x", -1) == (-1, 999_999)
        assert sortable_pair("n_x", 7.0) == (0x401C0000, 0)


class TestLengths:
    def test_only_cosine_changes_vectors(self) -> None:
        given = np.array([[3, 4]], np.float32)
        vectors, lengths = split_lengths(given, "cosine")
        assert (vectors.tolist(), lengths) == (np.array([[0.6, 0.8]], np.float32).tolist(), [5.0])
        assert vectors.dtype == np.float32
        for metric in ("dot", "euclidean"):
            vectors, lengths = split_lengths(given, metric)
            assert vectors is given
            assert lengths is None

    @pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30, 3e38])
    def test_they_come_back_at_any_scale(self, scale: float) -> None:
        given = (data.vectors(50, 7, seed=1) / 10 * scale).astype(np.float32)
        given[0] = np.float32(scale)
        vectors, lengths = split_lengths(given, "cosine")
        assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
        assert lengths is not None
        back = join_lengths(vectors, lengths)
        assert back.dtype == np.float32
        assert np.allclose(back, given, rtol=1e-5, atol=0 if scale > 1e-37 else 1e-43)

    def test_the_largest_float_does_not_become_infinite(self) -> None:
        largest = np.finfo(np.float32).max
        given = np.full((1, 3), largest, np.float32)
        vectors, lengths = split_lengths(given, "cosine")
        assert lengths is not None
        assert np.isfinite(join_lengths(vectors, np.array(lengths) * (1 + 1e-7))).all()

    def test_no_vectors(self) -> None:
        assert join_lengths(np.empty((0, 3), np.float32), []).shape == (0, 3)


@pytest.mark.parametrize("dimension", [1, 31, 32, 512, 5000])
def test_packed_floats_are_what_protobuf_writes(dimension: int) -> None:
    qdrant = pytest.importorskip("qdrant_client.grpc")
    rows = data.vectors(2, dimension, seed=3)
    assert packed_floats(rows) == qdrant.DenseVector(data=rows.ravel().tolist()).SerializeToString()
