"""`docker-compose.yml` keeps its promises; each check is also shown a file that breaks it."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest
import yaml

from tests.servers.ports import COMPOSE_URLS

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(Path(__file__).with_name("compose.schema.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

# in process; the cloud's name for Milvus
WITHOUT_SERVICE = {"memory", "zilliz"}
# nothing in the image can ask the engine
WITHOUT_PROBE = {"pinecone"}

VARIABLE = re.compile(r"\$\{(?P<name>[^}:]+)(:-(?P<default>[^}]*))?\}")
DEFAULT_PORTS = re.compile(r":-(?P<first>\d+)(-(?P<last>\d+))?\}")


def schema_problems(compose: dict[str, Any]) -> list[str]:
    """Return where the file leaves the part of the format that it may use."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)]


def variable_problems(compose: dict[str, Any]) -> list[str]:
    """Return the variables with another service's name, without a default, or with two."""
    problems = []
    defaults: dict[str, str] = {}
    for service, body in compose["services"].items():
        prefix = f"POLYVEC_{service.upper()}_"
        for found in VARIABLE.finditer(json.dumps(body)):
            name, default = found["name"], found["default"]
            if not name.startswith(prefix):
                problems.append(f"{service}: {name} does not start with {prefix}")
            if not default:
                problems.append(f"{service}: {name} has no default")
            elif defaults.setdefault(name, default) != default:
                problems.append(f"{service}: {name} has two defaults")
    return problems


def override_problems(compose: dict[str, Any]) -> list[str]:
    """Return the images and host ports that no variable of their own replaces."""
    problems = []
    ports_of: Counter[str] = Counter()
    for service, body in compose["services"].items():
        prefix = f"POLYVEC_{service.upper()}_"
        if not body["image"].startswith(f"${{{prefix}IMAGE:-"):
            problems.append(f"{service}: {body['image']} is not {prefix}IMAGE")
        for port in body["ports"]:
            variable = re.match(rf"127\.0\.0\.1:\$\{{({prefix}(\w+_)?PORTS?):-", port)
            if variable is None:
                problems.append(f"{service}: {port} is not a {prefix}PORT on loopback")
            else:
                ports_of[variable[1]] += 1
    return problems + [f"{name} is two host ports" for name, n in ports_of.items() if n > 1]


def host_ports(body: dict[str, Any]) -> list[int]:
    """Return the ports that a service publishes by default, each as often as it does so."""
    ports: list[int] = []
    for port in body["ports"]:
        if found := DEFAULT_PORTS.search(port):
            first = int(found["first"])
            ports += range(first, int(found["last"] or first) + 1)
    return ports


def clash_problems(compose: dict[str, Any]) -> list[str]:
    """Return the host ports that are published more than once."""
    uses = Counter(port for body in compose["services"].values() for port in host_ports(body))
    return [f"port {port} is published {n} times" for port, n in uses.items() if n > 1]


def probe_problems(compose: dict[str, Any]) -> list[str]:
    """Return the services whose health nothing watches."""
    unwatched = {
        service for service, body in compose["services"].items() if "test" not in body.get("healthcheck", {})
    }
    return [f"{service}: no healthcheck" for service in sorted(unwatched - WITHOUT_PROBE)]


def table_problems(compose: dict[str, Any], urls: dict[str, str]) -> list[str]:
    """Return where the services and the table of their addresses disagree."""
    services = compose["services"]
    lone = services.keys() ^ urls.keys()
    problems = [f"{service}: only in the file or only in the table" for service in sorted(lone)]
    for service in services.keys() & urls.keys():
        problems += address_problems(service, services[service], urls[service])
    return problems


def address_problems(service: str, body: dict[str, Any], url: str) -> list[str]:
    """Return why `url` would not reach the service as it is published by default."""
    parts = urlsplit(url)
    ports = {parts.port, *(int(port) for port in parse_qs(parts.query).get("grpc_port", []))}
    problems = []
    if (parts.scheme, parts.hostname) != (service, "127.0.0.1"):
        problems.append(f"{service}: {url} is not {service} on loopback")
    if missing := ports - set(host_ports(body)):
        problems.append(f"{service}: {url} has ports that are not published: {missing}")
    variables = VARIABLE.finditer(json.dumps(body.get("environment", {})))
    keys = {found["default"] for found in variables if found["name"].endswith("_API_KEY")}
    if keys - {parts.password}:
        problems.append(f"{service}: {url} does not have the default key")
    return problems


def problems_of(compose: dict[str, Any], urls: dict[str, str] = COMPOSE_URLS) -> list[str]:
    """Return all that is wrong with a file."""
    return [
        *schema_problems(compose),
        *variable_problems(compose),
        *override_problems(compose),
        *clash_problems(compose),
        *probe_problems(compose),
        *table_problems(compose, urls),
    ]


def doctored(service: str, key: str, value: Any) -> dict[str, Any]:
    """Return a copy of the file in which one key of a service is set, or dropped for None."""
    compose = copy.deepcopy(COMPOSE)
    compose["services"].setdefault(service, {"ports": [], "image": ""})[key] = value
    if value is None:
        del compose["services"][service][key]
    return compose


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_object_of_the_schema_is_closed() -> None:
    objects = [SCHEMA, SCHEMA["properties"]["services"], *SCHEMA["$defs"].values()]
    typed = [node for node in objects if node.get("type") == "object"]
    assert len(typed) == 6
    assert all(node["additionalProperties"] is False for node in typed)


def test_the_file_has_no_problem() -> None:
    assert problems_of(COMPOSE) == []


def test_every_adapter_has_a_service() -> None:
    stores = (ROOT / "adapters" / "polyvec_adapters").glob("*/store.py")
    adapters = {store.parent.name for store in stores}
    assert adapters - WITHOUT_SERVICE <= COMPOSE["services"].keys()


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_a_comment_says_whether_the_tests_run_that_engine(service: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    comment = re.search(rf"\n\n?((?:  #.*\n)+)  {service}:\n", text)
    assert comment
    assert re.match(r"  # In the tests: (yes|no)\b", comment[1])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("chromadb/chroma:1.5.9", "is not POLYVEC_CHROMA_IMAGE"),
        ("${POLYVEC_CHROMA_IMAGE}", "POLYVEC_CHROMA_IMAGE has no default"),
        ("${POLYVEC_REDIS_IMAGE:-chromadb/chroma:1.5.9}", "does not start with POLYVEC_CHROMA_"),
        ("${POLYVEC_CHROMA_IMAGE:-chromadb/chroma:latest}", "$.services.chroma.image: "),
        ("${POLYVEC_CHROMA_IMAGE:-chromadb/chroma:1.5}", "$.services.chroma.image: "),
        ("${POLYVEC_CHROMA_IMAGE:-chromadb/chroma}", "$.services.chroma.image: "),
        (None, "'image' is a required property"),
    ],
)
def test_a_loose_image_is_caught(value: str | None, problem: str) -> None:
    compose = doctored("chroma", "image", value)
    problems = schema_problems(compose)
    if value is not None:
        problems += override_problems(compose) + variable_problems(compose)
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("8000:8000", "is not a POLYVEC_CHROMA_PORT on loopback"),
        ("127.0.0.1:8000:8000", "is not a POLYVEC_CHROMA_PORT on loopback"),
        ("${POLYVEC_CHROMA_PORT:-8000}:8000", "is not a POLYVEC_CHROMA_PORT on loopback"),
        ("0.0.0.0:${POLYVEC_CHROMA_PORT:-8000}:8000", "$.services.chroma.ports[0]: "),
        ("127.0.0.1:${POLYVEC_CHROMA_PORT}:8000", "POLYVEC_CHROMA_PORT has no default"),
        ("127.0.0.1:${POLYVEC_REDIS_PORT:-8000}:8000", "is not a POLYVEC_CHROMA_PORT on loopback"),
        ("127.0.0.1:${POLYVEC_CHROMA_PORT:-8080}:8000", "port 8080 is published 2 times"),
        ("127.0.0.1:${POLYVEC_CHROMA_PORT:-5085}:8000", "port 5085 is published 2 times"),
        ("127.0.0.1:${POLYVEC_CHROMA_PORT:-8001}:8000", "has ports that are not published: {8000}"),
    ],
)
def test_a_loose_port_is_caught(value: str, problem: str) -> None:
    problems = problems_of(doctored("chroma", "ports", [value]))
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize(
    ("service", "key", "value", "problem"),
    [
        ("redis", "healthcheck", None, "redis: no healthcheck"),
        ("redis", "healthcheck", {"disable": True}, "redis: no healthcheck"),
        ("redis", "healthcheck", {"test": ["CMD", "true"]}, "$.services.redis.healthcheck: "),
        ("redis", "healthcheck", {"test": "redis-cli ping"}, "$.services.redis.healthcheck: "),
        ("redis", "volumes", ["data:/data"], "'volumes' was unexpected"),
        ("redis", "command", "redis-server", "$.services.redis.command: "),
        ("weaviate", "environment", {"DISABLE_TELEMETRY": True}, "True is not of type 'string'"),
        ("milvus", "mem_limit", "lots", "'lots' does not match"),
        ("newdb", "image", "${POLYVEC_NEWDB_IMAGE:-new/db:1.0.0}", "newdb: only in the file"),
        (
            "typesense",
            "environment",
            {"TYPESENSE_API_KEY": "${POLYVEC_TYPESENSE_API_KEY:-other}"},
            "does not have the default key",
        ),
        (
            "pinecone",
            "environment",
            {"PORT": "${POLYVEC_PINECONE_PORT:-5070}"},
            "POLYVEC_PINECONE_PORT has two defaults",
        ),
        (
            "qdrant",
            "ports",
            [
                "127.0.0.1:${POLYVEC_QDRANT_PORT:-6333}:6333",
                "127.0.0.1:${POLYVEC_QDRANT_PORT:-6334}:6334",
            ],
            "POLYVEC_QDRANT_PORT is two host ports",
        ),
    ],
)
def test_a_broken_service_is_caught(service: str, key: str, value: Any, problem: str) -> None:
    problems = problems_of(doctored(service, key, value))
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize(
    ("service", "url", "problem"),
    [
        ("redis", "redis://localhost:6379", "is not redis on loopback"),
        ("redis", "valkey://127.0.0.1:6379", "is not redis on loopback"),
        ("redis", "redis://127.0.0.1", "has ports that are not published: {None}"),
        ("qdrant", "qdrant://127.0.0.1:6333?grpc_port=6335", "not published: {6335}"),
        ("typesense", "typesense://127.0.0.1:8108", "does not have the default key"),
        ("newdb", "newdb://127.0.0.1:1", "newdb: only in the file or only in the table"),
    ],
)
def test_a_wrong_table_is_caught(service: str, url: str, problem: str) -> None:
    problems = table_problems(COMPOSE, {**COMPOSE_URLS, service: url})
    assert any(problem in found for found in problems), problems
