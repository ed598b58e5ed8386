"""The machinery that starts native servers: each way of starting badly and of ending."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.servers.process import ServerProcess, ServerStartError, free_port, http_ok

ROOT = Path(__file__).resolve().parents[2]

# A server holds a lock for as long as it or a child of it lives. Unlike its process id, which a
# zombie keeps, the lock shows that it is gone.
SERVER = """
import fcntl, os, signal, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
{setup}
print("up", flush=True)
time.sleep(60)
"""
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
HAS_A_CHILD = "os.fork()"
LEAVES_A_CHILD = "os.fork() == 0 or sys.exit('the parent left')"

OWNER = """
import sys, time
from pathlib import Path
from tests.servers.process import ServerProcess
log = Path(sys.argv[1])
server = ServerProcess(
    sys.argv[2:], ready=lambda: "up" in log.read_text(), timeout_s=5, log=log, grace_s=0.1
)
server.__enter__()
print("owned", flush=True)
{then}
"""

FORKS_AND_STOPS = """
import os
owner = os.getpid()
if os.fork():
    server.stop()
else:
    while os.getppid() == owner:
        time.sleep(0.02)
os._exit(0)
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", code, *map(str, arguments)]


class Case:
    """A server with its lock and its log in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self.lock = directory / "lock"
        self.log = directory / "logs" / "server.log"

    def command(self, setup: str = "") -> list[str]:
        return python(SERVER.format(setup=setup), self.lock)

    def server(self, command: list[str], *, word: str = "up", timeout_s: float = 5.0) -> ServerProcess:
        return ServerProcess(
            command,
            ready=lambda: word in self.log.read_text(),
            timeout_s=timeout_s,
            log=self.log,
            grace_s=0.1,
        )

    def owner(self, then: str, setup: str = "") -> subprocess.Popen[bytes]:
        """Return another Python process, once it owns a server that is up."""
        command = python(OWNER.format(then=then), self.log, *self.command(setup))
        owner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert owner.stdout
        with owner.stdout as lines:
            assert lines.readline() == b"owned\n"
        return owner

    def alive(self) -> bool:
        with self.lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def gone(self, within_s: float = 3.0) -> bool:
        deadline = time.monotonic() + within_s
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_server_lives_as_long_as_its_block(case: Case) -> None:
    with case.server(case.command()):
        assert case.alive()
    assert not case.alive()


def test_stopping_again_does_nothing(case: Case) -> None:
    with case.server(case.command()) as server:
        server.stop()
        assert not case.alive()
        assert server.watchdog_pid is None


def test_the_same_server_starts_again(case: Case) -> None:
    server = case.server(case.command())
    for _ in range(2):
        with server:
            assert case.alive()
        assert not case.alive()


def test_an_error_in_the_block_ends_the_server(case: Case) -> None:
    with pytest.raises(ZeroDivisionError), case.server(case.command()):
        raise ZeroDivisionError
    assert not case.alive()


def test_the_environment_is_added_to_ours(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_TEST_OURS", "1")
    code = "import os; print(os.environ['POLYVEC_TEST_OURS'], os.environ['THEIRS'], flush=True)\n"
    server = ServerProcess(
        python(code + SERVER.format(setup=""), case.lock),
        env={"THEIRS": "2"},
        ready=lambda: "up" in case.log.read_text(),
        timeout_s=5,
        log=case.log,
    )
    with server:
        assert case.log.read_text().startswith("1 2\n")


def test_never_ready(case: Case) -> None:
    server = case.server(case.command(), word="never printed", timeout_s=0.5)
    with pytest.raises(ServerStartError, match=r"was not ready within 0\.5 s.*\nup$"), server:
        pytest.fail("entered")
    assert not case.alive()


def test_dies_at_once(case: Case) -> None:
    server = case.server(python("import sys; print('x' * 9); sys.exit('no such port')"))
    with pytest.raises(ServerStartError) as caught, server:
        pytest.fail("entered")
    message, *tail = str(caught.value).splitlines()
    assert message == f"{sys.executable} ended with status 1 before it was ready; {case.log}:"
    assert sorted(tail) == ["no such port", "x" * 9]


def test_a_signal_shows_in_the_status(case: Case) -> None:
    server = case.server(python("import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(ServerStartError, match="ended with status 137 before"), server:
        pytest.fail("entered")


def test_only_the_tail_of_a_long_log_is_shown(case: Case) -> None:
    server = case.server(python("for i in range(1000): print(f'line {i}')"))
    with pytest.raises(ServerStartError, match="ended with status 0") as caught, server:
        pytest.fail("entered")
    assert str(caught.value).splitlines()[1:] == [f"line {i}" for i in range(970, 1000)]


def test_no_such_program(case: Case) -> None:
    server = case.server(["/no/such/program"])
    with pytest.raises(ServerStartError, match=r"FileNotFoundError.*/no/such/program"), server:
        pytest.fail("entered")


def test_sigterm_ignored(case: Case) -> None:
    started = time.monotonic()
    with case.server(case.command(IGNORES_SIGTERM)):
        pass
    assert not case.alive()
    assert time.monotonic() - started < 3


def test_its_children_end_with_it(case: Case) -> None:
    with case.server(case.command(HAS_A_CHILD)):
        pass
    assert case.gone()


def test_a_child_left_behind_ends_too(case: Case) -> None:
    server = case.server(case.command(LEAVES_A_CHILD), word="never printed")
    with pytest.raises(ServerStartError, match="the parent left"), server:
        pytest.fail("entered")
    assert case.gone()


def test_the_thread_that_starts_it_may_end(case: Case) -> None:
    server = case.server(case.command())
    thread = threading.Thread(target=server.__enter__)
    thread.start()
    thread.join()
    try:
        assert not case.gone(within_s=0.2)
    finally:
        server.stop()
    assert not case.alive()


@pytest.mark.parametrize("setup", ["", IGNORES_SIGTERM, HAS_A_CHILD])
def test_a_killed_owner_leaves_nothing_behind(case: Case, setup: str) -> None:
    owner = case.owner("time.sleep(60)", setup)
    assert case.alive()
    owner.kill()
    assert owner.wait() == -signal.SIGKILL
    assert case.gone()


def test_an_owner_that_forgets_to_stop_it_leaves_nothing_behind(case: Case) -> None:
    assert case.owner("sys.exit(0)", IGNORES_SIGTERM).wait() == 0
    assert not case.alive()


def test_a_forked_child_of_the_owner_does_not_keep_it(case: Case) -> None:
    started = time.monotonic()
    assert case.owner(FORKS_AND_STOPS).wait() == 0
    assert not case.alive()
    assert time.monotonic() - started < 3


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_killed_watchdog_takes_the_server_along(case: Case) -> None:
    with case.server(case.command(IGNORES_SIGTERM)) as server:
        assert server.watchdog_pid
        os.kill(server.watchdog_pid, signal.SIGKILL)
        assert case.gone()


def test_a_free_port_can_be_used_and_answers_only_then(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("ok")
    port = free_port()
    assert not http_ok(port, "/health")
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with ServerProcess(
        [*command, "--directory", str(tmp_path)],
        ready=lambda: http_ok(port, "/health"),
        timeout_s=5,
        log=tmp_path / "log",
    ):
        assert not http_ok(port, "/missing")
    assert not http_ok(port, "/health")
