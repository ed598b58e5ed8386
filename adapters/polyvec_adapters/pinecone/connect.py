"""How Pinecone is reached: the driver's clients, their addresses, and how far the service has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpx
from pinecone import Index, Pinecone, RetryConfig
from pinecone.errors import NotFoundError
from pinecone.models.indexes.index import IndexModel

from polyvec.errors import CollectionNotFoundError
from polyvec_adapters.pinecone import PineconeConfig
from polyvec_adapters.pinecone.errors import NotYetError

T = TypeVar("T")

LSN_HEADER: Final = "x-pinecone-request-lsn"
"""The place of a write in the log of its namespace:
https://docs.pinecone.io/guides/index-data/check-data-freshness."""

NO_KEY: Final = "pclocal"
"""Pinecone Local asks for none, the driver does: https://docs.pinecone.io/guides/operations/local-development."""

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.5
_POLL_S: Final = 1.0


class Transport(httpx.BaseTransport):
    """Sends a request once, and remembers for each thread where its last write stands in the log.

    In place of the driver's own (10.2), which tries again by itself, with a budget that all clients of a
    process share. `Index` cannot be told not to: `Pinecone._build_index_kwargs` leaves `retry_config` out. An
    error would take four timeouts, and then be tried again by polyvec. And `Index.delete` returns nothing, so
    that only here the LSN of a deletion can be seen.
    """

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self._last = threading.local()

    @classmethod
    def of(cls, index: Index) -> Transport:
        """Put one into a client of the driver's, and return it."""
        client = index._http._client  # noqa: SLF001  # there is no public way, see above
        retrying: Any = client._transport  # noqa: SLF001
        transport = cls(retrying._transport)  # noqa: SLF001
        client._transport = transport  # noqa: SLF001
        return transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        self._last.lsn = None
        response = self._inner.handle_request(request)
        lsn = response.headers.get(LSN_HEADER, "")
        self._last.lsn = int(lsn) if lsn.isdecimal() else None
        return response

    @property
    def lsn(self) -> int | None:
        """The LSN of this thread's last request; None if it had none."""
        found: int | None = self._last.lsn
        return found

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class Api:
    """The clients of one store.

    Attributes:
        control: The driver's client, for indexes as a whole.
    """

    def __init__(self, config: PineconeConfig) -> None:
        self._config = config
        self._key = config.key or NO_KEY
        self.control = Pinecone(
            api_key=self._key,
            host=config.control_url,
            timeout=config.timeout_s,
            retry_config=RetryConfig(max_retries=0),
        )
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Index, Transport]] = {}
        self._left: list[Index] = []  # other threads may still be using them
        self._written: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for index in [*self._left, *(index for index, _ in self._open.values())]:
                index.close()
            self._open.clear()
        self.control.close()

    # Indexes ------------------------------------------------------------------------------------------

    def describe(self, name: str) -> IndexModel | None:
        """Return what an index is; None where there is none, or not for long."""
        try:
            found = self.control.indexes.describe(name)
        except NotFoundError:
            return None
        return None if found.status.state == "Terminating" else found

    def wait_ready(self, name: str) -> None:
        """Wait until a new index takes requests."""
        self._poll(name, lambda: self.control.indexes.describe(name).status.ready, "is not ready yet")

    def drop(self, name: str) -> None:
        """Delete an index, and wait until its name is free."""
        self.control.indexes.delete(name, timeout=-1)
        with self._lock:
            self._written = {key: lsn for key, lsn in self._written.items() if key[0] != name}
            index, _ = self._open.pop(name, (None, None))
        if index is not None:
            index.close()
        self._poll(name, lambda: not self.control.indexes.exists(name), "is not gone yet")

    def _poll(self, name: str, done: Callable[[], bool], what: str) -> None:
        wait(done, self._config.create_timeout_s, _POLL_S, f"the index {name} {what}")

    # Requests to an index -----------------------------------------------------------------------------

    def call(self, name: str, request: Callable[[Index], T]) -> T:
        """Make a request to an index, at its present address.

        Raises:
            CollectionNotFoundError: There is no such index.
            NotFoundError: There is, but not what the request asks for.
        """
        return self._call(name, request)[0]

    def write(self, name: str, namespace: str, request: Callable[[Index], T]) -> T:
        """Make a request that changes a namespace, and keep its LSN for `wait`."""
        answer, lsn = self._call(name, request)
        if lsn is not None:
            with self._lock:
                key = name, namespace
                self._written[key] = max(lsn, self._written.get(key, 0))
        return answer

    def wait(self, name: str, namespace: str, dimension: int) -> None:
        """Return when queries see all that this store has written to a namespace.

        Nothing is waited for where the service gave no LSN, as pod-based indexes do not.
        """
        with self._lock:
            target = self._written.get((name, namespace))
        if target is None:
            return
        probe = [1.0] + [0.0] * (dimension - 1)

        def indexed() -> bool:
            try:
                answer = self.call(
                    name, lambda index: index.query(top_k=1, vector=probe, namespace=namespace)
                )
            except NotFoundError:  # not even the namespace can be seen yet
                return False
            info = answer.response_info
            return info is not None and info.is_reconciled(target)

        wait(indexed, self._config.timeout_s, _LONGEST_PAUSE_S, "what was written cannot be read yet")
        with self._lock:
            if self._written.get((name, namespace)) == target:
                del self._written[name, namespace]

    def _call(self, name: str, request: Callable[[Index], T]) -> tuple[T, int | None]:
        index, transport = self._index(name)
        try:
            return request(index), transport.lsn
        except NotFoundError:
            if not self._moved(name, index):
                raise
        index, transport = self._index(name)
        return request(index), transport.lsn

    def _index(self, name: str) -> tuple[Index, Transport]:
        with self._lock:
            if name in self._open:
                return self._open[name]
        host = self._host(name)
        with self._lock:
            if name not in self._open:
                index = Index(host=host, api_key=self._key, timeout=self._config.timeout_s)
                self._open[name] = index, Transport.of(index)
            return self._open[name]

    def _moved(self, name: str, index: Index) -> bool:
        """Return whether an index is elsewhere now, made again by somebody; forget where it was."""
        if index.host == self._host(name):
            return False
        with self._lock:
            if name in self._open and self._open[name][0] is index:
                del self._open[name]
                self._left.append(index)
        return True

    def _host(self, name: str) -> str:
        found = self.describe(name)
        if found is None or found.host is None:
            raise CollectionNotFoundError("it was dropped")
        # Pinecone Local leaves the scheme out
        return found.host if "://" in found.host else f"{self._config.scheme}://{found.host}"


def wait(done: Callable[[], bool], timeout_s: float, longest_pause_s: float, what: str) -> None:
    """Ask again and again whether something is done, with growing pauses.

    Raises:
        NotYetError: It is not done in time.
    """
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while not done():
        if time.monotonic() + pause > deadline:
            raise NotYetError(f"{what}, after {timeout_s:g} s")
        time.sleep(pause)
        pause = min(2 * pause, longest_pause_s)
