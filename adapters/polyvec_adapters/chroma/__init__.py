"""Chroma: a directory on this machine, a server of one's own, or Chroma Cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from polyvec.capabilities import Capabilities
from polyvec.config import Host, StoreConfig, StoreUrl
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter

CLOUD: Final = ".trychroma.com"


@dataclass(frozen=True, kw_only=True)
class ChromaConfig(StoreConfig):
    """How Chroma is reached.

    The environment variables are those of Chroma Cloud (https://docs.trychroma.com/docs/run-chroma/clients)
    and are used for it only: a key must not reach another server because it happens to be set.

    Attributes:
        tenant: Tenant; None is Chroma's default, or in the cloud the one that the key belongs to.
        database: Database of the tenant, which must exist; None likewise.
    """

    environment: ClassVar[Mapping[str, str]] = {
        "api_key": "CHROMA_API_KEY",
        "tenant": "CHROMA_TENANT",
        "database": "CHROMA_DATABASE",
    }

    tenant: str | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url.hosts and not self.url.path:
            raise ConfigurationError(f"chroma: say where the store is: {', '.join(EXAMPLES)}")
        if not self.url.hosts:
            given = [
                name for name in ("user", "password", "api_key", "tls") if getattr(self, name) is not None
            ]
            if given:
                raise ConfigurationError(f"chroma: a directory has no {' or '.join(given)}")
        elif len(self.url.hosts) > 1:
            raise ConfigurationError("chroma: give one host; a server of Chroma is a single node")
        elif self.url.path.strip("/"):
            raise ConfigurationError(
                f"chroma: unexpected {self.url.path!r} after the host; the database is ?database=NAME"
            )
        if self.cloud and self.key is None:
            raise ConfigurationError(
                "chroma: Chroma Cloud needs api_key, or CHROMA_API_KEY in the environment"
            )

    @classmethod
    def make(cls, url: StoreUrl, options: Mapping[str, object]) -> Self:
        """Build the configuration; see `StoreConfig.make`."""
        if cls is ChromaConfig and not _is_cloud(url.hosts):
            return _OwnConfig.make(url, options)  # type: ignore[return-value]  # a subclass of cls
        return super().make(url, options)

    @property
    def cloud(self) -> bool:
        """Whether this is Chroma Cloud."""
        return _is_cloud(self.url.hosts)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted; in the cloud it is unless told otherwise."""
        return self.cloud if self.tls is None else self.tls

    @property
    def port(self) -> int:
        """The port of the server: 443 where it is encrypted and 8000 where it is not, unless it is given."""
        port = self.host.port if self.host else None
        return port or (443 if self.encrypted else 8000)


class _OwnConfig(ChromaConfig):
    """A directory, or a server of one's own."""

    environment: ClassVar[Mapping[str, str]] = {}


def _is_cloud(hosts: tuple[Host, ...]) -> bool:
    return any(host.name.lower().endswith(CLOUD) for host in hosts)


EXAMPLES: Final = {
    "chroma:./data": "a directory, for one process at a time",
    "chroma://host:8000": "a server",
    "chroma://host?tls=true&database=mine": "a server behind an encrypting proxy, and one of its databases",
    "chroma://api.trychroma.com?tenant=TENANT&database=NAME": "Chroma Cloud, with CHROMA_API_KEY set",
}

_NO_FLAT_INDEX: Final = (
    "Chroma always searches a graph and has no switch for brute force: "
    "https://github.com/chroma-core/chroma/issues/620"
)

ADAPTER = Adapter(
    name="chroma",
    title="Chroma",
    schemes=("chroma",),
    capabilities=Capabilities(
        hnsw_index=True,
        max_batch_records=1000,
        # the server takes bodies of 40 MiB; a control character in the metadata becomes 7 bytes on the wire
        max_batch_bytes=10 * 2**20,
        reasons={
            "exact_query": _NO_FLAT_INDEX,
            "flat_index": _NO_FLAT_INDEX,
            "native_namespaces": "each namespace is a Chroma collection of its own",
            "native_filters": "Chroma refuses some keys and compares an int with 2.5 as if it were 2",
        },
        emulated={
            "replace": "every write sends the same fixed keys, because Chroma merges metadata",
            "namespaces": "a Chroma collection for each",
            "filters": "a list of tokens in the metadata; for ranges, an int for each number or datetime",
            "metadata": "kept in the document, with the text, because Chroma drops None and nested values",
            "vectors": "sent with length 1 under cosine, their length kept in the document",
            "limit": "where the graph finds fewer records than match, polyvec compares all that match",
        },
    ),
    config=ChromaConfig,
    store="polyvec_adapters.chroma.store:ChromaStore",
    driver=("chromadb",),
    requires="polyvec[chroma]",
    examples=EXAMPLES,
    tested="Chroma 1.5.9, embedded and as a server",
)
