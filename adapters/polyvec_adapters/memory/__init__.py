"""Memory: exact, in this process, gone with it. The reference that every database is compared with."""

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.registry import Adapter

ADAPTER = Adapter(
    name="memory",
    title="Memory",
    schemes=("memory",),
    capabilities=Capabilities(
        exact_query=True,
        flat_index=True,
        native_namespaces=True,
        native_filters=True,
        persistent=False,
        max_query_limit=1_000_000,
        reasons={
            "hnsw_index": "the memory store is exact: it compares with every record",
            "persistent": "the records live in this process",
        },
    ),
    config=StoreConfig,
    store="polyvec_adapters.memory.store:MemoryStore",
    tested="in this process",
    examples={
        "memory://": "a store of its own",
        "memory://name": "the store of that name, shared within the process",
    },
)
