"""The backends of the contract suite: how each real engine is had, and what is missing where it is not.

A backend is taken from `POLYVEC_TEST_<NAME>_URL` if that is set; else it is embedded, or its native server is
started on a free loopback port with a fresh data directory.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import polyvec
from polyvec.protocol import VectorStore
from tests.aio.bridge import Loop, open_bridge
from tests.servers.chroma import start_chroma

OpenStore: TypeAlias = Callable[[], VectorStore]
Running: TypeAlias = Iterator[OpenStore]


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to have a database.

    Attributes:
        name: What `--backend` takes.
        run: A context manager: from a data directory to a function that opens a new connection.
        source: Where the engine comes from, for the header.
        needs: Modules that must be installed.
        url_only: It cannot be started here; only the environment variable brings it.
    """

    name: str
    run: Callable[[Path], Running]
    source: str
    needs: tuple[str, ...] = ()
    url_only: bool = False

    @property
    def variable(self) -> str:
        """The environment variable with the URL of a running engine."""
        return f"POLYVEC_TEST_{self.name.upper().replace('-', '_').removesuffix('_SERVER')}_URL"

    @property
    def url(self) -> str | None:
        """The URL of a running engine, if one was named."""
        return os.environ.get(self.variable) or None

    @property
    def missing(self) -> str | None:
        """Why it cannot be had on this machine, and what to do; None if it can."""
        absent = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if absent:
            return f"not installed: {', '.join(absent)}; run `make setup`"
        if self.url_only and self.url is None:
            return f"no server to start on this machine; set {self.variable}=qdrant://host:6333"
        return None

    @contextmanager
    def running(self, data: Path) -> Running:
        """Give a function that opens a new connection to a running engine."""
        if self.url is not None and (self.url_only or self.name.endswith("-server")):
            url = self.url
            yield lambda: polyvec.connect(url)
        else:
            with contextmanager(self.run)(data) as opener:
                yield opener


def _memory(data: Path) -> Running:
    name = f"memory://{uuid.uuid4().hex}"
    yield lambda: polyvec.connect(name)


def _memory_async(data: Path) -> Running:
    name = f"memory://{uuid.uuid4().hex}"
    loop = Loop()
    try:
        yield lambda: open_bridge(name, loop)
    finally:
        loop.close()


def _chroma(data: Path) -> Running:
    yield lambda: polyvec.connect(f"chroma:{data}")


def _chroma_server(data: Path) -> Running:
    with start_chroma(data, data / "chroma.log") as url:
        yield lambda: polyvec.connect(url)


def _qdrant(data: Path) -> Running:
    yield lambda: polyvec.connect(f"qdrant:{data}")


def _nothing(data: Path) -> Running:
    raise AssertionError("it has a URL or is missing")


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("memory", _memory, "in this process"),
        Backend("memory-async", _memory_async, "in this process, through the async facade"),
        Backend("chroma", _chroma, "embedded engine of chromadb", needs=("chromadb",)),
        Backend("chroma-server", _chroma_server, "`chroma run` of chromadb", needs=("chromadb",)),
        Backend("qdrant", _qdrant, "local mode of qdrant-client", needs=("qdrant_client",)),
        Backend("qdrant-server", _nothing, "a server elsewhere", needs=("qdrant_client",), url_only=True),
    )
}
