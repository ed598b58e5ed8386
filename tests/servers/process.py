"""Native servers started by the tests, which never outlive them.

Each server runs under a watchdog: this file as a script, in a process of its own, which holds the
reading end of a pipe. The writing end is held by the process that wants the server. When that end
closes, because the server is no longer wanted or because its owner died, even by SIGKILL, the
watchdog ends the server's whole process group. That depends on no thread, unlike a parent-death
signal, which comes when the starting *thread* ends.

Standard library only, since the watchdog runs without site-packages. POSIX only.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_POLL_S = 0.02
_MARGIN_S = 5.0
_TAIL_LINES = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ServerStartError(RuntimeError):
    """The server died, or was not ready in time; the message ends with the tail of its log."""


class ServerProcess:
    """One server process, ready inside the `with` block and gone with all its children after it."""

    def __init__(
        self,
        command: list[str],
        *,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool],
        timeout_s: float,
        log: Path,
        grace_s: float = 5.0,
    ) -> None:
        """Describe the server; `with` starts it.

        Args:
            command: The program and its arguments. It must stay in the foreground, and should
                listen on loopback only.
            env: Variables for the server besides those of this process.
            ready: Whether the server answers; asked again and again, so it must not block long.
            timeout_s: Longest wait for `ready`.
            log: File that gets what the server prints; overwritten.
            grace_s: Time between SIGTERM and SIGKILL at the end.
        """
        self._command = command
        self._env = {**os.environ, **(env or {})}
        self._ready = ready
        self._timeout_s = timeout_s
        self._log = log
        self._grace_s = grace_s
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it is ready.

        Raises:
            ServerStartError: It died, or was not ready within `timeout_s`; nothing is left of it.
        """
        watchdog = self._start()
        try:
            self._wait_until_ready(watchdog)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the server."""
        self.stop()

    @property
    def watchdog_pid(self) -> int | None:
        """The process id of the watchdog while the server is wanted."""
        return self._watchdog.pid if self._watchdog else None

    def stop(self) -> None:
        """End the server's process group and wait until it is gone; again does nothing."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is None:
            return
        atexit.unregister(self.stop)
        try:
            # the byte counts even where a forked child still holds a copy of the pipe
            watchdog.communicate(b"\n", timeout=self._grace_s + _MARGIN_S)
        except subprocess.TimeoutExpired:
            watchdog.kill()
            watchdog.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-I", "-S", __file__, str(self._grace_s), *self._command]
        with self._log.open("wb") as log:
            self._watchdog = subprocess.Popen(
                guard,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)
        return self._watchdog

    def _wait_until_ready(self, watchdog: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            status = watchdog.poll()
            if status is not None:
                raise self._error(f"ended with status {status} before it was ready")
            if self._ready():
                return
            if time.monotonic() >= deadline:
                raise self._error(f"was not ready within {self._timeout_s:g} s")
            time.sleep(_POLL_S)

    def _error(self, what: str) -> ServerStartError:
        lines = self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return ServerStartError("\n".join([f"{self._command[0]} {what}; {self._log}:", *lines]))


def free_port() -> int:
    """Return a loopback port that nothing listens on; another process may still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def http_ok(port: int, path: str) -> bool:
    """Return whether GET `path` on this loopback port answers with 200 within a second."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _watch(grace_s: float, command: list[str]) -> int:
    """Run `command` until it ends or is unwanted; return its exit status as a shell does."""
    before = _die_with_parent() if sys.platform == "linux" else None
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=before,  # noqa: PLW1509 - there is no other thread yet
    )
    threading.Thread(target=_end_when_unwanted, args=(server.pid, grace_s), daemon=True).start()
    status = server.wait()
    _signal_group(server.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _end_when_unwanted(group: int, grace_s: float) -> None:
    os.read(sys.stdin.fileno(), 1)  # returns on a byte, and when the pipe closes
    _signal_group(group, signal.SIGTERM)
    time.sleep(grace_s)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    # macOS refuses to signal a group of zombies
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent() -> Callable[[], None]:
    """Return what the server does first, so that it falls with a watchdog that is killed itself."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    os._exit(_watch(float(sys.argv[1]), sys.argv[2:]))
