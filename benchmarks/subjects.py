"""The same work, done by polyvec and by the simplest code that a vendor's own documentation shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polyvec
from polyvec import F
from polyvec.types import FloatArray, RecordBatch


class Subject(NamedTuple):
    """What is timed: loading everything, one query, one filtered query (year >= 2020).

    Between loading and queries, untimed, `settle` waits until what was loaded is indexed.
    """

    load: Callable[[], None]
    query: Callable[[Any], Sequence[str]]
    filtered: Callable[[Any], Sequence[str]]
    settle: Callable[[], None] = lambda: None


def metadata(row: int) -> dict[str, Any]:
    """Return the metadata of a record: five keys, all of kinds that every engine has."""
    return {
        "year": 2000 + row % 26,
        "lang": ("en", "ko", "de")[row % 3],
        "draft": row % 2 == 0,
        "score": row / 7,
        "author": f"author {row % 100}",
    }


class Data(NamedTuple):
    """10,000 x 512 or as asked."""

    ids: list[str]
    vectors: FloatArray
    texts: list[str]
    metadatas: list[dict[str, Any]]

    @classmethod
    def of(cls, vectors: FloatArray) -> Data:
        rows = range(len(vectors))
        texts = [f"passage {row} of the benchmark, some words long" for row in rows]
        return cls([f"id-{row}" for row in rows], vectors, texts, [metadata(row) for row in rows])

    def parts(self, size: int) -> Iterator[slice]:
        for start in range(0, len(self.ids), size):
            yield slice(start, start + size)


def through_polyvec(url: str, data: Data) -> Iterator[Subject]:
    """Time polyvec on any store."""
    with polyvec.connect(url, timeout_s=600.0) as store:
        collection = store.create_collection("bench", data.vectors.shape[1], "cosine")
        yield Subject(
            lambda: (collection.upsert(RecordBatch(*data)), None)[1],
            lambda vector: [match.id for match in collection.query(vector)],
            lambda vector: [match.id for match in collection.query(vector, filter=F("year") >= 2020)],
            collection.flush,
        )


def through_chromadb(client: Any, data: Data) -> Iterator[Subject]:
    """Time chromadb as its documentation shows it: documents, metadatas and embeddings, batch by batch."""
    from chromadb.api.types import QueryResult

    # the graph as polyvec chooses it, so that both search equally well
    configuration = {"hnsw": {"space": "cosine", "ef_construction": 64, "ef_search": 200}}
    collection = client.create_collection("bench", configuration=configuration, embedding_function=None)

    def load() -> None:
        for part in data.parts(1000):
            collection.upsert(
                ids=data.ids[part],
                embeddings=data.vectors[part],
                documents=data.texts[part],
                metadatas=data.metadatas[part],
            )

    def ids(found: QueryResult) -> Sequence[str]:
        return found["ids"][0]

    yield Subject(
        load,
        lambda vector: ids(collection.query(query_embeddings=[vector], n_results=10)),
        lambda vector: ids(
            collection.query(query_embeddings=[vector], n_results=10, where={"year": {"$gte": 2020}})
        ),
    )


def through_qdrant_client(client: Any, data: Data) -> Iterator[Subject]:
    """Time qdrant-client as its documentation shows it: points with payloads, batch by batch."""
    from qdrant_client import models

    size = data.vectors.shape[1]
    client.create_collection(
        "bench", vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE)
    )
    recent = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(gte=2020))])

    def load() -> None:
        for part in data.parts(500):
            rows = range(*part.indices(len(data.ids)))
            client.upsert(
                "bench",
                [
                    models.PointStruct(
                        id=row,
                        vector=data.vectors[row].tolist(),
                        payload={"text": data.texts[row], **data.metadatas[row]},
                    )
                    for row in rows
                ],
            )

    def query(vector: Any, filter: Any = None) -> list[str]:
        found = client.query_points("bench", query=vector.tolist(), query_filter=filter, limit=10)
        return [data.ids[point.id] for point in found.points]

    yield Subject(load, query, lambda vector: query(vector, recent))


def through_redis_py(url: str, data: Data) -> Iterator[Subject]:
    """Time redis-py as its documentation shows it: hashes in pipelines, and its classes for search."""
    import redis
    from redis.commands.search.field import Field, NumericField, TagField, VectorField
    from redis.commands.search.index_definition import IndexDefinition
    from redis.commands.search.query import Query

    client = redis.Redis.from_url(url)
    graph = {
        "TYPE": "FLOAT32", "DIM": data.vectors.shape[1], "DISTANCE_METRIC": "COSINE",
        "M": 16, "EF_CONSTRUCTION": 200,
    }  # fmt: skip
    fields: list[Field] = [VectorField("vector", "HNSW", graph)]
    fields += [NumericField("year"), NumericField("score")]
    fields += [TagField("lang"), TagField("draft"), TagField("author")]
    index = client.ft("bench")
    index.create_index(fields, definition=IndexDefinition(prefix=["bench:"]))  # type: ignore[no-untyped-call]

    def load() -> None:
        for part in data.parts(500):
            pipeline = client.pipeline(transaction=False)
            for row in range(*part.indices(len(data.ids))):
                values: dict[Any, Any] = data.metadatas[row] | {"draft": str(data.metadatas[row]["draft"])}
                values |= {"vector": data.vectors[row].tobytes(), "text": data.texts[row]}
                pipeline.hset(f"bench:{data.ids[row]}", mapping=values)
            pipeline.execute()

    def query(vector: Any, condition: str = "*") -> list[str]:
        # EF_RUNTIME as polyvec chooses it, so that both search equally well
        wanted = (
            Query(f"{condition}=>[KNN 10 @vector $vector EF_RUNTIME 200 AS distance]")
            .sort_by("distance")
            .return_fields("distance", "text", "year", "lang", "draft", "score", "author")
            .dialect(2)
        )
        found = index.search(wanted, {"vector": vector.tobytes()})
        return [document.id.removeprefix("bench:") for document in found.docs]

    yield Subject(load, query, lambda vector: query(vector, "(@year:[2020 +inf])"))
    client.close()


def through_typesense(url: str, data: Data) -> Iterator[Subject]:
    """Time the driver of Typesense as its documentation shows it: documents imported batch by batch.

    https://typesense.org/docs/0.24.1/api/vector-search.html; with as many candidates (k) as polyvec asks for.
    """
    from typesense import Client

    found = polyvec.config.parse_url(url)
    host, port = found.hosts[0]
    client = Client(
        {
            "nodes": [{"host": host, "port": port or 8108, "protocol": "http"}],
            "api_key": found.password or "",
            "connection_timeout_seconds": 600,
        }
    )
    kinds = {"year": "int32", "lang": "string", "draft": "bool", "score": "float", "author": "string"}
    fields: list[Any] = [{"name": "vec", "type": "float[]", "num_dim": data.vectors.shape[1]}]
    fields += [{"name": name, "type": kind} for name, kind in kinds.items()]
    client.collections.create({"name": "bench", "fields": fields})
    documents = client.collections["bench"].documents

    def load() -> None:
        for part in data.parts(1000):
            documents.import_(
                [
                    {"id": id, "vec": vector.tolist(), "text": text, **metadata}
                    for id, vector, text, metadata in zip(
                        data.ids[part],
                        data.vectors[part],
                        data.texts[part],
                        data.metadatas[part],
                        strict=True,
                    )
                ],
                {"action": "upsert"},
            )

    def query(vector: Any, **options: str) -> list[str]:
        text = ",".join(map(str, vector.tolist()))
        search: Any = {"collection": "bench", "q": "*", "vector_query": f"vec:([{text}], k:300)"}
        search |= {"exclude_fields": "vec", **options}
        answer = client.multi_search.perform({"searches": [search]}, {})["results"][0]
        return [hit["document"]["id"] for hit in answer["hits"]]

    yield Subject(load, query, lambda vector: query(vector, filter_by="year:>=2020"))


def through_pymilvus(uri: str, data: Data) -> Iterator[Subject]:
    """Time pymilvus as its documentation shows it: dicts, batch by batch, with dynamic fields.

    https://milvus.io/docs/quickstart.md, https://milvus.io/docs/insert-update-delete.md#Upsert-Data.
    """
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(uri, timeout=600)
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=data.vectors.shape[1])
    index = client.prepare_index_params()
    # the graph as polyvec chooses it, so that both search equally well
    index.add_index(
        "vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200}
    )
    client.create_collection("bench", schema=schema, index_params=index)

    def load() -> None:
        for part in data.parts(1000):
            rows = [
                {"id": id, "vector": vector, "text": text, **metadata}
                for id, vector, text, metadata in zip(
                    data.ids[part], data.vectors[part], data.texts[part], data.metadatas[part], strict=True
                )
            ]
            client.upsert("bench", rows)
        client.query("bench", 'id == ""', consistency_level="Strong")  # until all of it is seen

    def settle() -> None:
        client.flush("bench")
        while not uri.endswith(".db") and not client.list_loaded_segments("bench"):
            time.sleep(0.1)

    def query(vector: Any, **options: Any) -> list[str]:
        search = {"params": {"ef": 200}}
        fields = ["text", "year", "lang", "draft", "score", "author"]
        [found] = client.search(
            "bench", [vector], limit=10, search_params=search, output_fields=fields, **options
        )
        return [hit["id"] for hit in found]

    yield Subject(load, query, lambda vector: query(vector, filter="year >= 2020"), settle)
    client.close()


def through_pinecone(url: str, data: Data) -> Iterator[Subject]:
    """Time the SDK of Pinecone as its documentation shows it: vectors in batches, several under way.

    https://docs.pinecone.io/guides/index-data/upsert-data#upsert-in-batches. Against the same emulator as
    polyvec, which says what polyvec's encoding costs, and nothing of the service.
    """
    from pinecone import Pinecone, ServerlessSpec

    found = polyvec.config.parse_url(url)
    host, port = found.hosts[0]
    client = Pinecone(api_key=found.password, host=f"http://{host}:{port}", timeout=600)
    client.indexes.create(
        name="bench",
        dimension=data.vectors.shape[1],
        metric="cosine",
        spec=ServerlessSpec(cloud="aws", region="us-east-1"),
        timeout=-1,
    )
    index = client.index("bench")

    def load() -> None:
        vectors = [
            {"id": id, "values": vector.tolist(), "metadata": {"text": text, **metadata}}
            for id, vector, text, metadata in zip(
                data.ids, data.vectors, data.texts, data.metadatas, strict=True
            )
        ]
        index.upsert(vectors=vectors, batch_size=100, show_progress=False)
        while index.describe_index_stats().total_vector_count < len(vectors):
            pass  # as its page on freshness says

    def query(vector: Any, **options: Any) -> list[str]:
        found = index.query(vector=vector.tolist(), top_k=10, include_metadata=True, **options)
        return [match.id for match in found.matches]

    yield Subject(load, query, lambda vector: query(vector, filter={"year": {"$gte": 2020}}))
    index.close()
    client.close()


@contextmanager
def subject(name: str, *, native: bool, folder: Path, data: Data) -> Iterator[Subject]:
    """Give the subject of a backend, on an empty database in `folder`."""
    match name, native:
        case "chroma", True:
            import chromadb

            runs = through_chromadb(chromadb.PersistentClient(str(folder)), data)
        case "qdrant", True:
            from qdrant_client import QdrantClient

            runs = through_qdrant_client(QdrantClient(path=str(folder)), data)
        case "milvus-lite", _:
            path = f"{folder}/data.db"
            runs = through_pymilvus(path, data) if native else through_polyvec(f"milvus:{path}", data)
        case "milvus", _:
            from tests.servers.milvus import start_milvus

            with start_milvus(folder / "data", folder / "log") as url:
                uri = url.replace("milvus://", "http://")
                yield from through_pymilvus(uri, data) if native else through_polyvec(url, data)
            return
        case "pinecone", _:
            from tests.servers.pinecone.start import start_pinecone

            with start_pinecone(folder / "log", data=folder / "data") as url:
                yield from through_pinecone(url, data) if native else through_polyvec(url, data)
            return
        case "redis", _:
            from tests.servers.redis import start_redis

            with start_redis(folder / "data", folder / "log") as url:
                yield from through_redis_py(url, data) if native else through_polyvec(url, data)
            return
        case "typesense", _:
            from tests.servers.typesense import start_typesense

            with start_typesense(folder / "data", folder / "log") as url:
                yield from through_typesense(url, data) if native else through_polyvec(url, data)
            return
        case _, False:
            url = "memory://" if name == "memory" else f"{name}:{folder}"
            runs = through_polyvec(url, data)
        case _:
            raise SystemExit(f"no native client is written down for {name}")
    yield from runs
