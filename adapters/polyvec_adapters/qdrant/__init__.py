"""Qdrant: a server over REST or gRPC, Qdrant Cloud, or the driver's local mode, on disk or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter


@dataclass(frozen=True, kw_only=True)
class QdrantConfig(StoreConfig):
    """How a Qdrant server is reached; none of it matters in local mode.

    Attributes:
        prefer_grpc: Send everything over gRPC, which is faster for large batches.
        grpc_port: Port of gRPC.
    """

    environment: ClassVar[Mapping[str, str]] = {"api_key": "QDRANT_API_KEY"}

    prefer_grpc: bool = False
    grpc_port: int = 6334

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.user is not None:
            raise ConfigurationError("qdrant: there are no users; give the API key as qdrant://:KEY@host")
        if len(self.url.hosts) > 1:
            raise ConfigurationError(
                "qdrant: give one host; any node of a cluster, or its load balancer, answers for all of it"
            )
        if not self.url.hosts and self.prefer_grpc:
            raise ConfigurationError("qdrant: prefer_grpc needs a server; local mode has no transport")
        if not self.url.hosts and not self.url.path:
            raise ConfigurationError(f"qdrant: say where the store is: {', '.join(EXAMPLES)}")


EXAMPLES = {
    "qdrant:./data": "a directory, for one process at a time",
    "qdrant::memory:": "a store in this process, gone with it",
    "qdrant://host:6333": "a server, over REST",
    "qdrant://host:6333?prefer_grpc=true&grpc_port=6334": "a server, over gRPC",
    "qdrant://:KEY@xyz.cloud.qdrant.io:6333": "Qdrant Cloud, encrypted",
}

ADAPTER = Adapter(
    name="qdrant",
    title="Qdrant",
    schemes=("qdrant",),
    capabilities=Capabilities(
        exact_query=True,
        hnsw_index=True,
        flat_index=True,
        max_batch_records=500,
        concurrent_writes=2,
        reasons={
            "native_namespaces": "a payload field and a condition, as Qdrant advises for many tenants",
            "native_filters": "its conditions look inside lists, and an index changes what they match",
        },
        emulated={
            "ids": "a point's id is a UUID made from the namespace and the id; the id is in the payload",
            "namespaces": "a payload field, indexed as the tenant, and a condition in every request",
            "filters": "one indexed array of tokens in the payload; for ranges, numbers kept as two integers",
            "metadata": "kept as one string, because the engine changes the last digit of some floats",
            "vectors": "sent with length 1 under cosine, their length kept in the payload",
        },
    ),
    config=QdrantConfig,
    store="polyvec_adapters.qdrant.store:QdrantStore",
    driver=("qdrant_client",),
    requires="polyvec[qdrant]",
    examples=EXAMPLES,
    tested="local mode of qdrant-client 1.20.0, and the engine of qdrant-edge 0.9.0 in place of a server",
)
