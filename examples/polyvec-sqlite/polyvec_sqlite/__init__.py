"""SQLite as a polyvec store: one file, exact, brute force."""

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.registry import Adapter

ADAPTER = Adapter(
    name="sqlite",
    title="SQLite",
    schemes=("sqlite",),
    capabilities=Capabilities(
        exact_query=True,
        flat_index=True,
        native_namespaces=True,
        reasons={"hnsw_index": "SQLite has no index for vectors: every query compares with all of them"},
        emulated={"filters": "a table of tokens and one of numbers beside the records"},
    ),
    config=StoreConfig,
    store="polyvec_sqlite.store:SqliteStore",
    requires="polyvec-sqlite",
    examples={"sqlite:./notes.db": "a file"},
    tested="SQLite of Python 3.11",
)
