"""Redis: a server with search (Redis 8, Redis Stack, Redis Cloud), over TCP or TLS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter


@dataclass(frozen=True, kw_only=True)
class RedisConfig(StoreConfig):
    """How a Redis server is reached.

    Attributes:
        ca_certs: File with the certificates that a server's own one may be signed by; None for those that
            the system trusts.
    """

    # https://redis.io/docs/latest/develop/tools/cli/: what redis-cli reads
    environment: ClassVar[Mapping[str, str]] = {"password": "REDISCLI_AUTH"}

    ca_certs: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url.hosts:
            raise ConfigurationError(f"redis: say where the server is: {', '.join(EXAMPLES)}")
        if len(self.url.hosts) > 1:
            raise ConfigurationError(
                "redis: give one host: of a single server, or the endpoint of Redis Cloud or Redis Software; "
                "an open-source cluster and Sentinel are not supported"
            )
        # https://redis.io/docs/latest/commands/ft.create/: no index can be created in another one
        if self.url.path not in ("", "/", "/0"):
            raise ConfigurationError(
                "redis: search works in database 0 only; leave out what follows the host"
            )
        if self.url.scheme == "rediss" and self.tls is False:
            raise ConfigurationError("redis: rediss:// is encrypted; write redis:// for tls=false")
        if self.ca_certs is not None and not self.encrypted:
            raise ConfigurationError("redis: ca_certs needs an encrypted connection: rediss://")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.scheme == "rediss" or bool(self.tls)


EXAMPLES = {
    "redis://host:6379": "a server",
    "redis://:PASSWORD@host:6379": "a server with a password",
    "rediss://USER:PASSWORD@host:6380": "a server over TLS, as a user",
}

ADAPTER = Adapter(
    name="redis",
    title="Redis",
    schemes=("redis", "rediss"),
    capabilities=Capabilities(
        exact_query=True,
        hnsw_index=True,
        flat_index=True,
        max_batch_records=500,
        concurrent_writes=2,
        emulated={
            "ids": "a record is a hash whose key ends with the namespace and the id",
            "replace": "the hash is deleted and set in one transaction for each record, since HSET merges",
            "namespaces": "a part of the key, and a tag that is asked for; a search by vector leaves it out "
            "until it meets records of another namespace",
            "filters": "one tag field of hashed tokens; for ranges, a numeric field that is added to the "
            "index when its key is first seen",
            "metadata": "kept as one string, because a hash knows no types",
            "vectors": "sent with length 1 under cosine, their length kept beside them",
            "scan": "in ranges of a hashed number, since searches end at a limit and cursors expire",
        },
    ),
    config=RedisConfig,
    store="polyvec_adapters.redis.store:RedisStore",
    driver=("redis",),
    requires="polyvec[redis]",
    examples=EXAMPLES,
    tested="Redis 8.2.3 with search 2.10.5",
)
