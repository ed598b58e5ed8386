"""The emulator refuses what Pinecone's descriptions refuse, and does what they say; each with its page."""

from __future__ import annotations

import ast
import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.adapters.pinecone.conftest import KEY
from tests.servers.pinecone.conditions import compile_filter
from tests.servers.pinecone.server import Server
from tests.servers.pinecone.start import start_pinecone

API = "https://github.com/pinecone-io/pinecone-api/blob/main/2026-07"
DATA = f"{API}/db_data_2026-07.oas.yaml"
CONTROL = f"{API}/db_control_2026-07.oas.yaml"
LIMITS = "https://docs.pinecone.io/reference/api/database-limits/operation-limits"
RATES = "https://docs.pinecone.io/reference/api/database-limits#rate-limits"
FILTERS = "https://docs.pinecone.io/guides/search/filter-by-metadata"
FRESHNESS = "https://docs.pinecone.io/guides/index-data/check-data-freshness"
ERRORS = "https://docs.pinecone.io/reference/api/errors"
UPDATES = "https://docs.pinecone.io/guides/legacy/vectors-api/update-vectors"
METRICS = "https://docs.pinecone.io/guides/index-data/indexing-overview#distance-metrics"
METADATA = "https://docs.pinecone.io/guides/index-data/indexing-overview#metadata"

UPSERT, QUERY, UPDATE, DELETE = "/vectors/upsert", "/query", "/vectors/update", "/vectors/delete"
FETCH_WHERE = "/vectors/fetch_by_metadata"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    text: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def lsns(self) -> tuple[str | None, str | None]:
        """Of the write, and of what is indexed."""
        return self.headers.get("x-pinecone-request-lsn"), self.headers.get("x-pinecone-max-indexed-lsn")


class Client:
    """Plain HTTP; `index` is the path of the index that `make` made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.index = ""

    def send(self, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        sent = {"Api-Key": KEY, "X-Pinecone-Api-Version": "2026-07", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        sent = {
            name: value for name, value in sent.items() if headers.get(name.replace("-", "_"), "") is not None
        }
        try:
            text = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, text, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> Reply:
        return self.send("POST", self.index + path, body)

    def get(self, path: str) -> Reply:
        return self.send("GET", self.index + path)

    def make(self, **changes: Any) -> Reply:
        made = self.send("POST", "/indexes", description(**changes))
        if made.status == 201:
            self.index = "/" + made.body["host"].split("/", 3)[3]
        return made

    def upsert(self, *vectors: dict[str, Any], namespace: str = "") -> Reply:
        return self.post(UPSERT, {"vectors": list(vectors), "namespace": namespace})

    def ids(self, filter: Any = None) -> list[str]:
        """The ids that a query finds, the best first."""
        body = {"vector": [1, 1], "topK": 100} | ({} if filter is None else {"filter": filter})
        reply = self.post(QUERY, body)
        assert reply.status == 200, reply
        return [match["id"] for match in reply.body["matches"]]


def description(dimension: int = 2, metric: str = "cosine", **changes: Any) -> dict[str, Any]:
    field = {"type": "dense_vector", "dimension": dimension, "metric": metric}
    return {"name": "docs", "schema": {"fields": {"_values": field}}} | changes


def vector(id: Any = "a", values: Any = (1, 0), **metadata: Any) -> dict[str, Any]:
    return {"id": id, "values": list(values), "metadata": metadata}


@pytest.fixture
def client(serve: Callable[..., Server]) -> Client:
    """A client of an emulator in which writes are seen at once, with an index of two dimensions."""
    made = Client(serve(lag=0))
    assert made.make().status == 201
    return made


class TestRefusals:
    @pytest.mark.parametrize(
        ("rule", "path", "body", "status"),
        [
            # ids, vectors
            (DATA, UPSERT, {"vectors": []}, 400),
            (DATA, UPSERT, {"vectors": [vector(f"v{n}") for n in range(1001)]}, 400),
            (DATA, UPSERT, {"vectors": [vector("")]}, 400),
            (DATA, UPSERT, {"vectors": [vector("x" * 513)]}, 400),
            (DATA, UPSERT, {"vectors": [vector("é")]}, 400),
            (DATA, UPSERT, {"vectors": [vector("a\0b")]}, 400),
            (DATA, UPSERT, {"vectors": [{"id": 1, "values": [1, 0]}]}, 400),
            (DATA, UPSERT, {"vectors": [{"values": [1, 0]}]}, 400),
            (DATA, UPSERT, {"vectors": [{"id": "a"}]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[1, 2, 3])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=["1", "x"])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[None, 1])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[1e39, 1])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[0, 0])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(values=[9e-9, -9e-9])]}, 400),
            (DATA, UPSERT, {"vectors": [vector()], "namespace": "x" * 513}, 400),
            (DATA, UPSERT, {"vectors": [vector()], "namespace": "é"}, 400),
            (DATA, UPSERT, {"vectors": [vector()], "extra": 1}, 400),
            (DATA, UPSERT, {"vectors": [vector() | {"vec": 1}]}, 400),
            (DATA, UPSERT, b"{", 400),
            # metadata
            (METADATA, UPSERT, {"vectors": [vector(k=None)]}, 400),
            (METADATA, UPSERT, {"vectors": [vector(k={"a": 1})]}, 400),
            (METADATA, UPSERT, {"vectors": [vector(k=[1, 2])]}, 400),
            (METADATA, UPSERT, {"vectors": [vector(k=["a", 1])]}, 400),
            (METADATA, UPSERT, {"vectors": [vector(k=["a", None])]}, 400),
            (DATA, UPSERT, {"vectors": [vector(**{"$k": 1})]}, 400),
            (LIMITS, UPSERT, {"vectors": [vector(k="x" * 40_961)]}, 400),
            (LIMITS, UPSERT, {"vectors": [vector(f"v{n}", k="x" * 40_900) for n in range(49)]}, 413),
            # queries
            (DATA, QUERY, {"vector": [1, 0]}, 400),
            (DATA, QUERY, {"vector": [1, 0], "topK": 0}, 400),
            (DATA, QUERY, {"vector": [1, 0], "topK": 10_001}, 400),
            (DATA, QUERY, {"vector": [1, 0], "topK": True}, 400),
            (DATA, QUERY, {"topK": 1}, 400),
            (DATA, QUERY, {"topK": 1, "vector": [1, 0], "id": "a"}, 400),
            (DATA, QUERY, {"topK": 1, "vector": [1]}, 400),
            (DATA, QUERY, {"topK": 1, "vector": [1, 0], "includeValues": 1}, 400),
            (DATA, QUERY, {"topK": 1, "vector": [1, 0], "offset": 1}, 400),
            # updates
            (DATA, UPDATE, {"setMetadata": {"k": 1}}, 400),
            (DATA, UPDATE, {"id": "a", "filter": {"k": 1}, "setMetadata": {"k": 1}}, 400),
            (DATA, UPDATE, {"filter": {"k": 1}, "values": [1, 0]}, 400),
            (DATA, UPDATE, {"filter": {}, "setMetadata": {"k": 1}}, 400),
            (METADATA, UPDATE, {"id": "here", "setMetadata": {"k": None}}, 400),
            (DATA, UPDATE, {"id": "here", "setMetadata": {"$k": 1}}, 400),
            (LIMITS, UPDATE, {"id": "here", "setMetadata": {"k": "x" * 40_950}}, 400),
            # deletions
            (DATA, DELETE, {}, 400),
            (DATA, DELETE, {"ids": ["a"], "deleteAll": True}, 400),
            (DATA, DELETE, {"ids": ["a"], "filter": {"k": 1}}, 400),
            (DATA, DELETE, {"filter": {}}, 400),
            (DATA, DELETE, {"ids": [f"v{n}" for n in range(1001)]}, 400),
            (ERRORS, DELETE, {"ids": ["a"], "namespace": "nowhere"}, 404),
            # reads
            (DATA, FETCH_WHERE, {"filter": {}}, 400),
            (DATA, FETCH_WHERE, {"filter": {"k": 1}, "limit": 0}, 400),
            (DATA, FETCH_WHERE, {"filter": {"k": 1}, "limit": 10_001}, 400),
            (DATA, "/describe_index_stats", {"filter": {"k": 1}}, 400),
        ],
    )
    def test_data_plane(self, client: Client, rule: str, path: str, body: Any, status: int) -> None:
        client.upsert(vector("here", long="y" * 100))
        reply = client.post(path, body)
        assert reply.status == status, (rule, reply.text[:300])
        assert set(reply.body) == {"code", "message", "details"}, DATA  # rpcStatus
        assert client.ids() == ["here"]  # nothing of it was done

    @pytest.mark.parametrize(
        "path",
        [
            "/vectors/fetch",
            "/vectors/fetch?ids=",
            "/vectors/fetch?" + "&".join(f"ids={n}" for n in range(1001)),
            "/vectors/list?limit=0",
            "/vectors/list?limit=101",
            "/vectors/list?limit=many",
        ],
    )
    def test_what_is_asked_for_in_a_url(self, client: Client, path: str) -> None:
        assert client.get(path).status == 400, DATA

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"name": ""}, 400),
            ({"name": "x" * 46}, 400),
            ({"name": "Docs"}, 400),
            ({"name": "do_cs"}, 400),
            ({"name": "-docs"}, 400),
            ({"name": "docs-"}, 400),
            ({"dimension": 0}, 400),
            ({"dimension": 20_001}, 400),
            ({"metric": "manhattan"}, 400),
            ({"schema": {}}, 400),
            ({"schema": {"fields": {}}}, 400),
            ({"schema": {"fields": {"_values": {"type": "string"}}}}, 400),
            ({"spec": {"serverless": {}}}, 400),
            ({"deployment": {"deployment_type": "pod", "environment": "us-east1-gcp"}}, 400),
            ({"deployment": {"deployment_type": "managed", "cloud": "aws"}}, 400),
            ({"deployment": {"deployment_type": "managed", "cloud": "moon", "region": "x"}}, 404),
            ({"tags": {"a b": "x"}}, 400),
            ({"tags": {"a": "x" * 121}}, 400),
            ({"tags": {"x" * 81: "x"}}, 400),
            ({"tags": {"a": "{}"}}, 400),
            ({"tags": {f"t{n}": "x" for n in range(21)}}, 400),
            ({"tags": {"a": 1}}, 400),
        ],
    )
    def test_control_plane(self, serve: Callable[..., Server], changes: dict[str, Any], status: int) -> None:
        client = Client(serve())
        reply = client.make(**changes)
        assert reply.status == status, (CONTROL, reply.text)
        assert reply.body["status"] == status
        assert set(reply.body["error"]) == {"code", "message"}
        assert client.send("GET", "/indexes").body == {"indexes": []}

    def test_keys_and_versions(self, client: Client) -> None:
        for path in ("/indexes", f"{client.index}/vectors/list"):
            for key in ("another", None):
                reply = client.send("GET", path, Api_Key=key)
                assert (reply.status, reply.text) == (401, b"Unauthorized"), DATA  # bare text
            assert client.send("GET", path, X_Pinecone_Api_Version="2025-01").status == 400
            assert client.send("GET", path, X_Pinecone_Api_Version=None).status == 400, DATA  # required

    def test_answers_beyond_4_mb(self, client: Client) -> None:
        for start in range(0, 100, 40):
            numbers = range(start, min(start + 40, 100))
            assert client.upsert(*[vector(f"v{n}", k="x" * 40_900) for n in numbers]).status == 200
        body = {"vector": [1, 1], "topK": 100, "includeMetadata": True}
        assert client.post(QUERY, body).status == 400, LIMITS
        assert client.post(QUERY, body | {"topK": 90}).status == 200
        assert client.post(QUERY, body | {"includeMetadata": False}).status == 200

    def test_limits_themselves_are_allowed(self, client: Client) -> None:
        full = 40_960 - len('{"k":""}')
        vectors = [vector("x" * 512, [1e-8, 0], k="x" * full), *(vector(f"v{n}") for n in range(999))]
        assert client.upsert(*vectors).body == {"upsertedCount": 1000}, LIMITS
        assert client.post(QUERY, {"vector": [1, 0], "topK": 10_000}).status == 200, DATA
        filter = {"k": {"$in": [str(n) for n in range(10_000)]}}
        assert client.post(QUERY, {"vector": [1, 0], "topK": 1, "filter": filter}).status == 200, LIMITS
        assert client.post(DELETE, {"ids": [f"v{n}" for n in range(1000)]}).status == 200, DATA
        assert client.make(name="x" * 45, dimension=20_000).status == 201, CONTROL

    def test_more_requests_than_the_rate(self, serve: Callable[..., Server]) -> None:
        client = Client(serve(lag=0, rates=True))
        client.make()
        client.upsert(vector())
        replies = [client.post(QUERY, {"vector": [1, 0], "topK": 1}) for _ in range(260)]
        refused = [reply for reply in replies if reply.status == 429]
        assert refused, RATES
        assert refused[0].headers["retry-after"] == "1"
        assert b"too many query requests" in refused[0].text  # bare text: DATA


class TestFilters:
    RECORDS: tuple[tuple[str, dict[str, Any]], ...] = (
        ("number", {"k": 1.0}),
        ("string", {"k": "1"}),
        ("true", {"k": True}),
        ("list", {"k": ["1", "a"]}),
        ("empty", {"k": []}),
        ("missing", {}),
    )

    @pytest.mark.parametrize(
        ("filter", "expected"),
        [
            ({"k": 1}, "number"),
            ({"k": {"$eq": 1}}, "number"),
            ({"k": {"$eq": "1"}}, "string list"),
            ({"k": {"$eq": True}}, "true"),
            ({"k": {"$ne": "1"}}, "number true empty"),
            ({"k": {"$in": ["a", 1]}}, "number list"),
            ({"k": {"$nin": ["a", 1]}}, "string true empty"),
            ({"k": {"$gt": 0}}, "number"),
            ({"k": {"$gte": 1, "$lte": 1}}, "number"),
            ({"k": {"$lt": 1}}, ""),
            ({"k": {"$exists": True}}, "number string true list empty"),
            ({"k": {"$exists": False}}, "missing"),
            ({"$or": [{"k": 1}, {"k": {"$exists": False}}]}, "number missing"),
            ({"$and": [{"k": {"$ne": 1}}, {"k": {"$ne": "1"}}]}, "true empty"),
            ({"k": {"$ne": 1}, "$or": [{"k": True}, {"k": "a"}]}, "true list"),
        ],
    )
    def test_meaning(self, filter: dict[str, Any], expected: str) -> None:
        holds = compile_filter(filter, missing_matches=False)
        assert [name for name, metadata in self.RECORDS if holds(metadata)] == expected.split(), FILTERS

    def test_a_missing_field_under_a_negation(self) -> None:
        for filter in ({"k": {"$ne": 1}}, {"k": {"$nin": [1]}}):
            assert not compile_filter(filter, missing_matches=False)({})
            assert compile_filter(filter, missing_matches=True)({})

    @pytest.mark.parametrize(
        "filter",
        [
            {"k": None},
            {"k": []},
            {"k": ["a"]},
            {"k": {}},
            {"k": {"$eq": ["a"]}},
            {"k": {"$eq": None}},
            {"k": {"$gt": "a"}},
            {"k": {"$gt": True}},
            {"k": {"$in": "a"}},
            {"k": {"$in": []}},
            {"k": {"$in": [True]}},
            {"k": {"$in": [["a"]]}},
            {"k": {"$in": ["x"] * 10_001}},
            {"k": {"$nin": ["x"] * 10_001}},
            {"k": {"$exists": 1}},
            {"k": {"$not": {"$eq": 1}}},
            {"k": {"$regex": "a"}},
            {"k": {"nested": 1}},
            {"$not": {"k": 1}},
            {"$nor": [{"k": 1}]},
            {"$and": []},
            {"$or": {"k": 1}},
            {"$or": [{}]},
        ],
    )
    def test_refusals(self, client: Client, filter: Any) -> None:
        client.upsert(vector())
        for path, body in (
            (QUERY, {"vector": [1, 0], "topK": 1}),
            (FETCH_WHERE, {}),
            (UPDATE, {"setMetadata": {"k": 1}}),
            (DELETE, {}),
        ):
            assert client.post(path, body | {"filter": filter}).status == 400, (FILTERS, LIMITS)
        assert client.ids() == ["a"]


class TestRecords:
    def test_numbers_come_back_as_floats_and_vectors_as_32_bits(self, client: Client) -> None:
        client.upsert(vector("a", [0.1, 0], n=2020, big=2**53 + 1, flag=True, tags=["x"], s="é"))
        [found] = client.get("/vectors/fetch?ids=a&ids=b").body["vectors"].values()
        assert found["metadata"] == {"n": 2020.0, "big": 2.0**53, "flag": True, "tags": ["x"], "s": "é"}, (
            METADATA
        )
        assert type(found["metadata"]["n"]) is float
        assert np.float32(found["values"][0]) == np.float32(0.1)

    def test_an_upsert_replaces_and_an_update_merges(self, client: Client) -> None:
        client.upsert(vector("a", [1, 0], x=1, y=1))
        client.upsert(vector("a", [0, 1], x=2))
        client.post(UPDATE, {"id": "a", "setMetadata": {"z": 3}})
        client.post(UPDATE, {"id": "nobody", "setMetadata": {"z": 3}})
        assert client.get("/vectors/fetch?ids=a&ids=nobody").body["vectors"] == {
            "a": {"id": "a", "values": [0.0, 1.0], "metadata": {"x": 2.0, "z": 3.0}}
        }, UPDATES
        client.post(UPDATE, {"id": "a", "values": [1, 1]})
        assert client.get("/vectors/fetch?ids=a").body["vectors"]["a"]["values"] == [1.0, 1.0]

    def test_updates_by_filter(self, client: Client) -> None:
        client.upsert(vector("a", x=1), vector("b", x=2), vector("c", x=2))
        change = {"filter": {"x": 2}, "setMetadata": {"y": 1}}
        assert client.post(UPDATE, change | {"dryRun": True}).body == {"matchedRecords": 2}, DATA
        assert client.ids({"y": 1}) == []
        assert client.post(UPDATE, change).body == {"matchedRecords": 2}
        assert sorted(client.ids({"y": 1})) == ["b", "c"]

    @pytest.mark.parametrize(
        ("metric", "expected"),
        [
            ("cosine", [("far", 1.0), ("near", 0.8)]),
            ("dotproduct", [("far", 8.0), ("near", 3.2)]),
            ("euclidean", [("near", 1.6), ("far", 4.0)]),  # squared, the smallest first
        ],
    )
    def test_scores(self, client: Client, metric: str, expected: list[tuple[str, float]]) -> None:
        client.make(name=metric, metric=metric)
        client.upsert(vector("near", [1.6, 1.2]), vector("far", [4, 0]))
        matches = client.post(QUERY, {"vector": [2, 0], "topK": 2}).body["matches"]
        assert [match["id"] for match in matches] == [id for id, _ in expected], METRICS
        assert [match["score"] for match in matches] == pytest.approx(
            [score for _, score in expected], rel=1e-6
        )

    def test_pages_are_sorted_and_end_without_a_token(self, client: Client) -> None:
        names = [f"v{n:03}" for n in range(250)]
        client.upsert(*[vector(name, k=1) for name in reversed(names)], vector("w", k=2))
        for first, following in (
            ("/vectors/list?prefix=v", "&paginationToken={}"),
            ("/vectors/list?prefix=v&limit=70", "&paginationToken={}"),
        ):
            found, path = [], first
            while True:
                page = client.get(path).body
                found += [item["id"] for item in page["vectors"]]
                if "pagination" not in page:
                    break
                path = first + following.format(page["pagination"]["next"])
            assert found == names, DATA
        body: dict[str, Any] = {"filter": {"k": 1}}
        read: list[str] = []
        while True:
            page = client.post(FETCH_WHERE, body).body
            assert len(page["vectors"]) <= 100
            read += page["vectors"]
            if "pagination" not in page:
                break
            body["paginationToken"] = page["pagination"]["next"]
        assert read == names, DATA

    def test_namespaces(self, client: Client) -> None:
        client.upsert(vector("a"), namespace="")
        client.upsert(vector("b"), namespace="__default__")  # the same one: DATA
        client.upsert(vector("a"), namespace="n")
        assert sorted(client.ids()) == ["a", "b"]
        assert client.post("/describe_index_stats", {}).body["namespaces"] == {
            "__default__": {"vectorCount": 2},
            "n": {"vectorCount": 1},
        }
        client.post(DELETE, {"deleteAll": True, "namespace": "n"})
        assert sorted(client.ids()) == ["a", "b"]
        assert client.get("/vectors/list?namespace=n").body["vectors"] == []
        assert client.get("/vectors/list?namespace=nowhere").body["vectors"] == []

    def test_deletions(self, client: Client) -> None:
        client.upsert(vector("a", k=1), vector("b", k=2), vector("c", k=3))
        assert client.post(DELETE, {"ids": ["a", "nobody"]}).body == {}
        assert client.post(DELETE, {"filter": {"k": 2}}).body == {}
        assert client.ids() == ["c"]


class TestFreshness:
    @pytest.fixture
    def slow(self, serve: Callable[..., Server]) -> Client:
        client = Client(serve(lag=2))
        client.make()
        return client

    def test_a_write_is_seen_later_and_queries_say_when(self, slow: Client) -> None:
        body = {"vector": [1, 0], "topK": 9}
        assert slow.upsert(vector("a")).lsns == ("1", None), FRESHNESS
        first, second, third = (slow.post(QUERY, body) for _ in range(3))
        assert [len(reply.body["matches"]) for reply in (first, second, third)] == [0, 0, 1]
        assert [reply.lsns[1] for reply in (first, second, third)] == [None, None, "1"]
        assert slow.post(DELETE, {"ids": ["a"]}).lsns[0] == "2"
        assert slow.post(UPDATE, {"id": "a", "setMetadata": {"k": 1}}).lsns[0] == "3"
        stale, again, fresh = (slow.post(QUERY, body) for _ in range(3))
        assert [len(reply.body["matches"]) for reply in (stale, again, fresh)] == [1, 1, 0]
        assert [reply.lsns[1] for reply in (stale, again, fresh)] == ["1", "1", "3"]

    def test_other_reads_are_stale_too_and_say_nothing(self, slow: Client) -> None:
        slow.upsert(vector("a", k=1))
        reads: list[Callable[[], Reply]] = [
            lambda: slow.get("/vectors/fetch?ids=a"),
            lambda: slow.post(FETCH_WHERE, {"filter": {"k": 1}}),
        ]
        for read in reads:
            reply = read()
            assert reply.body["vectors"] == {}
            assert reply.lsns == (None, None)
        assert slow.get("/vectors/list").body["vectors"] == [{"id": "a"}]

    def test_a_deletion_by_filter_finds_what_is_indexed(self, slow: Client) -> None:
        slow.upsert(vector("a", k=1))
        assert slow.post(DELETE, {"filter": {"k": 1}}).lsns[0] == "2"
        for _ in range(3):
            slow.ids()
        assert slow.ids() == ["a"]
        slow.post(DELETE, {"filter": {"k": 1}})
        for _ in range(3):
            slow.ids()
        assert slow.ids() == []

    def test_each_namespace_counts_for_itself(self, slow: Client) -> None:
        assert [slow.upsert(vector(), namespace=name).lsns[0] for name in "aabab"] == [
            "1",
            "2",
            "1",
            "3",
            "2",
        ]


class TestLifeOfAnIndex:
    def test_it_is_not_ready_at_once_nor_gone_at_once(self, serve: Callable[..., Server]) -> None:
        client = Client(serve(lag=2))
        made = client.make(tags={"a": "b"})
        assert made.body["status"] == {"ready": False, "state": "Initializing"}, CONTROL
        states = [client.send("GET", "/indexes/docs").body["status"]["state"] for _ in range(2)]
        assert states == ["Initializing", "Ready"]
        assert client.make().status == 409, ERRORS
        assert client.send("DELETE", "/indexes/docs").status == 202
        assert client.make().status == 409
        assert client.send("GET", "/indexes/docs").body["status"]["state"] == "Terminating"
        assert client.upsert(vector()).status == 404
        client.send("GET", "/indexes/docs")
        assert client.send("GET", "/indexes/docs").status == 404
        old = client.index
        assert client.make().status == 201
        assert client.index != old

    def test_a_protected_one_stays(self, client: Client) -> None:
        client.make(name="kept", deletion_protection="enabled")
        assert client.send("DELETE", "/indexes/kept").status == 403, ERRORS


class TestTheProgram:
    def test_a_crash_loses_nothing_that_was_answered(
        self, serve: Callable[..., Server], tmp_path: Path
    ) -> None:
        client = Client(serve(data=tmp_path))
        client.make(name="gone")
        client.send("DELETE", "/indexes/gone")
        client.make(tags={"a": "b"})
        client.upsert(vector("a", k=1), vector("b", k=2), vector("c", k=3))
        client.upsert(vector("bad", k=None))
        client.post(UPDATE, {"id": "a", "setMetadata": {"k": 5}})
        client.post(UPDATE, {"filter": {"k": 3}, "setMetadata": {"k": 6}, "dryRun": True})
        client.post(DELETE, {"ids": ["b"]})
        client.upsert(vector("e", k=9), vector("f", k=9))
        for _ in range(3):
            client.ids()
        client.post(DELETE, {"filter": {"k": 9}})
        log = tmp_path / "log"
        log.write_bytes(log.read_bytes() + b'["upsert","docs",{"vectors":[{"id":"torn')
        again = Client(serve(data=tmp_path))
        again.index = client.index
        assert [index["name"] for index in again.send("GET", "/indexes").body["indexes"]] == ["docs"]
        found = again.get("/vectors/fetch?ids=a&ids=b&ids=c&ids=e&ids=torn").body["vectors"]
        assert {id: item["metadata"]["k"] for id, item in found.items()} == {"a": 5.0, "c": 3.0}
        again.upsert(vector("d"))
        third = Client(serve(data=tmp_path, lag=0))
        third.index = client.index
        assert sorted(third.ids()) == ["a", "c", "d"]

    def test_faults(self, client: Client) -> None:
        fault = {"path": "/query", "status": 429, "times": 2, "retry_after_s": 7}
        client.send("POST", "/_faults", fault)
        client.upsert(vector())
        body = {"vector": [1, 0], "topK": 1}
        replies = [client.post(QUERY, body) for _ in range(3)]
        assert [reply.status for reply in replies] == [429, 429, 200]
        assert replies[0].headers["retry-after"] == "7"

    def test_it_starts_soon(self, tmp_path: Path) -> None:
        def seconds() -> float:
            started = time.monotonic()
            with start_pinecone(tmp_path / "log"):
                return time.monotonic() - started

        assert min(seconds() for _ in range(3)) < 2

    def test_it_shares_nothing_with_polyvec(self) -> None:
        folder = Path(__file__).parents[2] / "servers" / "pinecone"
        for path in folder.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [name for name in names if name.startswith(("polyvec", "pinecone"))], path
