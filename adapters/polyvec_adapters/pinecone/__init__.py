"""Pinecone: the cloud service (serverless or BYOC), or an emulator of it such as Pinecone Local."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter

CLOUD: Final = "https://api.pinecone.io"


@dataclass(frozen=True, kw_only=True)
class PineconeConfig(StoreConfig):
    """How Pinecone is reached, and where its indexes are made.

    Attributes:
        cloud: Of new serverless indexes: aws, gcp or azure.
        region: Of new serverless indexes.
        byoc_environment: Of new indexes in a cloud account of one's own, in place of cloud and region.
        create_timeout_s: Seconds within which a new index is ready, and a deleted one gone.
    """

    environment: ClassVar[Mapping[str, str]] = {"api_key": "PINECONE_API_KEY"}

    cloud: str = "aws"
    region: str = "us-east-1"
    byoc_environment: str | None = None
    create_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.user is not None:
            raise ConfigurationError("pinecone: there are no users; give the API key as pinecone://:KEY@")
        if len(self.url.hosts) > 1:
            raise ConfigurationError("pinecone: give one host, or none for Pinecone's cloud")
        if self.url.path.strip("/"):
            raise ConfigurationError(
                f"pinecone: nothing follows the host, but {self.url.path!r}; each collection is an index"
            )
        if not self.create_timeout_s > 0:
            raise ConfigurationError(
                f"pinecone: create_timeout_s must be positive, not {self.create_timeout_s}"
            )
        if self.key is None and not self.local:
            raise ConfigurationError(
                "pinecone: the API key is missing; give it as pinecone://:KEY@, as api_key, or in "
                "PINECONE_API_KEY"
            )

    @property
    def local(self) -> bool:
        """Whether the host is this machine, where an emulator asks for no key."""
        name = self.host.name if self.host is not None else ""
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"

    @property
    def scheme(self) -> str:
        """Of the connections: encrypted, but for an emulator on this machine, unless `tls` says otherwise."""
        encrypted = not self.local if self.tls is None else self.tls
        return "https" if encrypted else "http"

    @property
    def control_url(self) -> str:
        """Where indexes are made and looked up; each has an address of its own."""
        if self.host is None:
            return CLOUD
        name = f"[{self.host.name}]" if ":" in self.host.name else self.host.name
        return f"{self.scheme}://{name}" + (f":{self.host.port}" if self.host.port else "")


EXAMPLES = {
    "pinecone://:KEY@": "Pinecone's cloud; new indexes on AWS in us-east-1",
    "pinecone://?cloud=gcp&region=us-central1": "the same, elsewhere, with the key in PINECONE_API_KEY",
    "pinecone://127.0.0.1:5080": "an emulator on this machine, such as Pinecone Local",
}

ADAPTER = Adapter(
    name="pinecone",
    title="Pinecone",
    schemes=("pinecone",),
    capabilities=Capabilities(
        native_namespaces=True,
        max_dimension=20_000,
        max_query_limit=10_000,
        max_query_vectors=64,
        max_batch_records=1000,
        max_batch_bytes=1_200_000,
        concurrent_writes=4,
        reasons={
            "exact_query": "the service has no brute-force search",
            "hnsw_index": "the service chooses its index itself",
            "flat_index": "the service chooses its index itself",
            "native_filters": "it knows neither dates nor lists of numbers, and documents no meaning of $ne "
            "for a missing field",
        },
        emulated={
            "names": "a name that is no index's name is hashed; the collection's own is in the tags",
            "ids": "an id that is not ASCII is hashed, and kept beside the metadata",
            "filters": "one list of tokens; for ranges numbers, dates as two of them",
            "metadata": "kept as one string, beside what filters look at",
            "vectors": "sent with length 1 under cosine, their length kept beside them",
            "consistency": "a write is waited for by its log sequence number",
            "several queries": "one request each, eight at a time",
            "update_metadata": "one request for each record, eight at a time",
        },
    ),
    config=PineconeConfig,
    store="polyvec_adapters.pinecone.store:PineconeStore",
    driver=("pinecone", "orjson"),
    requires="polyvec[pinecone]",
    examples=EXAMPLES,
    tested="an emulator of our own, written from the API's description, with SDK 10.2.0; neither the cloud "
    "nor Pinecone Local was run",
)
