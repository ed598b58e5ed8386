"""Errors, and the choice of a node: stand-ins for servers answer."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

import polyvec
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
    RateLimitedError,
    UnsupportedOperationError,
)
from polyvec.filters import F
from polyvec.retry import RetryPolicy
from polyvec.spec import to_json
from polyvec.types import CollectionSpec, FlatIndex, HnswIndex, Record, WriteReport
from polyvec_adapters.typesense import connect
from polyvec_adapters.typesense.errors import ConflictError
from polyvec_adapters.typesense.store import TypesenseCollection, TypesenseStore
from tests.adapters.typesense.conftest import open_typesense
from tests.adapters.typesense.nodes import Node, Request, running, url_of
from tests.servers.process import free_port

SPEC = CollectionSpec("docs", 2)


def opened(*nodes: Node, **options: object) -> TypesenseStore:
    store = open_typesense(url_of(*nodes), **options)
    store.retry = RetryPolicy(attempts=1)
    return store


def handle(store: TypesenseStore, spec: CollectionSpec = SPEC) -> TypesenseCollection:
    """A handle; nothing is sent."""
    return TypesenseCollection(store, spec)


class TestErrors:
    """What the server says, as our errors."""

    @pytest.mark.parametrize(
        ("status", "message", "expected"),
        [
            (400, "Field `vec` must have 3 dimensions.", BackendError),
            (401, "Forbidden - a valid `x-typesense-api-key` header must be sent.", AuthenticationError),
            (403, "Forbidden", AuthenticationError),
            (404, "Not Found", CollectionNotFoundError),
            (404, "No collection with name `docs` found.", CollectionNotFoundError),
            (404, "something else", BackendError),
            (409, "A collection with name `docs` already exists.", CollectionExistsError),
            (409, "A document with id a already exists.", ConflictError),
            (422, "Rejected", BackendError),
            (429, "Rate limit exceeded or blocked", RateLimitedError),
            (500, "broken", BackendError),
            (503, "Not Ready or Lagging", BackendUnavailableError),
            (504, "proxy", BackendTimeoutError),
        ],
    )
    def test_statuses(self, status: int, message: str, expected: type[PolyvecError]) -> None:
        with running(1) as [node], opened(node) as store:
            node.status, node.body = status, {"message": message}
            with pytest.raises(expected) as caught:
                store.drop_collection("docs") if status == 409 else handle(store).get(["a"])
            assert type(caught.value) is expected
            assert f"{status}: {message}" in str(caught.value)
            assert "secret" not in str(caught.value)

    def test_a_proxy_that_speaks_no_json(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.status, node.body = 502, b"<html>bad gateway</html>"
            with pytest.raises(BackendUnavailableError, match="502: <html>bad gateway"):
                handle(store).count()
            node.status = 200
            with pytest.raises(BackendError, match="makes no sense"):
                handle(store).count()

    @pytest.mark.parametrize(
        ("code", "error", "expected"),
        [
            (404, "Not found.", CollectionNotFoundError),
            (400, "Could not parse the filter query.", BackendError),
            (503, "Not Ready or Lagging", BackendUnavailableError),
        ],
    )
    def test_an_error_inside_an_answer(self, code: int, error: str, expected: type[PolyvecError]) -> None:
        """The status of a multi-search is 200 whatever became of its searches."""
        with running(1) as [node], opened(node) as store:
            node.body = {"results": [{"code": code, "error": error}]}
            with pytest.raises(expected):
                handle(store).count()
            with pytest.raises(expected):
                handle(store).query([1, 2])

    def test_a_document_that_is_refused(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = b'{"success":true}\n{"success":false,"code":400,"error":"too odd","document":"{}"}'
            with pytest.raises(BackendError, match="too odd") as caught:
                handle(store).upsert([Record("a", [1, 2]), Record("b", [1, 2])])
            report = caught.value.report
            assert isinstance(report, WriteReport)
            assert (report.written, report.failed_ids) == (1, ["b"])
            assert len(node.requests) == 1

    def test_a_document_that_is_always_there_again(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = b'{"success":false,"code":409,"error":"A document with id a already exists."}'
            with pytest.raises(ConflictError):
                handle(store).upsert(Record("a", [1, 2]))
            assert [request.method for request in node.requests] == ["POST", "DELETE"] * 5
            assert all("action=create" in r.path for r in node.requests if r.method == "POST")

    @pytest.mark.parametrize(
        ("code", "error", "fails"),
        [(404, "Could not find a document with id: x", False), (400, "Bad JSON", True)],
    )
    def test_a_record_that_goes_while_it_is_changed(self, code: int, error: str, fails: bool) -> None:
        def answer(request: Request) -> bytes:
            if request.method == "GET":
                return b'{"key":"a","meta":"{}"}'
            return json.dumps({"success": False, "code": code, "error": error}).encode()

        with running(1) as [node], opened(node) as store:
            node.body = answer
            if fails:
                with pytest.raises(BackendError, match=error):
                    handle(store).update_metadata(["a"], set={"k": 1})
            else:
                handle(store).update_metadata(["a"], set={"k": 1})
            assert [request.method for request in node.requests] == ["GET", "GET", "POST"]

    def test_a_score_beyond_float32(self) -> None:
        with running(1) as [node], opened(node) as store:
            hit = {"document": {"key": "a", "meta": "{}"}, "vector_distance": None}
            node.body = {"results": [{"hits": [hit], "found": 1}]}
            with pytest.raises(BackendError, match="beyond float32"):
                handle(store, CollectionSpec("docs", 2, "dot")).query([1, 2], limit=1)

    def test_foreign_collections(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = {"name": "docs", "fields": [{"name": "title", "type": "string"}]}
            with pytest.raises(ForeignCollectionError):
                store.collection("docs")
            node.body = [node.body]
            assert store.list_collections() == []

    def test_nobody_listens(self) -> None:
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="cannot be reached"):
            open_typesense(f"typesense://:key1@127.0.0.1:{free_port()}", timeout_s=3)
        assert time.monotonic() - started < 3

    def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            started = time.monotonic()
            with pytest.raises(BackendTimeoutError):
                open_typesense(f"typesense://:key1@127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.5)
            assert 0.4 < time.monotonic() - started < 3

    def test_a_server_without_tls(self) -> None:
        with running(1) as [node], pytest.raises(BackendUnavailableError, match="tls=false"):
            open_typesense(url_of(node), tls=True, timeout_s=2)

    def test_a_wrong_key(self) -> None:
        with running(1) as [node]:
            node.debug_status = 401
            with pytest.raises(AuthenticationError, match="debug:list"):
                open_typesense(url_of(node))
            assert node.debugged == 1  # not tried again


class TestRequests:
    """What goes over the wire."""

    def test_the_key_is_a_header(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = []
            store.list_collections()
            [request] = node.requests
            assert (request.method, request.path, request.key) == ("GET", "/collections", "secret-key")

    @pytest.mark.parametrize(("name", "path"), [("a.b-C", "a.b-C"), (".", "~."), ("..", "~..")])
    def test_names(self, name: str, path: str) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = {"name": path, "fields": []}
            with pytest.raises(ForeignCollectionError):
                store.collection(name)
            assert node.requests[0].path == f"/collections/{path}"

    def test_long_urls_are_avoided(self) -> None:
        """What proxies take is 8 KiB; a filter that is longer goes into the body of a search."""
        with running(1) as [node], opened(node) as store:
            node.body = {"results": [{"hits": [], "found": 3}]}
            collection = handle(store)
            list(collection.scan(F("k").is_in(range(500))))
            collection.delete(filter=F("k").is_in(range(500)))
            assert {request.method for request in node.requests} == {"POST"}
            node.requests.clear()
            node.body = b""
            collection.get([f"id {number}" for number in range(250)])
            collection.delete([f"id {number}" for number in range(250)])
            assert [request.method for request in node.requests] == ["GET", "DELETE"]
            assert max(len(request.path) for request in node.requests) < 7500

    def test_searches_of_a_request(self) -> None:
        with running(1) as [node], opened(node) as store:
            assert store.capabilities.max_query_vectors == connect.MAX_SEARCHES
            node.body = {"results": [{"hits": [], "found": 0}] * 50}
            handle(store).query_many([[1, 2]] * 60, exact=True)
            assert [request.body.count(b'"q"') for request in node.requests] == [50, 10]

    def test_a_short_answer_of_the_graph_is_asked_for_again(self) -> None:
        with running(1) as [node], opened(node) as store:
            hit = {"document": {"key": "a", "meta": "{}"}, "vector_distance": 0.5}
            node.body = {"results": [{"hits": [hit], "found": 1}]}
            found = handle(store).query([1, 2], limit=1)
            assert [(match.id, match.score) for match in found] == [("a", 0.5)]
            cutoffs = [b"flat_search_cutoff:2147483647" in request.body for request in node.requests]
            assert cutoffs == [False, True]
            node.requests.clear()
            handle(store).query([1, 2], limit=1, exact=True)
            assert len(node.requests) == 1

    def test_candidates(self) -> None:
        with running(1) as [node], opened(node) as store:
            flat, graph = CollectionSpec("a", 2, index=FlatIndex()), CollectionSpec("a", 2)
            wide = CollectionSpec("a", 2, index=HnswIndex(ef_search=777))
            euclidean = CollectionSpec("a", 2, "euclidean")

            def asked(spec: CollectionSpec, **options: Any) -> str:
                return str(handle(store, spec).explain(**options).native["vector_query"])

            assert asked(graph) == "vec:([...], k:300, flat_search_cutoff:1500)"
            assert asked(graph, limit=800) == "vec:([...], k:1600, flat_search_cutoff:8000)"
            assert asked(wide) == "vec:([...], k:777, flat_search_cutoff:3885)"
            for one in (asked(flat), asked(graph, exact=True), asked(euclidean)):
                assert one == "vec:([...], k:10, flat_search_cutoff:2147483647)"
            assert node.requests == []


class TestVersions:
    """What an older or newer server can do."""

    def test_too_old(self) -> None:
        with running(1) as [node]:
            node.version = "0.23.1"
            with pytest.raises(UnsupportedOperationError, match=r"0\.24"):
                open_typesense(url_of(node))

    @pytest.mark.parametrize(
        ("version", "expected"),
        [("0.24.1", False), ("0.25.2", False), ("26.0", True), ("30.2.rc1", True), ("nightly", False)],
    )
    def test_hnsw_parameters(self, version: str, expected: bool) -> None:
        with running(1) as [node]:
            node.version = version
            with opened(node) as store:
                assert store.capabilities.hnsw_index is expected
                assert store.version == version
                node.status, node.body = 404, {"message": "Not Found"}
                if not expected:
                    with pytest.raises(UnsupportedOperationError, match="HnswIndex"):
                        store.create_collection("docs", 2, index=HnswIndex(m=8))
                    return
                with pytest.raises(CollectionNotFoundError):  # of the second request, which creates
                    store.create_collection("docs", 2, index=HnswIndex(m=8, ef_construction=64))
                assert b'"hnsw_params":{"M":8,"ef_construction":64}' in node.requests[-1].body

    def test_the_spec_is_read_back(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.status, node.body = 404, {"message": "Not Found"}
            with pytest.raises(CollectionNotFoundError):
                store.create_collection("docs", 2, indexes={"year": int})
            fields = json.loads(node.requests[-1].body)["fields"]
            node.status, node.body = 200, {"name": "docs", "fields": fields}
            expected = CollectionSpec("docs", 2, indexes={"year": "int"})
            assert to_json(store.collection("docs").info) == to_json(expected)
            assert all(name.isascii() and len(name) < 1000 for name in (field["name"] for field in fields))


class TestNodes:
    """A cluster: everything goes to the node that leads."""

    def test_the_leader_is_found(self) -> None:
        with running(4, 1, 4) as nodes, opened(*nodes) as store:
            for node in nodes:
                node.body = []
            store.list_collections()
            assert [len(node.requests) for node in nodes] == [0, 1, 0]

    def test_a_node_that_follows_is_refused(self) -> None:
        with running(4) as nodes, pytest.raises(BackendUnavailableError, match="name all nodes"):
            open_typesense(url_of(*nodes), timeout_s=0.2)

    def test_another_leads_after_a_failure(self) -> None:
        with running(1, 4) as [first, second], opened(first, second) as store:
            first.body = second.body = []
            first.stop()
            second.state = 1
            with pytest.raises(BackendUnavailableError):
                store.list_collections()
            assert store.list_collections() == []
            assert len(second.requests) == 1

    @pytest.mark.parametrize("status", [500, 503])
    def test_another_leads_after_an_error(self, status: int) -> None:
        with running(1, 4) as [first, second], opened(first, second) as store:
            first.status, first.body, second.body = status, {"message": "no"}, []
            first.state, second.state = 4, 1
            with pytest.raises(BackendError):
                store.list_collections()
            assert store.list_collections() == []

    def test_another_leads_without_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with running(1, 4) as [first, second], opened(first, second) as store:
            first.body = second.body = []
            first.state, second.state = 4, 1
            store.list_collections()
            assert (len(first.requests), len(second.requests)) == (1, 0)  # believed for a while
            monkeypatch.setattr(connect, "TRUSTED_S", 0.0)
            store.api._trusted_until = 0.0
            store.list_collections()
            assert (len(first.requests), len(second.requests)) == (1, 1)

    def test_a_dead_node_costs_its_share(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, running(1) as [node]:
            url = f"typesense://:key1@127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{node.port}"
            started = time.monotonic()
            with polyvec.connect(url, timeout_s=1) as store:
                assert time.monotonic() - started < 2
                node.body = []
                assert store.list_collections() == []

    def test_no_node_is_up(self) -> None:
        ports = free_port(), free_port()
        url = f"typesense://:key1@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="cannot be reached"):
            open_typesense(url, timeout_s=1)
        assert time.monotonic() - started < 2

    def test_one_of_the_driver(self) -> None:
        with running(1) as [node], opened(node) as store:
            node.body = [{"name": "a"}]
            assert [found["name"] for found in store.native.collections.retrieve()] == ["a"]
            assert node.requests[0].key == "secret-key"
