"""A server that speaks OpenAI's embedding protocol, checks its limits, and misbehaves when it is told to."""

from __future__ import annotations

import base64
import email
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from polyvec import tokenizer

KEY = "sk-secret-of-the-test"


@dataclass
class Reply:
    """What to answer instead of vectors: a status with an error's code, or something about the vectors.

    `drop` closes the connection without an answer, `half` in the middle of one; `slow` sends a byte now and
    then, and never the last.
    """

    status: int = 200
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], object] | None = None
    drop: bool = False
    half: bool = False
    slow: bool = False
    garbage: bool = False


@dataclass
class FakeOpenAI:
    """The state of a server.

    Attributes:
        url: What to give as `base_url`.
        replies: What to answer next, in this order; then vectors.
        max_request_tokens: A larger request is refused, as OpenAI does.
        refuse_tokens: Refuse inputs of tokens, as many compatible servers do.
        refused_text: Refuse a request with this text, with 400.
        ignore_base64: Answer with numbers, whatever was asked for.
        max_item_tokens: A longer input is refused, as OpenAI does.
        wrong_text: Whatever request has this text gets NaN.
        refuse_all: Refuse everything, with 400.
        bucket: The tokens that may be used altogether; None is no limit. What is left is in the headers.
        refill_s: The headers say that the bucket is full again in so long; it then is.
        together: No request is answered before so many have come.
        lose_batch_answer: Begin the next batch, but close the connection instead of saying so.
        files: Uploaded files and results of batches.
        batches: All batches; see `end_batches`.
        requests: The bodies of all requests.
        most_at_once: Most requests under way at the same time.
    """

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    max_request_tokens: int = 300_000
    refuse_tokens: bool = False
    refused_text: str | None = None
    ignore_base64: bool = False
    max_item_tokens: int = 8191
    wrong_text: str | None = None
    refuse_all: bool = False
    bucket: int | None = None
    refill_s: float = 0.2
    together: int = 0
    lose_batch_answer: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    refusals: int = 0
    left: float = 0.0
    refilled: float = 0.0
    most_at_once: int = 0
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0
    gathered: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def end_batches(self, status: str = "completed", refused: str | None = None) -> None:
        """End all batches, with the results in another order than the requests; `refused`: but for a text."""
        for batch in self.batches.values():
            if batch["status"] != "in_progress":
                continue
            batch["status"] = status
            lines: dict[str, list[dict[str, Any]]] = {"output_file_id": [], "error_file_id": []}
            requests = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            for request in reversed(requests if status == "completed" else requests[::2]):
                content = request["body"]["input"]
                tokens = content if isinstance(content, list) else tokenizer.encode(content)
                result: dict[str, Any] = {"id": "r", "custom_id": request["custom_id"], "error": None}
                if refused is not None and tokenizer.encode(refused) == tokens:
                    error = {"message": "this text is refused", "code": None}
                    result["response"] = {"status_code": 400, "body": {"error": error}}
                    lines["error_file_id"].append(result)
                    continue
                made = vector_of(tokens, request["body"].get("dimensions", 1536)).astype("<f4").tobytes()
                data = [{"object": "embedding", "index": 0, "embedding": base64.b64encode(made).decode()}]
                result["response"] = {"status_code": 200, "body": {"data": data, "usage": {}}}
                lines["output_file_id"].append(result)
            for name, results in lines.items():
                if results:
                    batch[name] = f"file-{len(self.files)}"
                    self.files[batch[name]] = "\n".join(map(json.dumps, results)).encode()


def vector_of(tokens: list[int], dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the vector that the server has for a text: one of its own for every text, of length 1."""
    made = np.random.default_rng(tokens).standard_normal(dimensions)
    return (made / np.linalg.norm(made)).astype(np.float32)


def handler(state: FakeOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/v1/files/"):
                self.send(200, state.files[self.path.split("/")[3]], {})
            elif self.path.startswith("/v1/batches?"):
                newest = list(reversed(state.batches.values()))
                self.send(200, json.dumps({"object": "list", "data": newest, "has_more": False}).encode(), {})
            else:
                self.send(200, json.dumps(state.batches[self.path.split("/")[3]]).encode(), {})

        def new_file(self, raw: bytes) -> None:
            head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
            parts = email.message_from_bytes(head + raw).get_payload()
            [content] = [part for part in parts if part.get_filename()]  # type: ignore[union-attr]
            name = f"file-{len(state.files)}"
            data = content.get_payload(decode=True)  # type: ignore[union-attr]
            assert isinstance(data, bytes)
            state.files[name] = data
            made = {"id": name, "object": "file", "bytes": len(data), "created_at": 0, "filename": "x"}
            self.send(200, json.dumps(made | {"purpose": "batch", "status": "processed"}).encode(), {})

        def new_batch(self, body: dict[str, Any]) -> None:
            name = f"batch-{len(state.batches)}"
            state.batches[name] = body | {
                "id": name,
                "object": "batch",
                "created_at": int(time.time()),
                "status": "in_progress",
                "request_counts": {"completed": 1, "failed": 0, "total": 3},
            }
            if state.lose_batch_answer:
                state.lose_batch_answer = False
                self.close_connection = True
                self.connection.close()
                return
            self.send(200, json.dumps(state.batches[name]).encode(), {})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            if self.path in ("/v1/files", "/v1/batches") and state.replies:
                reply = state.replies.pop(0)
                self.error(reply.status, "scripted", reply.code, reply.headers)
                return
            if self.path == "/v1/files":
                self.new_file(raw)
                return
            body = json.loads(raw)
            if self.path == "/v1/batches":
                self.new_batch(body)
                return
            with state.lock:
                state.requests.append(body)
                state.paths.append(self.path)
                state.under_way += 1
                state.most_at_once = max(state.most_at_once, state.under_way)
                reply = state.replies.pop(0) if state.replies else Reply()
                if state.under_way >= state.together:
                    state.gathered.set()
            state.gathered.wait(10)
            try:
                self.answer(body, reply)
            finally:
                with state.lock:
                    state.under_way -= 1

        def answer(self, body: dict[str, Any], reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                self.connection.close()
                return
            if reply.garbage:
                self.send(200, b"<html>not JSON", reply.headers)
                return
            if reply.status != 200:
                self.error(reply.status, f"scripted; the key was {KEY}", reply.code, reply.headers)
                return
            azure = re.fullmatch(r"/openai/deployments/[^/]+/embeddings\?api-version=[\d-]+", self.path)
            key = self.headers["api-key"] if azure else self.headers["authorization"].removeprefix("Bearer ")
            if (self.path != "/v1/embeddings" and not azure) or key != KEY:
                self.error(401, "Incorrect API key provided", "invalid_api_key")
                return
            inputs = [item if isinstance(item, list) else tokenizer.encode(item) for item in body["input"]]
            if state.refuse_tokens and any(isinstance(item, list) for item in body["input"]):
                self.error(400, "input must be strings", None)
                return
            if state.refused_text is not None and tokenizer.encode(state.refused_text) in inputs:
                self.error(400, "this text is refused", "invalid_request")
                return
            if state.refuse_all:
                self.error(400, "no", "invalid_request")
                return
            total = sum(map(len, inputs))
            if not 1 <= len(inputs) <= 2048 or not all(1 <= len(item) <= 8191 for item in inputs):
                state.problems.append("inputs out of bounds")
            if max(map(len, inputs)) > state.max_item_tokens:
                self.error(400, "Invalid 'input[0]': maximum input length is so and so", None)
                return
            if total > state.max_request_tokens:
                self.error(400, f"Requested {total} tokens", "max_tokens_per_request")
                return
            limits = self.spend(total)
            if limits is None:
                return
            dimensions = body.get("dimensions", 1536)
            as_text = body.get("encoding_format") == "base64" and not state.ignore_base64
            data = []
            for index, item in enumerate(inputs):
                made = vector_of(item, dimensions)
                if state.wrong_text is not None and tokenizer.encode(state.wrong_text) == item:
                    made[0] = np.nan
                shown = base64.b64encode(made.astype("<f4").tobytes()).decode() if as_text else made.tolist()
                data.append({"object": "embedding", "index": index, "embedding": shown})
            usage = {"prompt_tokens": total, "total_tokens": total}
            answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
            if reply.change is not None:
                reply.change(answer)
            whole = json.dumps(answer).encode()
            if reply.half or reply.slow:
                self.begin(200, len(whole), reply.headers)
                self.wfile.write(whole[: len(whole) // 2])
                for byte in whole[len(whole) // 2 : -1] if reply.slow else b"":
                    if state.stopped.wait(0.02):
                        break
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                self.close_connection = True
                return
            self.send(200, whole, limits | reply.headers)

        def spend(self, tokens: int) -> dict[str, str] | None:
            """Return the headers about rate limits; None if the request was refused because of them."""
            if state.bucket is None:
                return {}
            with state.lock:
                now = time.monotonic()
                per_s = state.bucket / state.refill_s
                state.left = min(state.bucket, state.left + per_s * (now - state.refilled))
                state.refilled = now
                enough = tokens <= state.left
                state.left -= tokens if enough else 0
                state.refusals += not enough
                reset_ms = math.ceil((state.bucket - int(state.left)) / per_s * 1000)
                headers = {
                    "x-ratelimit-limit-tokens": str(state.bucket),
                    "x-ratelimit-remaining-tokens": str(int(state.left)),
                    "x-ratelimit-reset-tokens": f"{reset_ms}ms",
                }
            if not enough:
                self.error(429, "Rate limit reached", "rate_limit_exceeded", headers)
                return None
            return headers

        def error(
            self, status: int, message: str, code: str | None, headers: dict[str, str] | None = None
        ) -> None:
            body = {"error": {"message": message, "type": code, "param": None, "code": code}}
            self.send(status, json.dumps(body).encode(), headers or {})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.begin(status, len(body), headers)
            self.wfile.write(body)

        def begin(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that does not wait for the end of an answer is what a test wants."""


@contextmanager
def serve() -> Iterator[FakeOpenAI]:
    """Run a server as long as the context lasts."""
    state = FakeOpenAI()
    with Server(("127.0.0.1", 0), handler(state)) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.stopped.set()
            server.shutdown()
            thread.join()
    assert state.problems == []
