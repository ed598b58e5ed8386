"""Typesense: a server or a cluster of them, or Typesense Cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter


@dataclass(frozen=True, kw_only=True)
class TypesenseConfig(StoreConfig):
    """How Typesense is reached; several hosts are the nodes of one cluster."""

    environment: ClassVar[Mapping[str, str]] = {"api_key": "TYPESENSE_API_KEY"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.user is not None:
            raise ConfigurationError(
                "typesense: there are no users; give the API key as typesense://:KEY@host:8108"
            )
        if not self.url.hosts:
            raise ConfigurationError(f"typesense: say where the server is: {', '.join(EXAMPLES)}")
        if self.key is None:
            raise ConfigurationError(
                "typesense: the API key is missing; give it as typesense://:KEY@host:8108, as api_key, or in "
                "TYPESENSE_API_KEY"
            )


EXAMPLES = {
    "typesense://:KEY@127.0.0.1:8108": "a server on this machine",
    "typesense://:KEY@a:8108,b:8108,c:8108": "the nodes of a cluster, encrypted",
    "typesense://:KEY@host:8108?tls=false": "a server in a private network, not encrypted",
    "typesense://:KEY@xyz.a1.typesense.net:443": "Typesense Cloud",
}

ADAPTER = Adapter(
    name="typesense",
    title="Typesense",
    schemes=("typesense",),
    capabilities=Capabilities(
        exact_query=True,
        hnsw_index=True,
        flat_index=True,
        max_query_vectors=50,
        max_batch_records=250,
        max_batch_bytes=4 * 2**20,
        concurrent_writes=2,
        reasons={
            "native_namespaces": "the engine has none; a token in every record and in every filter",
            "native_filters": "its conditions on strings ignore case, accents and punctuation",
        },
        emulated={
            "ids": "a document's id is a hash of the namespace and the id; the id is a field",
            "namespaces": "a token of every record, and a condition in every request",
            "filters": "one array of tokens; for ranges, numbers kept as integers that order as they do",
            "large filters": "what has more than some 45 conditions, polyvec tests on the records themselves",
            "replace": "records that exist are deleted and created again, since replacing corrupts the index",
            "metadata": "kept as one string, beside what filters look at",
            "vectors": "sent with length 1 under cosine, their length kept beside them",
            "euclidean": "brute force over inner products of vectors with one more dimension",
        },
    ),
    config=TypesenseConfig,
    store="polyvec_adapters.typesense.store:TypesenseStore",
    driver=("typesense", "orjson"),
    requires="polyvec[typesense]",
    examples=EXAMPLES,
    tested="server 0.24.1, one node and three",
)
