"""Stand-ins for the nodes of a cluster, which say and record what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    method: str
    path: str
    body: bytes
    key: str | None


class Node:
    """One node.

    Attributes:
        state: Of the raft protocol: 1 leads, 4 follows.
        version: Of the server.
        status: Of every answer but to `/debug`.
        body: Likewise; a function is asked for the body of each.
        debug_status: Of the answer to `/debug`.
        requests: What it was asked, without `/debug`.
        debugged: How often it was asked that.
    """

    def __init__(self, state: int = 1) -> None:
        self.state = state
        self.version = "0.24.1"
        self.status = 200
        self.body: Any = {}
        self.debug_status = 200
        self.requests: list[Request] = []
        self.debugged = 0
        node = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.endswith("/debug"):
                    node.debugged += 1
                    self._send(
                        node.debug_status, {"state": node.state, "version": node.version, "message": "no"}
                    )
                    return
                key = self.headers.get("X-TYPESENSE-API-KEY")
                request = Request(self.command, self.path, content, key)
                node.requests.append(request)
                self._send(node.status, node.body(request) if callable(node.body) else node.body)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # names of the standard library

            def _send(self, status: int, body: Any) -> None:
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def stop(self) -> None:
        """End it; again does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@contextmanager
def running(*states: int) -> Iterator[list[Node]]:
    """Run a node for each state."""
    nodes = [Node(state) for state in states]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def url_of(*nodes: Node) -> str:
    """Return the URL of a cluster."""
    return f"typesense://:secret-key@{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"
