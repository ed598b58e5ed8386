"""The emulator as a program; see README.md beside it.

Both planes are on one port: `/indexes` is the control plane, `/i/NAME-SERIAL` the address of an index.
`POST /_faults` with the fields of a `Fault` makes the next requests whose path ends so fail, before the
engine sees them.
"""

from __future__ import annotations

import argparse
import re
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from tests.servers.pinecone.engine import Answer, Engine, Index, check_upsert_size
from tests.servers.pinecone.rules import RefusedError, require

API_VERSION: Final = "2026-07"
MAX_LINE: Final = 8192
"""Longest request line, as of common proxies; the service says nothing about its own."""

# https://docs.pinecone.io/reference/api/database-limits#rate-limits, per namespace and second
RATES: Final = {"query": 100, "upsert": 100, "delete": 100, "update": 100}

# google.rpc.Code, as in rpcStatus of the data plane
_RPC_CODES: Final = {400: 3, 404: 5, 409: 6, 413: 3, 429: 8, 500: 13, 503: 14, 504: 4}
# ErrorResponse of the control plane
_CONTROL_CODES: Final = {
    400: "INVALID_ARGUMENT",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    422: "UNPROCESSABLE_ENTITY",
    500: "UNKNOWN",
}


@dataclass
class Fault:
    """What happens to the next requests of a kind."""

    path: str
    status: int = 500
    times: int = 1
    retry_after_s: float | None = None
    hang_s: float = 0.0
    message: str = "a fault that was asked for"


@dataclass
class Service:
    """What all connections share."""

    engine: Engine
    key: str
    rates: bool
    faults: list[Fault] = field(default_factory=list)
    counts: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    port: int = 0

    def fail_if_asked(self, path: str) -> None:
        """Fail the request if a test asked for that."""
        with self.engine.lock:
            fault = next((fault for fault in self.faults if path.endswith(fault.path)), None)
            if fault is None:
                return
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
        time.sleep(fault.hang_s)
        raise RefusedError(
            fault.status, fault.message, plain=fault.status == 429, retry_after_s=fault.retry_after_s
        )

    def count(self, operation: str, namespace: str) -> None:
        """Refuse a request beyond the rate of its namespace."""
        if not self.rates:
            return
        now = time.time()
        key = (operation, namespace, int(now))
        self.counts[key] += 1
        if self.counts[key] > RATES[operation]:
            raise RefusedError(
                429,
                f"too many {operation} requests for {namespace!r}: at most {RATES[operation]} a second",
                plain=True,
                retry_after_s=1.0,
            )

    def model(self, index: Index) -> dict[str, Any]:
        """Return the `IndexModel` of an index."""
        state = "Terminating" if index.terminating else "Initializing" if index.looks else "Ready"
        vector = {"type": "dense_vector", "dimension": index.dimension, "metric": index.metric}
        return {
            "name": index.name,
            "host": f"http://127.0.0.1:{self.port}/i/{index.name}-{index.serial}",
            "status": {"ready": state == "Ready", "state": state},
            "schema": {"fields": {"_values": vector}},
            "deployment": index.deployment,
            "deletion_protection": "enabled" if index.protected else "disabled",
            "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
            "tags": index.tags,
        }

    # Routes -------------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: Any) -> Answer:
        """Answer a request to the control plane."""
        name = unquote(path.removeprefix("/indexes").removeprefix("/"))
        engine = self.engine
        match method, bool(name):
            case "GET", False:
                return Answer({"indexes": [self.model(index) for index in engine.list_indexes()]})
            case "POST", False:
                return Answer(self.model(engine.create(body)), status=201)
            case "GET", True:
                return Answer(self.model(engine.describe(name)))
            case "DELETE", True:
                engine.drop(name)
                return Answer(b"", status=202)
        raise RefusedError(405, "not emulated")

    def data(self, method: str, host: str, path: str, body: Any, query: dict[str, list[str]]) -> Answer:
        """Answer a request to an index."""
        engine = self.engine
        index = engine.at(host)
        namespace = body.get("namespace", "") if isinstance(body, dict) else query.get("namespace", [""])[0]
        operation = path.removeprefix("/vectors/").removeprefix("/")
        if operation in RATES:
            self.count(operation, namespace)
        match method, path:
            case "POST", "/vectors/upsert" | "/vectors/update" | "/vectors/delete":
                return engine.write(operation, index, body)
            case "POST", "/query":
                return engine.query(index, body)
            case "POST", "/vectors/fetch_by_metadata":
                return engine.fetch_by_metadata(index, body)
            case "POST", "/describe_index_stats":
                return engine.stats(index, body)
            case "GET", "/vectors/fetch":
                return engine.fetch(index, query.get("ids", []), namespace)
            case "GET", "/vectors/list":
                limit, prefix, token = (
                    query.get(name, [""])[0] for name in ("limit", "prefix", "paginationToken")
                )
                require(not limit or limit.isdecimal(), "limit must be a number")
                return engine.list_ids(index, namespace, prefix, int(limit or 100), token)
        raise RefusedError(404, f"{method} {path} is not emulated")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    service: Service

    def setup(self) -> None:
        """Send small answers at once."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        control = url.path.startswith("/indexes")
        try:
            answer = self._route(
                url.path, content, parse_qs(url.query, keep_blank_values=True), control=control
            )
        except RefusedError as error:
            self._refuse(error, control=control)
        else:
            self._send(answer)

    do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815  # names of the standard library

    def _route(self, path: str, content: bytes, query: dict[str, list[str]], *, control: bool) -> Answer:
        service = self.service
        if path == "/_faults":
            service.faults.append(Fault(**orjson.loads(content)))
            return Answer({})
        if self.headers.get("Api-Key") != service.key:
            raise RefusedError(401, "Unauthorized", plain=True)
        version = self.headers.get("X-Pinecone-Api-Version")
        require(version == API_VERSION, f"X-Pinecone-Api-Version must be {API_VERSION}, not {version}")
        require(len(self.requestline) <= MAX_LINE, "the request line is too long", 414)
        service.fail_if_asked(path)
        if path.endswith("/vectors/upsert"):
            check_upsert_size(len(content))
        body = None
        if self.command in ("POST", "PATCH"):
            require(self.headers.get("Content-Type") == "application/json", "the body must be JSON", 415)
            try:
                body = orjson.loads(content)
            except orjson.JSONDecodeError as error:
                raise RefusedError(400, f"the body is no JSON: {error}") from None
        with service.engine.lock:
            if control:
                return service.control(self.command, path, body)
            found = re.fullmatch(r"/i/([^/]+)(/.*)", path)
            require(found, "no such place", 404)
            assert found is not None
            return service.data(self.command, found[1], found[2], body, query)

    def _refuse(self, error: RefusedError, *, control: bool) -> None:
        body: Any
        if error.plain:
            body = error.message.encode()
        elif control:
            code = _CONTROL_CODES.get(error.status, "UNKNOWN")
            body = {"error": {"code": code, "message": error.message}, "status": error.status}
        else:
            body = {"code": _RPC_CODES.get(error.status, 2), "message": error.message, "details": []}
        headers = {} if error.retry_after_s is None else {"Retry-After": f"{error.retry_after_s:g}"}
        self._send(Answer(body, status=error.status), headers)

    def _send(self, answer: Answer, headers: dict[str, str] | None = None) -> None:
        text = answer.body if isinstance(answer.body, bytes) else orjson.dumps(answer.body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, lsn in (
            ("x-pinecone-request-lsn", answer.written_lsn),
            ("x-pinecone-max-indexed-lsn", answer.indexed_lsn),
        ):
            if lsn is not None:
                self.send_header(name, str(lsn))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The emulator in this process, for its own tests; `main` makes a process of it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        key: str,
        *,
        port: int = 0,
        data: Path | None = None,
        lag: int = 2,
        rates: bool = False,
        missing_matches: bool = False,
        unknown_missing: bool = False,
    ) -> None:
        engine = Engine(data, lag=lag, missing_matches=missing_matches, unknown_missing=unknown_missing)
        self.service = Service(engine, key, rates)
        super().__init__(("127.0.0.1", port), type("BoundHandler", (Handler,), {"service": self.service}))
        self.service.port = self.server_port

    def __enter__(self) -> Server:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.service.engine.close()


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.pinecone.server")
    parser.add_argument("--port", type=int, default=5080)
    parser.add_argument("--key", default="polyvec-test-key", help="the only API key that is accepted")
    parser.add_argument("--data", type=Path, help="directory to keep everything in; else memory")
    parser.add_argument("--lag", type=int, default=2, help="reads of a namespace that miss its last write")
    parser.add_argument("--rates", action="store_true", help="enforce the documented rate limits")
    parser.add_argument("--missing-matches", action="store_true", help="$ne and $nin match a missing field")
    parser.add_argument("--unknown-missing", action="store_true", help="404 for reads of unknown namespaces")
    options = parser.parse_args()
    server = Server(
        options.key,
        port=options.port,
        data=options.data,
        lag=options.lag,
        rates=options.rates,
        missing_matches=options.missing_matches,
        unknown_missing=options.unknown_missing,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
