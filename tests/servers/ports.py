"""The addresses of the services in `docker-compose.yml`."""

COMPOSE_URLS: dict[str, str] = {
    "chroma": "chroma://127.0.0.1:8000",
    "elasticsearch": "elasticsearch://127.0.0.1:9200",
    "milvus": "milvus://127.0.0.1:19530",
    "pinecone": "pinecone://127.0.0.1:5080",
    "qdrant": "qdrant://127.0.0.1:6333?grpc_port=6334",
    "redis": "redis://127.0.0.1:6379",
    "typesense": "typesense://:polyvec-dev@127.0.0.1:8108",
    "weaviate": "weaviate://127.0.0.1:8080?grpc_port=50051",
}
"""The URL of each service as the compose file publishes it when no variable moves it."""
