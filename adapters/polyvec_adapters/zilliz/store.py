"""The store of Zilliz Cloud: that of Milvus, but for how it connects and which index it asks for."""

from __future__ import annotations

from polyvec.types import CollectionSpec
from polyvec_adapters.milvus.connect import Connection
from polyvec_adapters.milvus.store import MilvusStore
from polyvec_adapters.zilliz import ZillizConfig


class ZillizStore(MilvusStore):
    """Collections of one database of a cluster."""

    config: ZillizConfig

    def _connection(self) -> Connection:
        # encrypted unless it is said otherwise; free and serverless clusters have no port of their own
        # (https://docs.zilliz.com/docs/connect-to-cluster)
        return Connection(self.config, port=443, encrypted=self.config.tls is not False)

    def index(self, spec_: CollectionSpec) -> tuple[str, dict[str, int]]:
        """Return the type of a collection's index, and its parameters."""
        return "AUTOINDEX", {}

    def search_parameters(self, spec_: CollectionSpec, limit: int) -> dict[str, int]:
        """Return the parameters of a search."""
        return {"level": self.config.level}
