"""A Chroma server of the installed `chromadb`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers.process import ServerProcess, free_port, http_ok

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def start_chroma(data: Path, log: Path) -> Iterator[str]:
    """Run `chroma run` on a free loopback port and yield its URL, `chroma://127.0.0.1:PORT`.

    Args:
        data: Directory of the database; made if it is missing.
        log: File that gets what the server prints.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = free_port()
    program = Path(sys.executable).parent / "chroma"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with ServerProcess(
        [str(program), "run", "--path", str(data), *address],
        ready=lambda: http_ok(port, "/api/v2/heartbeat"),
        timeout_s=60,
        log=log,
    ):
        yield f"chroma://127.0.0.1:{port}"
