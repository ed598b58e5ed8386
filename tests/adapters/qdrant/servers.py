"""The two faces of `engine`, REST and gRPC, on loopback. They keep what they are sent, and fail when told."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
from pydantic import TypeAdapter, ValidationError
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.adapters.qdrant.engine import Engine, RefusedError


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        name: `PUT /collections/{name}/points` with the collection's name left out, or `Points.Upsert`.
        collection: The collection's name, "" where there is none.
        body: The JSON body or the message.
        options: Query parameters.
        headers: Headers in lower case, or gRPC metadata.
    """

    name: str
    collection: str
    body: Any
    options: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """An answer instead of the right one.

    Attributes:
        status: HTTP status; over gRPC the code that goes with it.
        message: The server's words.
        headers: More headers, or trailing metadata.
        raw: The body as it is, in the place of Qdrant's JSON.
        hang: Do not answer at all.
    """

    status: int = 500
    message: str = "broken"
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: str | None = None
    hang: bool = False


class Server:
    """What both faces share.

    Attributes:
        engine: What answers.
        url: Of the store, for `polyvec.connect`.
        calls: What was asked, oldest first.
        faults: The next answers; when they are used up, right ones follow.
        key: The API key that it wants, if any.
        max_request_bytes: Over REST, the largest body.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.url = ""
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.key: str | None = None
        self.max_request_bytes = 32 * 2**20
        self.stopping = threading.Event()

    def named(self, name: str) -> list[Call]:
        """Return the calls of this name."""
        return [call for call in self.calls if call.name == name]

    def take(self, call: Call) -> Fault | None:
        """Keep a call; return the fault that is its answer, if it is one."""
        self.calls.append(call)
        if self.key is not None and call.headers.get("api-key") != self.key and call.name not in _OPEN:
            return Fault(401, "Must provide an API key or an Authorization bearer token", raw="Unauthorized")
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault.hang:
            self.stopping.wait(30)
        return fault


_OPEN = ("GET /", "HealthCheck")
"""What is answered without a key."""


# REST ---------------------------------------------------------------------------------------------------

_UPDATES: TypeAdapter[Any] = TypeAdapter(models.UpdateOperation)
_SELECTOR: TypeAdapter[Any] = TypeAdapter(models.PointsSelector)
_DONE = {"operation_id": 0, "status": "completed"}


def _points(body: Any) -> list[models.PointStruct]:
    if "points" in body:
        return models.PointsList.model_validate(body).points
    batch = models.PointsBatch.model_validate(body).batch
    assert isinstance(batch.vectors, list)
    assert batch.payloads is not None
    return [
        models.PointStruct.model_validate({"id": id, "vector": vector, "payload": payload})
        for id, vector, payload in zip(batch.ids, batch.vectors, batch.payloads, strict=True)
    ]


def _answer(face: Server, call: Call, size: int) -> Any:
    """Return the body of the answer to a REST request."""
    if size > face.max_request_bytes:
        message = f"Payload error: JSON payload ({size} bytes) is larger than allowed"
        raise RefusedError(400, f"{message} (limit: {face.max_request_bytes} bytes).")
    if call.name == "GET /":
        return {"title": "qdrant", "version": face.engine.version}
    return {"result": _result(face.engine, call), "status": "ok", "time": 0.0}


def _result(engine: Engine, call: Call) -> Any:
    name, body = call.collection, call.body
    match call.name:
        case "GET /collections":
            return {"collections": [{"name": name} for name in engine.names()]}
        case "GET /collections/{}":
            return _dump(engine.info(name))
        case "PUT /collections/{}":
            engine.create(name, models.CreateCollection.model_validate(body))
            return True
        case "DELETE /collections/{}":
            return engine.drop(name)
        case "PUT /collections/{}/index":
            request = models.CreateFieldIndex.model_validate(body)
            engine.index(name, request.field_name, request.field_schema)
            return _DONE
        case "PUT /collections/{}/points":
            engine.upsert(name, _points(body))
            return _DONE
        case "POST /collections/{}/points":
            ids = models.PointRequest.model_validate(body)
            return list(map(_dump, engine.retrieve(name, ids.ids, ids.with_payload, ids.with_vector)))
        case "POST /collections/{}/points/query/batch":
            searches = models.QueryRequestBatch.model_validate(body).searches
            return [{"points": list(map(_dump, engine.query(name, search)))} for search in searches]
        case "POST /collections/{}/points/scroll":
            scroll = models.ScrollRequest.model_validate(body)
            found, following = engine.scroll(
                name,
                scroll.filter,
                scroll.limit or 10,
                scroll.offset,
                scroll.with_payload,
                scroll.with_vector,
            )
            return {"points": list(map(_dump, found)), "next_page_offset": following}
        case "POST /collections/{}/points/count":
            count = models.CountRequest.model_validate(body)
            assert count.exact is not False
            return {"count": engine.count(name, count.filter)}
        case "POST /collections/{}/points/delete":
            engine.delete(name, _SELECTOR.validate_python(body))
            return _DONE
        case "POST /collections/{}/points/batch":
            operations = [_UPDATES.validate_python(operation) for operation in body["operations"]]
            return [_change(engine, name, operation) for operation in operations]
    raise RefusedError(404, "")


def _change(engine: Engine, name: str, operation: Any) -> dict[str, Any]:
    assert isinstance(operation, models.SetPayloadOperation)
    engine.set_payload(name, operation.set_payload)
    return _DONE


def _dump(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True) | (
        {"score": model.score if math.isfinite(model.score) else None} if hasattr(model, "score") else {}
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    face: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        steps = [unquote(step) for step in parts.path.split("/")]
        collection = steps[2] if len(steps) > 2 else ""
        place = "/".join([*steps[:2], *(["{}"] if collection else []), *steps[3:]]) or "/"
        call = Call(
            f"{self.command} {place}",
            collection,
            json.loads(body) if body else None,
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
        )
        fault = self.face.take(call)
        if fault is not None:
            self.respond(fault.status, fault.raw or _failure(fault.message), fault.headers)
            return
        try:
            with self.face.engine.lock:
                answer = _answer(self.face, call, len(body))
            self.respond(200, json.dumps(answer))
        except RefusedError as refusal:
            self.respond(refusal.status, _failure(refusal.message))
        except ValidationError as error:
            self.respond(422, _failure(f"Format error in JSON body: {error}"))

    do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  # named by the standard library

    def respond(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _failure(message: str) -> str:
    return json.dumps({"status": {"error": message}, "time": 0.0})


@contextmanager
def rest(engine: Engine) -> Iterator[Server]:
    """Serve REST."""
    face = Server(engine)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"face": face}))
    server.daemon_threads = True
    face.url = f"qdrant://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield face
    finally:
        face.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


# gRPC ---------------------------------------------------------------------------------------------------

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def _filter_of(request: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


def _done() -> Any:
    return messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.Completed)


def _schema(request: Any) -> Any:
    kind: str = messages.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
    if not request.HasField("field_index_params"):
        return models.PayloadSchemaType(kind)
    assert kind == "keyword"
    return GrpcToRest.convert_keyword_index_params(request.field_index_params.keyword_index_params)


def _reply(engine: Engine, method: str, request: Any) -> Any:
    """Return the answer to a gRPC request."""
    to, back = GrpcToRest, RestToGrpc
    name = getattr(request, "collection_name", "")
    match method:
        case "HealthCheck":
            return messages.HealthCheckReply(title="qdrant", version=engine.version)
        case "Collections.List":
            descriptions = [messages.CollectionDescription(name=name) for name in engine.names()]
            return messages.ListCollectionsResponse(collections=descriptions)
        case "Collections.Get":
            return messages.GetCollectionInfoResponse(result=back.convert_collection_info(engine.info(name)))
        case "Collections.Create":
            config = models.CreateCollection(
                vectors=to.convert_vectors_config(request.vectors_config),
                hnsw_config=to.convert_hnsw_config_diff(request.hnsw_config),
                metadata=to.convert_payload(request.metadata),
            )
            engine.create(name, config)
            return messages.CollectionOperationResponse(result=True)
        case "Collections.Delete":
            return messages.CollectionOperationResponse(result=engine.drop(name))
        case "Points.CreateFieldIndex":
            engine.index(name, request.field_name, _schema(request))
            return messages.PointsOperationResponse(result=_done())
        case "Points.Upsert":
            engine.upsert(name, [to.convert_point_struct(point) for point in request.points])
            return messages.PointsOperationResponse(result=_done())
        case "Points.Get":
            found = engine.retrieve(
                name,
                [to.convert_point_id(id) for id in request.ids],
                to.convert_with_payload_selector(request.with_payload),
                request.with_vectors.enable,
            )
            return messages.GetResponse(result=[back.convert_retrieved_point(point) for point in found])
        case "Points.QueryBatch":
            batches = [
                messages.BatchResult(result=[back.convert_scored_point(point) for point in points])
                for points in (
                    engine.query(name, to.convert_query_points(query)) for query in request.query_points
                )
            ]
            return messages.QueryBatchResponse(result=batches)
        case "Points.Scroll":
            page, following = engine.scroll(
                name,
                _filter_of(request),
                request.limit,
                to.convert_point_id(request.offset) if request.HasField("offset") else None,
                to.convert_with_payload_selector(request.with_payload),
                request.with_vectors.enable,
            )
            return messages.ScrollResponse(
                result=[back.convert_retrieved_point(point) for point in page],
                next_page_offset=None if following is None else messages.PointId(uuid=following),
            )
        case "Points.Count":
            assert request.exact
            count = messages.CountResult(count=engine.count(name, _filter_of(request)))
            return messages.CountResponse(result=count)
        case "Points.Delete":
            engine.delete(name, to.convert_points_selector(request.points))
            return messages.PointsOperationResponse(result=_done())
        case "Points.UpdateBatch":
            for operation in request.operations:
                _change(engine, name, to.convert_points_update_operation(operation))
            return messages.UpdateBatchResponse(result=[_done() for _ in request.operations])
    raise RefusedError(400, f"the stand-in has no {method}")


def _servicer(kind: type, face: Server, prefix: str) -> Any:
    """Return a servicer whose every method asks the engine."""

    def method(name: str) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
        called = f"{prefix}{name}"

        def ask(_: Any, request: Any, context: grpc.ServicerContext) -> Any:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            fault = face.take(Call(called, getattr(request, "collection_name", ""), request, {}, headers))
            if fault is not None:
                context.set_trailing_metadata(tuple(fault.headers.items()))
                _abort(context, fault.status, fault.message)
            try:
                with face.engine.lock:
                    return _reply(face.engine, called, request)
            except RefusedError as refusal:
                _abort(context, refusal.status, refusal.message)

        return ask

    methods = {name: method(name) for name in vars(kind) if not name.startswith("_")}
    return type(kind.__name__, (kind,), methods)()


def _abort(context: grpc.ServicerContext, status: int, message: str) -> NoReturn:
    context.abort(_CODES[status], message)
    raise AssertionError("abort raises")


@contextmanager
def over_grpc(engine: Engine) -> Iterator[Server]:
    """Serve gRPC."""
    face = Server(engine)
    with ThreadPoolExecutor(8) as pool:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(pool, options=unlimited)
        generated: Any = messages  # without types
        generated.add_QdrantServicer_to_server(_servicer(messages.QdrantServicer, face, ""), server)
        generated.add_CollectionsServicer_to_server(
            _servicer(messages.CollectionsServicer, face, "Collections."), server
        )
        points = _servicer(messages.PointsServicer, face, "Points.")
        generated.add_PointsServicer_to_server(points, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        # nothing answers REST there
        face.url = f"qdrant://127.0.0.1:1?prefer_grpc=true&grpc_port={port}"
        try:
            yield face
        finally:
            face.stopping.set()
            server.stop(0).wait()


FACES = {"rest": rest, "grpc": over_grpc}
