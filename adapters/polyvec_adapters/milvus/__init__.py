"""Milvus: a server, standalone or cluster, or Milvus Lite in this process, kept in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter


@dataclass(frozen=True, kw_only=True)
class MilvusConfig(StoreConfig):
    """How a Milvus server is reached.

    Attributes:
        database: Database of the server, which may also follow the host in the URL; it must exist. None is
            the server's default one.
        strong_reads: Wait before each read until it sees all earlier writes, whoever made them. Needed where
            a collection is loaded in several replicas, of which one may be behind another.
    """

    environment: ClassVar[Mapping[str, str]] = {"api_key": "MILVUS_TOKEN"}

    database: str | None = None
    strong_reads: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.url.hosts) > 1:
            raise ConfigurationError(
                f"{self.url.scheme}: give one host; a proxy of a cluster, or its load balancer, answers for "
                "all of it"
            )
        if self.database not in (None, self._path or self.database):
            raise ConfigurationError(
                f"{self.url.scheme}: two databases, {self._path!r} in the URL and {self.database!r}"
            )
        if not self.url.hosts and not self.url.path.endswith(".db"):
            raise ConfigurationError(f"{self.url.scheme}: say where the store is: {', '.join(EXAMPLES)}")

    @property
    def database_name(self) -> str:
        """The database; "" is the server's default one."""
        return self.database or self._path

    @property
    def _path(self) -> str:
        return self.url.path.strip("/") if self.url.hosts else ""

    @property
    def token(self) -> str | None:
        """What the server wants to see: `user:password`, or a key."""
        return f"{self.user}:{self.password or ''}" if self.user is not None else self.key


EXAMPLES = {
    "milvus:./data.db": "a directory, in this process (Milvus Lite); its name must end in .db",
    "milvus://host:19530": "a server",
    "milvus://user:password@host:19530/database": "a database of a server with authentication",
}

CAPABILITIES = Capabilities(
    exact_query=True,
    hnsw_index=True,
    flat_index=True,
    max_dimension=32_768,
    max_query_limit=16_384,
    concurrent_writes=2,
    emulated={
        "ids": "the primary key is a hash of the namespace and the id; the id is a field",
        "namespaces": "a field, and a condition on it in every request",
        "filters": "one array of tokens; for ranges, numbers in one JSON field",
        "metadata": "kept as JSON text, in pieces that fit into a VARCHAR, as the record's text is",
        "vectors": "sent with length 1 under cosine, their length kept in a field",
        "exact_query": "polyvec reads all vectors that the filter leaves and compares them itself, unless "
        "the collection was made with FlatIndex()",
        "update_metadata": "the record is read and written again as a whole",
    },
)

ADAPTER = Adapter(
    name="milvus",
    title="Milvus",
    schemes=("milvus",),
    capabilities=CAPABILITIES,
    config=MilvusConfig,
    store="polyvec_adapters.milvus.store:MilvusStore",
    driver=("pymilvus",),
    requires="polyvec[milvus]",
    tested="Milvus 2.3.5 (standalone), Milvus Lite 3.2.2",
    examples=EXAMPLES,
)
