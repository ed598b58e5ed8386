"""Zilliz Cloud: Milvus as a service, through the adapter of Milvus with an index and limits of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter
from polyvec_adapters.milvus import CAPABILITIES, MilvusConfig

_HIGHEST_LEVEL = 10


@dataclass(frozen=True, kw_only=True)
class ZillizConfig(MilvusConfig):
    """How a cluster of Zilliz Cloud is reached.

    Attributes:
        level: How thoroughly to search, 1 (fast) to 10; about 90 % of the right records are found at 1, more
            than 99 % from 6 on (https://docs.zilliz.com/docs/tune-recall-rate).
    """

    environment: ClassVar[Mapping[str, str]] = {"api_key": "ZILLIZ_API_KEY"}

    level: int = 6

    def __post_init__(self) -> None:
        if not self.url.hosts:
            raise ConfigurationError(f"zilliz: say where the cluster is: {', '.join(EXAMPLES)}")
        super().__post_init__()
        if self.token is None:
            raise ConfigurationError(
                "zilliz: give an API key (zilliz://:KEY@host, api_key, or ZILLIZ_API_KEY) or a user and a "
                "password"
            )
        if not 1 <= self.level <= _HIGHEST_LEVEL:
            raise ConfigurationError(f"zilliz: level must be 1 to {_HIGHEST_LEVEL}, not {self.level}")


EXAMPLES = {
    "zilliz://:KEY@in03-abc.serverless.gcp-us-west1.cloud.zilliz.com": "a free or serverless cluster",
    "zilliz://:KEY@in01-abc.aws-us-east-1.vectordb.zillizcloud.com:19530": "a dedicated cluster",
    "zilliz://user:password@in01-abc.aws-us-east-1.vectordb.zillizcloud.com:19530": "the same, as a user",
}

_INDEX = "Zilliz Cloud has one index of its own, AUTOINDEX; the option level says how thoroughly it searches"

ADAPTER = Adapter(
    name="zilliz",
    title="Zilliz Cloud",
    schemes=("zilliz",),
    capabilities=dataclasses.replace(
        CAPABILITIES,
        hnsw_index=False,
        flat_index=False,
        reasons={"hnsw_index": _INDEX, "flat_index": _INDEX},
        emulated={
            **CAPABILITIES.emulated,
            "exact_query": "polyvec reads all vectors that the filter leaves, and compares them itself",
        },
    ),
    config=ZillizConfig,
    store="polyvec_adapters.zilliz.store:ZillizStore",
    driver=("pymilvus",),
    requires="polyvec[zilliz]",
    tested="Milvus 2.3.5 with authentication; not the cloud itself",
    examples=EXAMPLES,
)
