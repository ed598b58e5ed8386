"""How a collection lies in Redis: its keys, its index, and what a store knows about it. No I/O.

    {polyvec}:collections               a hash: the name of each collection to its generation and spec
    polyvec:<name>:<gen>                the index
    polyvec{}:<name>:<gen>:<ns>:<id>    a record

The generation is a random number that each `create_collection` draws. So nothing that is left of a dropped
collection, and nothing that a handle of it still writes, gets into the next one of the same name.

In a key, `{...}` says what a cluster places it by; empty braces place a record by its whole key, whatever
braces its id has (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from polyvec import spec as spec_codec
from polyvec.tokens import companion_field
from polyvec.types import CollectionSpec, HnswIndex, Metric
from polyvec_adapters.redis.filters import EVERYTHING
from polyvec_adapters.redis.records import POSITION, SPACE, TOKENS, VECTOR

Command: TypeAlias = list[Any]
"""A command's name and arguments: str, bytes, int."""

COLLECTIONS: Final = "{polyvec}:collections"

MOST_NUMERIC: Final = 1020
"""Most numeric fields of an index: it has at most 1,024 fields, and 4 are ours.

To add more than there is room for adds none (https://github.com/RediSearch/RediSearch/blob/v2.10.5/src/spec.h,
SPEC_MAX_FIELDS). So whoever has seen a full index knows its fields for good, and all writers agree on which
numbers are in a field."""

DEFAULT_INDEX: Final = HnswIndex()

SCORE: Final = "__score"
"""What a search calls the distance that it found."""

_METRICS: Final[dict[Metric, str]] = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
_COMPANIONS: Final = {"int": "n", "float": "n", "datetime": "d"}


@dataclass(slots=True)
class Table:
    """A collection of one generation.

    Attributes:
        spec: What it is.
        generation: 8 hex digits.
        numeric: The numeric fields that its index is known to have; there may be more by now.
        shared: Whether a search has met records of another namespace than its own.
    """

    spec: CollectionSpec
    generation: str
    numeric: frozenset[str] = frozenset()
    shared: bool = False

    @property
    def index(self) -> str:
        """Name of its index."""
        return f"polyvec:{self.spec.name}:{self.generation}"

    @property
    def prefix(self) -> str:
        """What the keys of its records begin with."""
        return f"polyvec{{}}:{self.spec.name}:{self.generation}:"

    @property
    def graph(self) -> HnswIndex | None:
        """The graph that it is searched by, None for brute force."""
        index = self.spec.index or DEFAULT_INDEX
        return index if isinstance(index, HnswIndex) else None

    def entry(self) -> str:
        """Return what stands in `COLLECTIONS`."""
        return f"{self.generation} {spec_codec.to_json(self.spec)}"

    def is_entry(self, entry: bytes | None) -> bool:
        """Return whether this is what stands in `COLLECTIONS`, or another generation or nothing."""
        return entry is not None and entry.startswith(f"{self.generation} ".encode())


def from_entry(entry: bytes) -> Table:
    """Return the table that `entry()` was called on."""
    generation, _, spec = entry.decode().partition(" ")
    return Table(spec_codec.from_json(spec), generation)


def hinted(spec: CollectionSpec) -> frozenset[str]:
    """Return the numeric fields that the hints of a collection say to index from the start."""
    fields = [
        companion_field(_COMPANIONS[kind], key) for key, kind in spec.indexes.items() if kind in _COMPANIONS
    ]
    return frozenset(fields[:MOST_NUMERIC])


def create(table: Table) -> Command:
    """Return the command that creates the index (https://redis.io/docs/latest/commands/ft.create/)."""
    spec, graph = table.spec, table.graph
    vector: Command = ["TYPE", "FLOAT32", "DIM", spec.dimension, "DISTANCE_METRIC", _METRICS[spec.metric]]
    if graph is not None:
        vector += ["M", graph.m, "EF_CONSTRUCTION", graph.ef_construction]
    tag = ["TAG", "SEPARATOR", ",", "CASESENSITIVE"]
    return [
        *("FT.CREATE", table.index, "ON", "HASH", "PREFIX", 1, table.prefix, "SKIPINITIALSCAN", "SCHEMA"),
        *(VECTOR, "VECTOR", "FLAT" if graph is None else "HNSW", len(vector), *vector),
        *(SPACE, *tag),
        *(TOKENS, *tag),
        *(POSITION, "NUMERIC"),
        *_numeric(sorted(table.numeric)),
    ]


def alter(table: Table, fields: Sequence[str]) -> Command:
    """Return the command that adds numeric fields; no record has one yet, so none is indexed anew."""
    return ["FT.ALTER", table.index, "SKIPINITIALSCAN", "SCHEMA", "ADD", *_numeric(fields)]


def _numeric(fields: Iterable[str]) -> list[str]:
    return [part for field in fields for part in (field, "NUMERIC")]


def missing(fields: Set[str], known: Set[str]) -> list[str]:
    """Return those of the fields that an index with the `known` ones lacks and has room for."""
    return sorted(fields - known)[: MOST_NUMERIC - len(known)]


def numeric_of(info: dict[bytes, Any]) -> frozenset[str]:
    """Return the numeric fields for companions that FT.INFO tells of."""
    names = (field[b"identifier"].decode() for field in info[b"attributes"])
    return frozenset(name for name in names if name.startswith(("n_", "d_")))


def search(
    table: Table, query: str, parameters: Sequence[str | bytes], timeout_s: float, *options: Any
) -> Command:
    """Return a search (https://redis.io/docs/latest/commands/ft.search/).

    Left to itself, a server answers after half a second with what it has found by then.
    """
    return [
        *("FT.SEARCH", table.index, query, *options),
        *(("PARAMS", len(parameters), *parameters) if parameters else ()),
        *("TIMEOUT", max(1, int(1000 * timeout_s)), "DIALECT", 2),
    ]


def nearest(table: Table, condition: str, limit: int, *, exact: bool) -> str:
    """Return the query for the `limit` records nearest to `$vector`.

    On a graph, brute force is a policy of queries with a condition, which `*` is none of
    (https://redis.io/docs/latest/develop/ai/search-and-query/vectors/#filters).
    """
    attributes = ""
    if table.graph is not None:
        attributes = "HYBRID_POLICY ADHOC_BF " if exact else f"EF_RUNTIME {table.graph.ef_search} "
    wanted = condition if condition == EVERYTHING else f"({condition})"
    return f"{wanted}=>[KNN {limit} @{VECTOR} $vector {attributes}AS {SCORE}]"
