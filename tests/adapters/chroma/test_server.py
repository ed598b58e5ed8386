"""What is special to Chroma over HTTP: a real server, and none."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    PolyvecError,
    RateLimitedError,
)
from polyvec.filters import F
from polyvec.types import RecordBatch
from tests.adapters.chroma.conftest import open_chroma
from tests.servers.process import free_port

pytestmark = pytest.mark.server


@contextmanager
def answering(
    status: int, body: str = "no", headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run a server that answers everything with one status; give its URL and the headers that it was sent."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"chroma://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestNoServer:
    """Errors come as promised, and in time."""

    def test_nobody_listens(self) -> None:
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError) as caught:
            open_chroma(f"chroma://127.0.0.1:{free_port()}", timeout_s=3)
        assert time.monotonic() - started < 3
        assert str(caught.value).startswith("chroma: connect: ConnectError")

    def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            started = time.monotonic()
            with pytest.raises(BackendTimeoutError):
                open_chroma(f"chroma://127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.5)
            assert 0.4 < time.monotonic() - started < 3

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, AuthenticationError),
            (403, AuthenticationError),
            (429, RateLimitedError),
            (502, BackendUnavailableError),
            (503, BackendUnavailableError),
            (504, BackendTimeoutError),
        ],
    )
    def test_what_a_proxy_answers(self, status: int, error: type[PolyvecError]) -> None:
        with answering(status, "the proxy says no", {"Retry-After": "9999"}) as (url, _):
            with pytest.raises(error, match="the proxy says no") as caught:
                open_chroma(url, api_key="secret", timeout_s=1)
            assert "secret" not in str(caught.value)
            assert type(caught.value) is error

    def test_how_long_to_wait_is_handed_on(self) -> None:
        with answering(429, headers={"Retry-After": "9999"}) as (url, seen):
            with pytest.raises(RateLimitedError) as caught:
                open_chroma(url)
            assert caught.value.retry_after_s == 9999
            assert len(seen) == 1

    def test_the_servers_own_words(self) -> None:
        for name, error in (("AuthError", AuthenticationError), ("RateLimitError", RateLimitedError)):
            body = json.dumps({"error": name, "message": "no"})
            with answering(400, body) as (url, _), pytest.raises(error):
                open_chroma(url, timeout_s=0.5)

    def test_something_that_is_no_chroma(self) -> None:
        with answering(200, "<html>") as (url, _), pytest.raises(BackendError):
            open_chroma(url)

    def test_the_key_is_sent(self) -> None:
        with answering(401) as (url, seen):
            for options in ({"api_key": "KEY"}, {"user": "me", "password": "pw"}):
                with pytest.raises(AuthenticationError):
                    open_chroma(url, **options)
        assert seen[0]["x-chroma-token"] == "KEY"
        assert "authorization" not in seen[0]
        assert seen[1]["authorization"] == "Basic bWU6cHc="


@pytest.mark.server
class TestServer:
    """A server of the installed chromadb."""

    def test_ranges_are_exact_at_every_boundary(self, server_url: str) -> None:
        """A server changes the last digit of floats that it reads; what is compared must not change."""
        choose = np.random.default_rng(1)
        numbers = (choose.uniform(-1e3, 1e3, 300) * 10.0 ** choose.integers(-300, 300, 300)).tolist()
        with open_chroma(server_url) as store:
            collection = store.create_collection("boundaries", 1, "dot")
            ids = [str(number) for number in range(len(numbers))]
            rows = np.ones((len(ids), 1), np.float32)
            collection.upsert(RecordBatch(ids, rows, None, [{"x": number} for number in numbers]))
            ranked = sorted(numbers)
            for number in numbers[:60]:
                below = ranked.index(number)
                assert collection.count(F("x") < number) == below
                assert collection.count(F("x") <= number) == below + 1
                assert collection.count(F("x") >= number) == len(numbers) - below
            store.drop_collection("boundaries")

    def test_more_collections_than_a_page(self, server_url: str) -> None:
        with open_chroma(server_url) as store:
            names = [f"many-{number:03}" for number in range(120)]
            for name in names:
                store.create_collection(name, 2)
            assert [name for name in store.list_collections() if name.startswith("many-")] == names
            for name in names:
                store.drop_collection(name)

    def test_a_body_of_hostile_text_fits(self, server_url: str) -> None:
        """Control characters grow sevenfold on the wire, which batches are cut small enough for."""
        with open_chroma(server_url) as store:
            collection = store.create_collection("hostile", 2, "dot")
            text = "\x01" * 100_000
            records = RecordBatch(
                [str(number) for number in range(60)],
                np.ones((60, 2), np.float32),
                [text] * 60,
                [{"k": text} for _ in range(60)],
            )
            assert collection.upsert(records).written == 60
            [got] = collection.get(["59"])
            assert got is not None
            assert got.text == got.metadata["k"] == text
            store.drop_collection("hostile")

    def test_a_missing_database_is_a_wrong_configuration(self, server_url: str) -> None:
        with pytest.raises(ConfigurationError, match="there is no database 'nope'"):
            open_chroma(server_url, database="nope")

    def test_a_timeout_holds_for_every_call(self, server_url: str) -> None:
        with open_chroma(server_url, timeout_s=7) as store:
            sessions = store.native._sessions
            assert len(sessions) == 2
            assert {session.timeout.read for session in sessions} == {7}
        assert all(session.is_closed for session in sessions)


def test_the_environment_does_not_choose_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CHROMA_SERVER_HOST=elsewhere\n")
    monkeypatch.setenv("CHROMA_SERVER_HOST", "elsewhere")
    with answering(401) as (url, seen):
        with pytest.raises(AuthenticationError):
            open_chroma(url)
        assert seen[0]["host"].startswith("127.0.0.1:")
