"""Random programs, played against a backend and the memory store at once; any difference is an error.

    python -m polyvec.testing.programs --store chroma:./data --programs 20000 --seed 7

A program is a handful of upserts, updates, deletes, queries, counts, gets and scans over three namespaces,
with hostile ids, keys and values, and vectors on a small grid so that ties are common. Hypothesis makes the
programs and shrinks one that fails. The command prints how many programs and steps were played, and the seed.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import polyvec
from polyvec.filters import (
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
    normalise,
)
from polyvec.protocol import Collection, VectorStore
from polyvec.testing.compare import assert_best, assert_same_record
from polyvec.types import METRICS, Metadata, Metric, Record, Vector

DIMENSION: Final = 3
NAMESPACES: Final = ("", "a", "A.b")
EVERYTHING: Final = 1000

IDS: Final = ("a", "b", "A", "é", "日本 語", 'q"\\', "1", "00000000-0000-0000-0000-000000000001", "x" * 512)
KEYS: Final = ("k", "K", 'q"\\`', "a.b", "$and", "k[]", "한\n")
SCALARS: Final = (
    True, False, 0, 1, -1, 2, 1.0, -0.0, 0.5, 1 / 3, 2**53, 2**53 + 1, 2.0**53, -(2**63), 1e300,
    "", " ", "a", "A", "a b", 'q"\\`', "{$}", "1", "é", "e\u0301", "nul\0", "👩‍👩‍👧",
    datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
)  # fmt: skip
RANGED: Final = tuple(value for value in SCALARS if not isinstance(value, bool | str))

_scalars = st.sampled_from(SCALARS)
_keys = st.sampled_from(KEYS)
_some = st.lists(_scalars, max_size=4)
_values = st.one_of(_scalars, _some, st.sampled_from([None, {}, [], [[]], {"k": 1}, [None, "a"]]))
_metadatas: st.SearchStrategy[dict[str, Any]] = st.dictionaries(_keys, _values, max_size=4)
_vectors = st.lists(st.integers(-2, 2), min_size=DIMENSION, max_size=DIMENSION).filter(any)
_texts = st.sampled_from([None, "", "text", "nul\0 \U0001f600"])
_records = st.builds(Record, st.sampled_from(IDS), _vectors, _texts, _metadatas)
_ids = st.lists(st.sampled_from([*IDS, "missing"]), min_size=1, max_size=3)
_namespaces = st.sampled_from(NAMESPACES)

_conditions: st.SearchStrategy[Filter] = st.one_of(
    st.builds(
        lambda kind, key, value: kind(key, value), st.sampled_from([Eq, Ne, Contains]), _keys, _scalars
    ),
    st.builds(
        lambda kind, key, value: kind(key, value),
        st.sampled_from([Lt, Lte, Gt, Gte]),
        _keys,
        st.sampled_from(RANGED),
    ),
    st.builds(
        lambda kind, key, values: kind(key, tuple(values)),
        st.sampled_from([In, NotIn, ContainsAny, ContainsAll]),
        _keys,
        _some,
    ),
    st.builds(Exists, _keys),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    _conditions,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(
            lambda kind, parts: kind(tuple(parts)), st.sampled_from([And, Or]), st.lists(inner, max_size=3)
        ),
    ),
    max_leaves=6,
)
"""Random filters over the keys and values of the programs."""


class Programs(RuleBasedStateMachine):
    """Plays one program; subclasses set `subjects` and `oracles`."""

    subjects: ClassVar[Mapping[Metric, Collection]]
    """Metric to a collection of the backend under test; the programs clear it."""
    oracles: ClassVar[Mapping[Metric, Collection]]
    """Metric to a collection of the memory store."""
    played: ClassVar[int]
    steps: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[str] = set()
        self.metric: Metric = "cosine"

    def _both(self, namespace: str) -> tuple[Collection, Collection]:
        type(self).steps += 1
        subject, oracle = self.subjects[self.metric], self.oracles[self.metric]
        if not namespace:
            return subject, oracle
        return subject.scoped(namespace), oracle.scoped(namespace)

    @initialize(metric=st.sampled_from(METRICS))
    def begin(self, metric: Metric) -> None:
        self.metric = metric
        type(self).played += 1

    @rule(records=st.lists(_records, min_size=1, max_size=4), namespace=_namespaces)
    def upsert(self, records: list[Record], namespace: str) -> None:
        self.touched.add(namespace)
        for collection in self._both(namespace):
            collection.upsert(records)

    @rule(ids=_ids, namespace=_namespaces)
    def delete(self, ids: list[str], namespace: str) -> None:
        for collection in self._both(namespace):
            collection.delete(ids)

    @rule(filter=filters, namespace=_namespaces)
    def delete_where(self, filter: Filter, namespace: str) -> None:
        if normalise(filter) is not None:
            for collection in self._both(namespace):
                collection.delete(filter=filter)

    @rule(ids=_ids, set_=_metadatas, unset=st.sets(_keys, max_size=2), namespace=_namespaces)
    def update(self, ids: list[str], set_: Metadata, unset: set[str], namespace: str) -> None:
        self._update(namespace, set_, unset, ids=ids)

    @rule(filter=filters, set_=_metadatas, namespace=_namespaces)
    def update_where(self, filter: Filter, set_: Metadata, namespace: str) -> None:
        if normalise(filter) is not None:
            self._update(namespace, set_, set(), filter=filter)

    def _update(self, namespace: str, set_: Metadata, unset: set[str], **target: Any) -> None:
        unset = unset - set_.keys()
        if set_ or unset:
            subject, oracle = self._both(namespace)
            changed = subject.update_metadata(**target, set=set_, unset=unset)
            assert changed == oracle.update_metadata(**target, set=set_, unset=unset)

    @rule(
        vector=_vectors,
        filter=st.none() | filters,
        limit=st.sampled_from([1, 2, 3, 20]),
        offset=st.sampled_from([0, 0, 1, 5]),
        namespace=_namespaces,
    )
    def query(self, vector: Vector, filter: Filter | None, limit: int, offset: int, namespace: str) -> None:
        subject, oracle = self._both(namespace)
        expected = {match.id: match.score for match in oracle.query(vector, filter=filter, limit=EVERYTHING)}
        got = subject.query(vector, filter=filter, limit=limit, offset=offset)
        assert_best(got, expected, limit=limit, offset=offset)

    @rule(id=st.sampled_from(IDS), filter=st.none() | filters, namespace=_namespaces)
    def query_by_id(self, id: str, filter: Filter | None, namespace: str) -> None:
        subject, oracle = self._both(namespace)
        if oracle.get([id]) != [None]:
            matches = oracle.query_by_id(id, filter=filter, limit=EVERYTHING)
            got = subject.query_by_id(id, filter=filter, limit=2)
            assert_best(got, {match.id: match.score for match in matches}, limit=2)

    @rule(filter=st.none() | filters, namespace=_namespaces)
    def count(self, filter: Filter | None, namespace: str) -> None:
        subject, oracle = self._both(namespace)
        assert subject.count(filter) == oracle.count(filter)

    @rule(ids=_ids, namespace=_namespaces)
    def get(self, ids: list[str], namespace: str) -> None:
        subject, oracle = self._both(namespace)
        for got, expected in zip(subject.get(ids), oracle.get(ids), strict=True):
            assert_same_record(got, expected)

    @rule(filter=st.none() | filters, batch_size=st.sampled_from([None, 1, 2]), namespace=_namespaces)
    def scan(self, filter: Filter | None, batch_size: int | None, namespace: str) -> None:
        subject, oracle = self._both(namespace)
        self._same(subject, oracle, filter, batch_size)

    def _same(
        self,
        subject: Collection,
        oracle: Collection,
        filter: Filter | None = None,
        batch_size: int | None = None,
    ) -> None:
        found = list(subject.scan(filter, include_vectors=True, batch_size=batch_size))
        expected = {record.id: record for record in oracle.scan(filter, include_vectors=True)}
        assert sorted(record.id for record in found) == sorted(expected)
        for record in found:
            assert_same_record(record, expected[record.id])

    def teardown(self) -> None:
        """Compare all that is left, and clear it."""
        try:
            for namespace in NAMESPACES:
                if namespace in self.touched:
                    self._same(*self._both(namespace))
        finally:
            for namespace in self.touched:
                for collection in self._both(namespace):
                    collection.clear()


def machine(subjects: Mapping[Metric, Collection], oracles: Mapping[Metric, Collection]) -> type[Programs]:
    """Return a state machine that plays against these collections, one for each metric."""
    attributes = {"subjects": subjects, "oracles": oracles, "played": 0, "steps": 0}
    return type("BoundPrograms", (Programs,), attributes)


def play(
    store: VectorStore,
    programs: int,
    *,
    seed: int,
    steps: int = 10,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Play random programs against a store.

    Args:
        store: The store under test; collections named `polyvec_test_<hex>` are made and dropped.
        programs: How many; Hypothesis may play a few more or fewer.
        seed: The same seed plays the same programs.
        steps: Most steps of a program.
        on_progress: Called with the programs and steps played so far.

    Returns:
        How many programs and steps were played.

    Raises:
        AssertionError: The store and the memory store differ; a note has the shortest program found.
    """
    names = {metric: f"polyvec_test_{uuid.uuid4().hex}" for metric in METRICS}
    with polyvec.connect("memory://") as memory:
        try:
            made = [
                {metric: s.create_collection(name, DIMENSION, metric) for metric, name in names.items()}
                for s in (store, memory)
            ]
            bound = machine(*made)
            for number, size in enumerate(_portions(programs)):
                hypothesis.seed(seed * 1_000_003 + number)(bound)
                run_state_machine_as_test(
                    bound,
                    settings=settings(
                        max_examples=size,
                        stateful_step_count=steps,
                        deadline=None,
                        database=None,
                        suppress_health_check=list(HealthCheck),
                    ),
                )
                if on_progress is not None:
                    on_progress(bound.played, bound.steps)
        finally:
            for name in names.values():
                store.drop_collection(name, missing_ok=True)
    return bound.played, bound.steps


def _portions(programs: int, size: int = 500) -> Iterable[int]:
    """Cut a long run, because Hypothesis remembers every program of one call."""
    while programs > 0:
        yield min(programs, size)
        programs -= size


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see the module."""
    summary, _, text = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m polyvec.testing.programs",
        description=summary,
        epilog=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", required=True, help="URL, or name of a store in polyvec.toml")
    parser.add_argument("--programs", type=int, default=1000, help="how many to play (default 1000)")
    parser.add_argument("--steps", type=int, default=10, help="most steps of a program (default 10)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed plays the same programs (default 0)"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def show(programs: int, steps: int) -> None:
        rate = programs / (time.monotonic() - started)
        left = max(0, options.programs - programs) / rate
        print(
            f"{programs} programs, {steps} steps, {rate:.0f} programs/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    with polyvec.connect(options.store) as store:
        played, steps = play(
            store, options.programs, seed=options.seed, steps=options.steps, on_progress=show
        )
        result = f"{played} programs, {steps} steps, seed {options.seed}: no divergence"
        print(f"{store.name} {store.version}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
