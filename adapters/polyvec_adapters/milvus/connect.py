"""How Milvus is reached: gRPC requests of the driver's own protocol, each within the timeout.

The requests are the driver's generated ones, not those of its `MilvusClient`, which repeats what fails until
the timeout is over, prints a traceback of each error besides raising it, and makes a dict of each row.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2_grpc

from polyvec.config import Host
from polyvec.errors import BackendUnavailableError, MissingDriverError
from polyvec_adapters.milvus import MilvusConfig

_OPTIONS: Final[Mapping[str, int]] = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # a server that was started again is found soon; by default up to two minutes later
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
}
"""Options of a channel; messages without a limit and keepalive as in the driver."""


class Connection:
    """A channel to a server."""

    def __init__(self, config: MilvusConfig, *, port: int, encrypted: bool) -> None:
        """Make a channel; nothing is sent yet.

        Args:
            config: Where the server is, and who asks.
            port: Its port where the URL has none.
            encrypted: Whether to use TLS.
        """
        host = config.host or Host("127.0.0.1", None)
        name = f"[{host.name}]" if ":" in host.name else host.name
        address = f"{name}:{host.port or port}"
        self._config = config
        self._uri = f"{'https' if encrypted else 'http'}://{address}"
        self._metadata = [("dbname", config.database_name)]
        if config.token is not None:
            self._metadata.append(("authorization", base64.b64encode(config.token.encode()).decode()))
        options = list(_OPTIONS.items())
        self._channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
            if encrypted
            else grpc.insecure_channel(address, options)
        )
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        self._client: MilvusClient | None = None
        self._guard = threading.Lock()

    def call(self, method: str, request: Any) -> Any:  # messages of the protocol
        """Return the server's answer to a request.

        Raises:
            MilvusException: The server refuses it.
            grpc.RpcError: It does not answer, or not in time.
        """
        answer = getattr(self._stub, method)(request, timeout=self._config.timeout_s, metadata=self._metadata)
        status = answer if isinstance(answer, common_pb2.Status) else answer.status
        if code := status.code or status.error_code:
            raise MilvusException(code, status.reason)
        return answer

    @property
    def client(self) -> MilvusClient:
        """The driver's own client, connected like this; made when it is first asked for."""
        with self._guard:
            if self._client is None:
                self._client = MilvusClient(
                    self._uri,
                    token=self._config.token or "",
                    db_name=self._config.database_name,
                    timeout=self._config.timeout_s,
                    dedicated=True,
                )
            return self._client

    def close(self) -> None:
        """Close the channel, and the client's if there is one."""
        if self._client is not None:
            self._client.close()
        self._channel.close()


class LiteConnection(Connection):
    """A channel to Milvus Lite, which runs in this process and takes one request at a time.

    Its writes are not safe for threads (https://github.com/milvus-io/milvus-lite, README, 3.2), and only one
    process may have a directory open; the stores of a process share it.
    """

    _users: Final[dict[str, int]] = {}
    _locks: Final[dict[str, threading.RLock]] = {}
    _opening: Final = threading.Lock()

    def __init__(self, config: MilvusConfig) -> None:
        try:
            from milvus_lite.server_manager import server_manager_instance as engines
        except ImportError as error:
            raise MissingDriverError('run: pip install "polyvec[milvus]"') from error
        self._path = str(Path(config.url.path).resolve())
        self._engines = engines
        with self._opening:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            uri = engines.start_and_get_uri(self._path)
            if uri is None:  # it logs the reason
                raise BackendUnavailableError(
                    f"{config.url.path} cannot be opened: another process has it, or it is not of Milvus Lite"
                )
            self._users[self._path] = self._users.get(self._path, 0) + 1
            self._lock = self._locks.setdefault(self._path, threading.RLock())
        super().__init__(config, port=int(uri.rpartition(":")[2]), encrypted=False)

    def call(self, method: str, request: Any) -> Any:  # messages of the protocol
        """Return the engine's answer to a request; see `Connection.call`."""
        with self._lock:
            return super().call(method, request)

    def close(self) -> None:
        """Close the channel, and the engine once its last user is gone."""
        super().close()
        with self._opening, self._lock:
            self._users[self._path] -= 1
            if not self._users[self._path]:
                self._engines.release_server(self._path)
