"""A standalone Milvus server of the package `milvus`, which holds the real one in full."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milvus import MilvusServerConfig, _initialize_data_files

from tests.servers.process import ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTINGS: Final[dict[str, str]] = {
    # a strongly consistent read waits for the next tick, 200 ms by default
    "PROXY_TIMETICKINTERVAL": "20",
    # how often it looks whether a new collection is loaded by now; else that takes a second or two
    "QUERYCOORD_CHECKINTERVAL": "50",
    "QUERYCOORD_DISTPULLINTERVAL": "50",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "50",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "50",
    "QUERYCOORD_LEADERVIEWUPDATEINTERVAL": "0.05",
}
"""Any key of milvus.yaml can be set like this: https://milvus.io/docs/v2.3.x/configure-docker.md."""


ROOT_USER: Final = "root:Milvus"
"""User and password of a new server with authentication."""


@contextmanager
def start_milvus(
    data: Path,
    log: Path,
    *,
    authorization: bool = False,
    port: int | None = None,
    grace_s: float = 1.0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a standalone server on free ports and yield its URL, `milvus://127.0.0.1:PORT`.

    Args:
        data: Directory of the database; made if it is missing.
        log: File that gets what the server prints.
        authorization: Whether it wants a user and a password: at first root and Milvus.
        port: Its port; None for a free one.
        grace_s: Time between SIGTERM and SIGKILL at the end; 0 is a crash.
        settings: Further keys of milvus.yaml, besides `SETTINGS`.

    Raises:
        ServerStartError: It did not get ready.
    """
    port = port or free_port()
    program = _program()
    config = MilvusServerConfig(data_dir=str(data), authorization_enabled=authorization)
    config.set("authorization_enabled", authorization)
    # left to itself it takes the next ones from 53100 on, and so would a server that starts beside it
    for name in [name for name in config.configurable_items if name.endswith("_port")]:
        config.set(name, free_port())
    config.set("system_log_path", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it tries ports and leaves the sockets to chance
        config.resolve()
    health = free_port()
    environment = {
        **SETTINGS,
        **(settings or {}),
        "MILVUSCONF": str(data / "configs"),
        "ETCD_CONFIG_PATH": str(_etcd(data)),
        "LOG_LEVEL": "warn",
        "PROXY_PORT": str(port),
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(health),
        "LD_LIBRARY_PATH": str(program.parent),
    }
    # no clean stop: on SIGTERM alone it may linger for minutes, and so `MilvusServer.stop` kills it after 1 s
    with ServerProcess(
        [str(program), "run", "standalone"],
        env=environment,
        ready=lambda: _healthy(health),
        timeout_s=240,
        log=log,
        grace_s=grace_s,
    ):
        yield f"milvus://127.0.0.1:{port}"


def _program() -> Path:
    """Return the server's program, unpacked once for all runs: 250 MB, and half of the time to start."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyvec"
    home = cache / f"milvus-{importlib.metadata.version('milvus')}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        _initialize_data_files(str(fresh))
        try:
            fresh.rename(home)
        except OSError:  # another run was faster
            shutil.rmtree(fresh)
    return home / "bin" / "milvus"


def _etcd(data: Path) -> Path:
    """Write where the etcd inside keeps its data and listens; it would always take 2379 and 2380."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    file = data / "configs" / "etcd.yaml"
    file.write_text(
        f"data-dir: {data / 'etcd'}\n"
        f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n"
    )
    return file


def _healthy(port: int) -> bool:
    """Return whether every part of the server says that it is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return b"OK" in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
