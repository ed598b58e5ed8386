"""What is sent to a server, over REST and over gRPC, and what its refusals become.

A stand-in answers: Qdrant's own engine behind the two faces of `servers`. The contract runs against it too,
on the backends `qdrant-engine-rest` and `qdrant-engine-grpc`; here is what the contract does not see.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest

import polyvec
from polyvec.encoding import NO_RECORD_UUID, record_uuid
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ForeignCollectionError,
    RateLimitedError,
    UnsupportedOperationError,
)
from polyvec.filters import F, matches
from polyvec.retry import RetryPolicy
from polyvec.spec import to_json
from polyvec.testing import data
from polyvec.testing.compare import assert_best, assert_holds, truth
from polyvec.tokens import companion_field, scalar_token
from polyvec.types import FlatIndex, HnswIndex, Record, RecordBatch, WriteReport
from polyvec_adapters.qdrant.store import QdrantCollection, QdrantStore
from tests.adapters.qdrant.engine import Engine
from tests.adapters.qdrant.servers import Call, Fault, Server

pytestmark = pytest.mark.server

A, B = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]
YEAR = companion_field("n", "year")

NAMES = {
    "info": ("GET /", "HealthCheck"),
    "list": ("GET /collections", "Collections.List"),
    "create": ("PUT /collections/{}", "Collections.Create"),
    "index": ("PUT /collections/{}/index", "Points.CreateFieldIndex"),
    "upsert": ("PUT /collections/{}/points", "Points.Upsert"),
    "get": ("POST /collections/{}/points", "Points.Get"),
    "query": ("POST /collections/{}/points/query/batch", "Points.QueryBatch"),
    "scroll": ("POST /collections/{}/points/scroll", "Points.Scroll"),
    "count": ("POST /collections/{}/points/count", "Points.Count"),
    "delete": ("POST /collections/{}/points/delete", "Points.Delete"),
    "change": ("POST /collections/{}/points/batch", "Points.UpdateBatch"),
}
"""What the requests are called, over REST and over gRPC."""


def sent(server: Server, what: str) -> list[Call]:
    """The requests of one kind, oldest first."""
    return [call for call in server.calls if call.name in NAMES[what]]


def over_rest(call: Call) -> bool:
    return " " in call.name


def searches(server: Server) -> list[list[models.QueryRequest]]:
    """What was searched, request by request."""
    return [
        models.QueryRequestBatch.model_validate(call.body).searches
        if over_rest(call)
        else [GrpcToRest.convert_query_points(query) for query in call.body.query_points]
        for call in sent(server, "query")
    ]


def filter_of(call: Call) -> models.Filter | None:
    """The filter of a scroll, a count or a delete."""
    if over_rest(call):
        return models.Filter.model_validate(call.body["filter"]) if call.body.get("filter") else None
    holder = call.body.points if hasattr(call.body, "points") else call.body
    return GrpcToRest.convert_filter(holder.filter) if holder.HasField("filter") else None


def changes(server: Server) -> list[models.SetPayload]:
    """The changes of payloads."""
    found: list[models.SetPayload] = []
    for call in sent(server, "change"):
        operations = (
            [models.SetPayloadOperation.model_validate(item) for item in call.body["operations"]]
            if over_rest(call)
            else [GrpcToRest.convert_points_update_operation(item) for item in call.body.operations]
        )
        for operation in operations:
            assert isinstance(operation, models.SetPayloadOperation)
            found.append(operation.set_payload)
    return found


def inside(namespace: str) -> models.FieldCondition:
    return models.FieldCondition(key="ns", match=models.MatchValue(value=namespace))


@pytest.fixture
def store(server: Server) -> Iterator[QdrantStore]:
    with polyvec.connect(server.url) as found:
        assert isinstance(found, QdrantStore)
        found.retry = RetryPolicy(attempts=1)
        yield found


@pytest.fixture
def docs(store: QdrantStore) -> QdrantCollection:
    """A collection, 4 dimensions, cosine."""
    found = store.create_collection("docs", 4, indexes={"year": int, "at": datetime, "lang": str})
    assert isinstance(found, QdrantCollection)
    return found


class TestConnecting:
    def test_it_asks_for_the_version_and_for_what_needs_a_key(
        self, store: QdrantStore, server: Server
    ) -> None:
        assert [call.name in (*NAMES["info"], *NAMES["list"]) for call in server.calls] == [True, True]
        assert store.version == "1.19.0"
        assert type(store.native).__name__ == "QdrantClient"

    def test_an_old_server_is_refused(self, engine: Engine, server: Server) -> None:
        for version in ("1.15.5", "1.9.0-dev", "0.11.0"):
            engine.version = version
            with pytest.raises(UnsupportedOperationError, match=rf"{version}.*1\.16"):
                polyvec.connect(server.url)
        for version in ("1.16.0", "1.20.0-dev", "2.0.0"):
            engine.version = version
            polyvec.connect(server.url).close()

    def test_the_key_is_sent_and_never_shown(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
    ) -> None:
        server.key = "s3cret"
        with pytest.raises(AuthenticationError) as caught:
            polyvec.connect(server.url, api_key="wr0ng")
        assert "wr0ng" not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"
        monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
        with polyvec.connect(server.url) as opened:
            assert "s3cret" not in repr(opened)
        assert {call.headers.get("api-key") for call in server.calls[-2:]} == {"s3cret"}
        assert not recwarn.list

    def test_a_forbidden_key(self, server: Server) -> None:
        server.faults = [Fault(403, "Forbidden: read only")]
        with pytest.raises(AuthenticationError, match="Forbidden"):
            polyvec.connect(server.url)

    @pytest.mark.parametrize("options", ["", "?prefer_grpc=true&grpc_port=1"])
    def test_nothing_listens(self, options: str) -> None:
        with pytest.raises(BackendUnavailableError) as caught:
            polyvec.connect(f"qdrant://127.0.0.1:1{options}", timeout_s=5)
        assert (caught.value.backend, caught.value.operation) == ("qdrant", "connect")

    def test_something_else_answers(self, rest_server: Server) -> None:
        rest_server.faults = [Fault(404, raw="<html>Not Found</html>")]
        with pytest.raises(BackendError, match="404: <html>Not Found") as caught:
            polyvec.connect(rest_server.url)
        assert type(caught.value) is BackendError
        rest_server.faults = [Fault(200, raw="<html>Welcome</html>")]
        with pytest.raises(BackendError):
            polyvec.connect(rest_server.url)


class TestCollections:
    def test_what_is_created(self, store: QdrantStore, server: Server, engine: Engine) -> None:
        made = store.create_collection("docs", 4, "euclidean", index=HnswIndex(8, 64, 32))
        config = engine.collections["docs"].config
        assert config.vectors == models.VectorParams(size=4, distance=models.Distance.EUCLID)
        assert config.hnsw_config is not None
        assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (8, 64)
        assert config.metadata == {"polyvec": to_json(made.info)}
        assert engine.collections["docs"].indexed == {"ns": "keyword", "f.t": "keyword"}
        [namespaces, tokens] = sent(server, "index")
        if over_rest(namespaces):
            assert namespaces.body["field_schema"] == {"type": "keyword", "is_tenant": True}
            assert tokens.body["field_schema"] == "keyword"
            assert namespaces.options["wait"] == tokens.options["wait"] == "true"
        else:
            assert namespaces.body.field_index_params.keyword_index_params.is_tenant
            assert namespaces.body.wait
            assert tokens.body.wait

    def test_the_default_graph_and_no_graph(self, store: QdrantStore, engine: Engine) -> None:
        store.create_collection("graph", 4)
        store.create_collection("flat", 4, index=FlatIndex())
        graph, flat = (engine.collections[name].config.hnsw_config for name in ("graph", "flat"))
        assert graph is not None
        assert flat is not None
        assert (graph.m, graph.ef_construct) == (16, 200)
        assert flat.m == 0

    def test_hints_index_what_ranges_compare(self, docs: QdrantCollection, engine: Engine) -> None:
        at = companion_field("d", "at")
        fields = [f"f.{YEAR}", f"f.{YEAR}_low", f"f.{at}", f"f.{at}_low"]
        assert engine.collections["docs"].indexed == {
            "ns": "keyword", "f.t": "keyword", **dict.fromkeys(fields, "float"),
        }  # fmt: skip

    def test_names_that_are_directories(self, store: QdrantStore, engine: Engine) -> None:
        for number, name in enumerate((".", "..", "...")):
            store.create_collection(name, 4).upsert(Record(f"r{number}", A))
        assert engine.names() == ["~.", "~..", "..."]
        assert store.list_collections() == [".", "..", "..."]
        for number, name in enumerate((".", "..", "...")):
            opened = store.collection(name)
            assert (opened.name, opened.info.name) == (name, name)
            assert [record.id for record in opened.scan()] == [f"r{number}"]
            store.drop_collection(name)
        assert engine.names() == []

    def test_what_somebody_else_made(self, store: QdrantStore, engine: Engine) -> None:
        vectors = models.VectorParams(size=4, distance=models.Distance.DOT)
        engine.create("bare", models.CreateCollection(vectors=vectors))
        engine.create("other", models.CreateCollection(vectors=vectors, metadata={"owner": "somebody"}))
        assert store.list_collections() == []
        for name in ("bare", "other"):
            with pytest.raises(ForeignCollectionError, match="did not create"):
                store.collection(name)
            with pytest.raises(ForeignCollectionError):
                store.create_collection(name, 4, "dot", exist_ok=True)
            with pytest.raises(ForeignCollectionError):
                store.drop_collection(name)
        assert engine.names() == ["bare", "other"]

    def test_a_snapshot_recovered_under_another_name(
        self, store: QdrantStore, docs: QdrantCollection, engine: Engine
    ) -> None:
        engine.create("restored", engine.collections["docs"].config)
        restored = store.collection("restored")
        restored.upsert(Record("a", A))
        assert (restored.name, restored.count(), docs.count()) == ("restored", 1, 0)
        assert store.list_collections() == ["docs", "restored"]

    def test_creating_what_another_process_just_made(
        self, store: QdrantStore, server: Server, engine: Engine
    ) -> None:
        made = store.create_collection("docs", 4).info
        server.faults = [Fault(404, "Not found: Collection `docs` doesn't exist!")]
        assert store.create_collection("docs", 4, exist_ok=True).info == made
        server.faults = [Fault(404, "Not found: Collection `docs` doesn't exist!")]
        with pytest.raises(CollectionExistsError):
            store.create_collection("docs", 4)

    def test_a_collection_dropped_while_they_are_listed(
        self, store: QdrantStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a", "b"):
            store.create_collection(name, 4)
        original = store.native.get_collections

        def then_drop() -> models.CollectionsResponse:
            found = original()
            engine.drop("a")
            return found

        monkeypatch.setattr(store.native, "get_collections", then_drop)
        assert store.list_collections() == ["b"]


class TestRequests:
    def test_every_request_stays_in_its_namespace(self, docs: QdrantCollection, server: Server) -> None:
        tenant = docs.scoped("tenant")
        tenant.upsert(Record("a", A, "text", {"year": 2024}))
        filter = F("year") > 2000
        for chosen in (None, filter, ~filter):
            tenant.query(A, filter=chosen)
            tenant.query(A, filter=chosen, exact=True)
            tenant.count(chosen)
            list(tenant.scan(chosen))
        tenant.query_by_id("a")
        tenant.update_metadata(filter=filter, set={"year": 2025})
        tenant.delete(filter=filter)
        tenant.clear()
        filtered = [call for what in ("scroll", "count", "delete") for call in sent(server, what)]
        assert len(filtered) == 3 + 4 + 2
        sent_filters = [filter_of(call) for call in filtered]
        sent_filters += [search.filter for batch in searches(server) for search in batch]
        assert len(sent_filters) >= 9 + 7
        for found in sent_filters:
            assert found is not None
            assert isinstance(found.must, list)
            assert found.must[-1] == inside("tenant")
            assert not found.should
            assert not found.must_not
        [change] = changes(server)
        assert change.filter is not None
        assert change.filter.must == [models.HasIdCondition(has_id=[record_uuid("tenant", "a")])]
        assert change.points is None

    def test_points(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert([Record("a", [3, 4, 0, 0], "text", {"lang": "ko"}), Record("b", A)])
        [call] = sent(server, "upsert")
        if over_rest(call):
            assert call.options["wait"] == "true"
            assert "Infinity" not in str(call.body)
            batch = call.body["batch"]
            ids, [payload, bare], vectors = batch["ids"], batch["payloads"], batch["vectors"]
        else:
            assert call.body.wait
            points = [GrpcToRest.convert_point_struct(point) for point in call.body.points]
            ids = [point.id for point in points]
            [payload, bare] = [point.payload for point in points]
            vectors = [point.vector for point in points]
        assert ids == [record_uuid("", "a"), record_uuid("", "b")]
        assert np.allclose(vectors, [[0.6, 0.8, 0, 0], A])
        assert (payload["id"], payload["ns"], payload["text"], payload["norm"]) == ("a", "", "text", 5.0)
        assert payload["meta"] == '{"lang":"ko"}'
        assert scalar_token("lang", "ko") in payload["f"]["t"]
        assert "text" not in bare
        assert bare["f"] == {"t": []}

    def test_wait_and_flush(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert(Record("a", A), wait=False)
        docs.flush()
        docs.delete(["a"])
        [upsert], [flush, delete] = sent(server, "upsert"), sent(server, "delete")
        if over_rest(upsert):
            assert [call.options["wait"] for call in (upsert, flush, delete)] == ["false", "true", "true"]
            assert (flush.body, delete.body) == (
                {"points": [NO_RECORD_UUID]},
                {"points": [record_uuid("", "a")]},
            )
        else:
            assert [call.body.wait for call in (upsert, flush, delete)] == [False, True, True]
            assert [call.body.points.points.ids[0].uuid for call in (flush, delete)] == [
                NO_RECORD_UUID, record_uuid("", "a"),
            ]  # fmt: skip

    def test_many_vectors_are_one_request(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert(data.records(30, 4))
        found = docs.query_many(data.vectors(40, 4, seed=2), limit=3, offset=1, include_metadata=False)
        assert [len(matches_) for matches_ in found] == [3] * 40
        [batch] = searches(server)
        assert len(batch) == 40
        assert {(search.limit, search.offset) for search in batch} == {(5, None)}
        assert batch[0].with_payload == ["id", "text"]
        assert not batch[0].with_vector

    def test_only_what_is_asked_for_is_sent(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert(Record("a", A, "text", {"n": 1}))
        docs.get(["a"], include_vectors=False, include_text=False, include_metadata=False)
        docs.get(["a"])
        list(docs.scan(batch_size=7, include_vectors=True, include_text=False, include_metadata=False))
        gets, [scroll] = sent(server, "get"), sent(server, "scroll")
        if over_rest(scroll):
            assert [get.body["with_payload"] for get in gets] == [["id"], ["id", "text", "meta", "norm"]]
            assert [get.body["with_vector"] for get in gets] == [False, True]
            assert (scroll.body["with_payload"], scroll.body["with_vector"]) == (["id", "norm"], True)
            assert scroll.body["limit"] == 7
        else:
            includes = [list(get.body.with_payload.include.fields) for get in gets]
            assert includes == [["id"], ["id", "text", "meta", "norm"]]
            assert [get.body.with_vectors.enable for get in gets] == [False, True]
            assert list(scroll.body.with_payload.include.fields) == ["id", "norm"]
            assert scroll.body.limit == 7

    def test_a_change_of_metadata_leaves_the_rest_alone(
        self, docs: QdrantCollection, server: Server, engine: Engine
    ) -> None:
        docs.upsert(Record("a", [3, 4, 0, 0], "text", {"x": 0.1, "year": 2024}))
        docs.update_metadata(["a"], set={"lang": "ko"}, unset=["x"])
        [change] = changes(server)
        assert change.payload.keys() == {"meta", "f"}
        [point] = engine.retrieve("docs", [record_uuid("", "a")], True, True)
        assert point.payload is not None
        assert point.payload["f"].keys() == {"t", YEAR}
        assert (point.payload["text"], point.payload["norm"]) == ("text", 5.0)
        assert_holds(docs, [Record("a", [3, 4, 0, 0], "text", {"year": 2024, "lang": "ko"})])

    def test_a_record_deleted_while_it_is_changed(
        self, docs: QdrantCollection, server: Server, engine: Engine
    ) -> None:
        docs.upsert([Record("a", A, None, {"n": 1}), Record("b", A, None, {"n": 1})])
        docs._do_delete(["a"])
        docs._do_set_metadata(["a", "b"], [{"n": 2}, {"n": 2}])
        assert_holds(docs, [Record("b", A, None, {"n": 2})])

    def test_a_request_that_is_too_large_is_halved(self, store: QdrantStore, rest_server: Server) -> None:
        with polyvec.connect(rest_server.url) as rest:
            docs = rest.create_collection("docs", 4)
            rest_server.max_request_bytes = 3000
            written = [Record(f"r{number}", A, "x" * 200) for number in range(20)]
            assert docs.upsert(written).written == 20
            with pytest.raises(BackendError, match="larger than allowed") as caught:
                docs.upsert([Record("fits", A), Record("not", A, "x" * 4000)])
            assert isinstance(caught.value.report, WriteReport)
            assert caught.value.report.failed_ids == ["not"]
            rest_server.max_request_bytes = 2**20
            assert_holds(docs, [*written, Record("fits", A)])

    @pytest.mark.parametrize("text", ["\0" * 1000, "👩‍👩‍👧‍👦" * 100, "x" * 1000])
    def test_the_largest_batch_fits(self, rest_server: Server, text: str) -> None:
        """Vectors, texts and metadata swell in JSON; a batch of ours stays below the server's limit."""
        with polyvec.connect(rest_server.url) as rest:
            docs = rest.create_collection("docs", 1024, "dot")
            limit = rest.capabilities.max_batch_bytes // 2
            size = len(text.encode())
            count = min(limit // (4096 + 2 * size), rest.capabilities.max_batch_records) // 2
            vectors = np.full((count, 1024), -1.2345678e-30, np.float32)
            ids = [f"r{number}" for number in range(count)]
            docs.upsert(RecordBatch(ids, vectors, [text] * count, [{"k": text}] * count))
            [upsert] = sent(rest_server, "upsert")
            per_byte = int(upsert.headers["content-length"]) / (count * (4096 + 2 * size))
            assert per_byte * limit < rest_server.max_request_bytes


class TestSearches:
    def test_parameters(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert(data.records(30, 4))
        asked = [
            (None, False, models.SearchParams(hnsw_ef=200, exact=False)),
            (None, True, models.SearchParams(exact=True)),
            (F("third") == 1, True, models.SearchParams(exact=True)),
            # the engine knows how many records these leave out
            (F("third") == 1, False, _acorn(None)),
            (F("year") > 1, False, _acorn(None)),
            (F("at") > datetime(2024, 1, 1, tzinfo=UTC), False, _acorn(None)),
            # and not how many this one does
            (F("n") > 1, False, _acorn(1.0)),
            ((F("year") > 1) & ~(F("n") > 1), False, _acorn(1.0)),
        ]
        for filter, exact, expected in asked:
            server.calls.clear()
            docs.query(A, filter=filter, exact=exact, limit=5)
            [search] = searches(server)[0]
            assert search.params is not None
            assert search.params.model_dump(exclude_none=True) == expected.model_dump(exclude_none=True)
            assert search.query in (A, models.NearestQuery(nearest=A))

    def test_explain_shows_what_is_sent(self, docs: QdrantCollection, server: Server) -> None:
        filter = (F("year") >= 2020.5) & ~(F("lang") == "ko")
        docs.scoped("a").query(A, filter=filter, limit=7)
        search = searches(server)[0][0].model_copy(update={"query": None, "with_payload": None, "limit": 7})
        before = len(server.calls)
        explained = docs.scoped("a").explain(filter, limit=7)
        assert len(server.calls) == before
        # over gRPC what is empty and what is absent are the same
        assert models.QueryRequest.model_validate(json.loads(json.dumps(explained.native))) == _bare(search)
        assert len(explained.notes) == 3
        assert len(docs.explain().notes) == 1

    def test_without_a_graph(self, store: QdrantStore, server: Server) -> None:
        flat = store.create_collection("flat", 4, index=FlatIndex())
        flat.upsert(Record("a", A, None, {"n": 1}))
        flat.query(A, filter=F("n") == 1)
        flat.query(A)
        assert [search.params and search.params.exact for [search] in searches(server)] == [True, True]

    def test_a_short_answer_is_asked_for_again_exactly(self, docs: QdrantCollection, server: Server) -> None:
        docs.upsert(data.records(30, 4))
        filter = F("lang") == "ko"
        docs.query_many([A, B], limit=3, filter=filter)
        assert len(searches(server)) == 1
        server.calls.clear()
        found = docs.query_many([A, B], limit=20, filter=filter)
        assert [len(matches_) for matches_ in found] == [10, 10]
        first, second = searches(server)
        assert [search.params and search.params.exact for search in (*first, *second)] == [
            False, False, True, True,
        ]  # fmt: skip
        server.calls.clear()
        assert len(docs.query(A, limit=100)) == 30
        assert len(searches(server)) == 1, "without a filter there is nothing to fall apart"

    def test_the_exact_answer_replaces_the_short_one(
        self, docs: QdrantCollection, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = data.records(30, 4)
        docs.upsert(written)
        complete = engine.query

        def falls_apart(name: str, request: models.QueryRequest) -> list[models.ScoredPoint]:
            found = complete(name, request)
            torn = request.params is not None and not request.params.exact and request.query != whole
            return found[:2] if torn else found

        rows = data.vectors(3, 4, seed=9)
        whole = models.NearestQuery(nearest=(rows[1] / np.linalg.norm(rows[1])).tolist())
        monkeypatch.setattr(engine, "query", falls_apart)
        for vector, matches_ in zip(rows, docs.query_many(rows, filter=F("third") == 1), strict=True):
            assert_best(matches_, truth(written, "cosine", vector, F("third") == 1), limit=10)

    def test_a_score_beyond_float32_is_an_error(self, store: QdrantStore) -> None:
        large = store.create_collection("large", 2, "dot")
        large.upsert([Record("a", [3e30, 1e30]), Record("b", [1, 2])])
        [a, _] = large.get(["a", "b"])
        assert a is not None
        assert np.allclose(np.asarray(a.vector), [3e30, 1e30], rtol=1e-5)
        assert [match.id for match in large.query([1, 1])] == ["a", "b"]
        with pytest.raises(BackendError, match="beyond float32"):
            large.query([1e30, 1e20])


def _bare(search: models.QueryRequest) -> models.QueryRequest:
    """Without what is empty or unset."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            kept = {key: strip(item) for key, item in value.items()}
            return {key: item for key, item in kept.items() if item not in (None, [], False)}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return models.QueryRequest.model_validate(strip(search.model_dump(mode="json", exclude_none=True)))


def _acorn(max_selectivity: float | None) -> models.SearchParams:
    acorn = models.AcornSearchParams(enable=True, max_selectivity=max_selectivity)
    return models.SearchParams(hnsw_ef=200, exact=False, acorn=acorn)


class TestGraphs:
    """With real graphs: filters that leave out most records still find the nearest of the others."""

    COUNT = 4000

    def test_recall_under_filters(self, engine: Engine, rest_server: Server) -> None:
        engine.threshold_kb = 2  # 16 vectors: what follows searches the graph
        rows = data.vectors(self.COUNT, 32, seed=5)
        kinds = np.random.default_rng(5).integers(0, 5, (self.COUNT, 2)).tolist()
        written = [
            Record(f"r{row}", rows[row], None, {"a": a, "b": b, "x": (a * 5 + b) / 7})
            for row, (a, b) in enumerate(kinds)
        ]
        with polyvec.connect(rest_server.url) as store:
            docs = store.create_collection("docs", 32, indexes={"b": int})
            docs.upsert(written)
            assert engine.optimize("docs") > 0.9 * self.COUNT
            for filter in (
                None,
                F("a") == 1,
                (F("a") == 1) & (F("b") == 2),
                ~(F("a") == 1) & (F("b") < 1),
                F("x") < 0.2,
                (F("x") > 1) & (F("x") <= 1.2),
                F("a").is_in([1, 2]) & (F("x") >= 2),
            ):
                kept = sum(matches(filter, record.metadata) for record in written)
                assert 50 < kept <= self.COUNT
                right = total = 0
                for vector in data.vectors(20, 32, seed=6):
                    true = truth(written, "cosine", vector, filter)
                    worst = sorted(true.values())[-10] - 1e-5
                    found = docs.query(vector, filter=filter, limit=10)
                    assert len(found) == 10
                    right += sum(true[match.id] >= worst for match in found)
                    total += 10
                assert right / total >= 0.95, f"{filter}: recall {right / total}"
            exact = docs.query(rows[0], filter=F("a") == 1, exact=True)
            assert_best(exact, truth(written, "cosine", rows[0], F("a") == 1), limit=10)


class TestStrictMode:
    """Qdrant Cloud refuses conditions on fields without an index; then they are indexed first."""

    def test_what_is_indexed_when_it_is_filtered(
        self, store: QdrantStore, server: Server, engine: Engine
    ) -> None:
        engine.strict = True
        docs = store.create_collection("docs", 4)
        written = data.records(30, 4)
        docs.upsert(written)
        assert docs.count() == 30
        assert docs.count(F("lang") == "ko") == 10
        assert len(sent(server, "index")) == 2, "the fields that all filters use are indexed from the start"
        for filter in (F("n") >= 10, (F("half") < 3.3) & ~(F("n") <= 2), (F("n") < 5) | (F("third") > 1)):
            expected = {record.id for record in written if matches(filter, record.metadata)}
            assert 0 < len(expected) < 30
            assert {match.id for match in docs.query(A, filter=filter, limit=30)} == expected
            assert docs.count(filter) == len(expected)
            assert {record.id for record in docs.scan(filter)} == expected
        indexes = len(sent(server, "index"))
        docs.count(F("n") > 20)
        assert len(sent(server, "index")) == indexes, "once is enough"
        docs.delete(filter=F("even") == True)  # noqa: E712
        docs.delete(filter=(F("n") > 20) & (F("new") > 1))
        docs.update_metadata(filter=F("n") > 20.5, set={"new": 1.5})
        docs.delete(filter=F("new") > 1)
        assert {record.id for record in docs.scan()} == {
            record.id for record in written if record.metadata["n"] <= 20 and not record.metadata["even"]
        }

    def test_hints_are_there_from_the_start(
        self, docs: QdrantCollection, server: Server, engine: Engine
    ) -> None:
        engine.strict = True
        before = len(server.calls)
        assert docs.query(A, filter=(F("year") > 2000.5) & (F("at") < datetime(2024, 1, 1, tzinfo=UTC))) == []
        assert not [call for call in server.calls[before:] if call.name in NAMES["index"]]


class TestErrors:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault(401, "Must provide an API key"), AuthenticationError),
            (Fault(403, "Forbidden"), AuthenticationError),
            (Fault(404, "Not found: Collection `docs` doesn't exist!"), CollectionNotFoundError),
            (Fault(404, "Not found: No point with id 7 found"), BackendError),
            (Fault(409, "Wrong input: Collection `docs` already exists!"), CollectionExistsError),
            (Fault(400, "Wrong input: nonsense"), BackendError),
            (Fault(500, "Service internal error: Timeout error: 'count' timed out"), BackendTimeoutError),
            (Fault(408, "Timeout"), BackendTimeoutError),
            (Fault(503, "Service unavailable: recovering"), BackendUnavailableError),
            (Fault(507, "Insufficient storage: disk full"), BackendError),
            (Fault(429, "Rate limiting exceeded: Read rate limit exceeded"), RateLimitedError),
        ],
        ids=lambda value: str(value.status) if isinstance(value, Fault) else value.__name__,
    )
    def test_refusals(
        self, docs: QdrantCollection, server: Server, fault: Fault, error: type[Exception]
    ) -> None:
        server.faults = [fault]
        with pytest.raises(error) as caught:
            docs.count()
        assert type(caught.value) is error
        assert fault.message in str(caught.value)
        assert str(caught.value).startswith("qdrant: count('docs'): ")
        assert caught.value.__cause__ is not None
        assert docs.count() == 0, "the connection is usable"

    def test_retry_after(self, docs: QdrantCollection, server: Server) -> None:
        server.faults = [Fault(429, "Rate limiting exceeded", {"retry-after": "7"})]
        with pytest.raises(RateLimitedError, match="Rate limiting exceeded") as caught:
            docs.upsert(Record("a", A))
        assert caught.value.retry_after_s == 7
        assert docs.count() == 0

    def test_what_is_retryable_is_tried_again(self, docs: QdrantCollection, server: Server) -> None:
        docs.store.retry = RetryPolicy(attempts=3, first_delay_s=0.001)
        server.faults = [Fault(503, "recovering"), Fault(503, "recovering")]
        assert docs.upsert(Record("a", A)).written == 1
        assert len(sent(server, "upsert")) == 3
        server.faults = [Fault(400, "nonsense")]
        with pytest.raises(BackendError, match="nonsense"):
            docs.upsert(Record("a", A))
        assert len(sent(server, "upsert")) == 4

    def test_no_answer_within_the_timeout(self, server: Server) -> None:
        with polyvec.connect(server.url, timeout_s=1) as store:
            docs = store.create_collection("docs", 4)
            server.faults = [Fault(hang=True)]
            started = datetime.now(UTC)
            with pytest.raises(BackendTimeoutError):
                docs.count()
            assert 0.9 < (datetime.now(UTC) - started).total_seconds() < 5
            assert docs.count() == 0

    def test_a_server_that_goes_away(self, docs: QdrantCollection, rest_server: Server) -> None:
        with polyvec.connect(rest_server.url) as store:
            store.create_collection("gone", 4)
            rest_server.faults = [Fault(502, raw="<html>Bad gateway</html>")]
            store.retry = RetryPolicy(attempts=1)  # type: ignore[attr-defined]
            with pytest.raises(BackendUnavailableError, match="Bad gateway"):
                store.collection("gone")

    def test_a_wrong_dimension_is_the_servers_word(self, store: QdrantStore, docs: QdrantCollection) -> None:
        """Another process dropped the collection and made it anew."""
        store.drop_collection("docs")
        store.create_collection("docs", 3)
        with pytest.raises(BackendError, match="expected dim: 3, got 4"):
            docs.upsert(Record("a", A))


def test_threads_share_a_store(docs: QdrantCollection) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(10):
                mine = Record(f"r{number}-{step}", data.vectors(1, 4, seed=step)[0], None, {"n": number})
                docs.upsert(mine)
                assert docs.count(F("n") == number) == step + 1
                assert docs.get([mine.id])[0] == mine or docs.spec.metric == "cosine"
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert docs.count() == 60
