"""The emulator as a process of its own."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.servers.process import ServerProcess, free_port

KEY: Final = "polyvec-test-key"
ROOT: Final = Path(__file__).parents[3]


@contextmanager
def start_pinecone(
    log: Path,
    *,
    data: Path | None = None,
    port: int | None = None,
    grace_s: float = 5.0,
    settings: tuple[str, ...] = (),
) -> Iterator[str]:
    """Run the emulator on a free loopback port and yield its URL, `pinecone://:KEY@127.0.0.1:PORT`.

    Args:
        log: File that gets what it prints.
        data: Directory to keep everything in; None for memory.
        port: Its port; None for a free one.
        grace_s: Time between SIGTERM and SIGKILL at the end; 0 is a crash.
        settings: Further arguments of the program.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "tests.servers.pinecone.server", f"--port={port}", f"--key={KEY}"]
    command += [] if data is None else [f"--data={data}"]
    with ServerProcess(
        [*command, *settings],
        env={"PYTHONPATH": str(ROOT)},
        ready=lambda: _answers(port),
        timeout_s=30,
        log=log,
        grace_s=grace_s,
    ):
        yield f"pinecone://:{KEY}@127.0.0.1:{port}"


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/indexes")
        return connection.getresponse().status == http.HTTPStatus.UNAUTHORIZED
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
