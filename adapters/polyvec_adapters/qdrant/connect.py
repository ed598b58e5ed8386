"""How the driver's client is had: connected to a server, or in local mode."""

from __future__ import annotations

import ipaddress
import math
import threading
from pathlib import Path
from typing import Any, Final

from qdrant_client import QdrantClient

from polyvec_adapters.qdrant import QdrantConfig, records


def client_options(config: QdrantConfig) -> dict[str, Any]:
    """Return what the driver's client of a server is made with."""
    host = config.host
    assert host is not None
    encrypted = config.key is not None and not loopback(host.name) if config.tls is None else config.tls
    return {
        "host": f"[{host.name}]" if ":" in host.name else host.name,
        "port": host.port or 6333,
        "grpc_port": config.grpc_port,
        "prefer_grpc": config.prefer_grpc,
        "https": encrypted,
        "prefix": config.url.path.rstrip("/") or None,
        # not as api_key, with which the driver warns of a connection that is not encrypted, wanted or not
        "headers": {} if config.key is None else {"api-key": config.key},
        "timeout": math.ceil(config.timeout_s),  # whole seconds only
        "check_compatibility": False,  # it warns from a thread of its own
    }


def loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Local:
    """The driver's local mode in one directory, or in memory.

    It is not safe for threads (https://github.com/qdrant/qdrant-client/issues/367), and only one client may
    open a directory, so the stores of a process share one and take turns.

    Attributes:
        client: The driver's client.
        lock: Held during every call of it.
        namespaces: For each collection that was read, the namespaces that it may hold. Evaluating a
            condition takes Python ten times as long as the search itself, so one that holds for every
            record is better left out.
    """

    _open: Final[dict[str, Local]] = {}
    _guard: Final = threading.Lock()

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.users = 1
        self.lock = threading.RLock()
        self.namespaces: dict[str, set[str]] = {}
        self.client = (
            QdrantClient(":memory:")
            if path is None
            else QdrantClient(path=path, force_disable_check_same_thread=True)
        )

    @classmethod
    def open(cls, path: str) -> Local:
        """Return the one of this directory, or a new one for `:memory:`."""
        if path == ":memory:":
            return cls(None)
        key = str(Path(path).resolve())
        with cls._guard:
            if key in cls._open:
                cls._open[key].users += 1
            else:
                cls._open[key] = cls(key)
            return cls._open[key]

    def close(self) -> None:
        """Close the client once its last user is gone."""
        with self._guard, self.lock:
            self.users -= 1
            if self.users == 0:
                self.client.close()
                if self.path is not None:
                    del self._open[self.path]

    def only(self, collection: str, namespace: str) -> bool:
        """Return whether every record of the collection is in this namespace."""
        if collection not in self.namespaces:
            found = self.client.facet(collection, records.NAMESPACE, limit=2)
            self.namespaces[collection] = {str(hit.value) for hit in found.hits}
        return self.namespaces[collection] <= {namespace}

    def wrote(self, collection: str, namespace: str) -> None:
        """Take note of a write."""
        if collection in self.namespaces:
            self.namespaces[collection].add(namespace)
