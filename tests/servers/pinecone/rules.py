"""What requests may hold, from the description of the API and the pages on limits.

DATA: https://github.com/pinecone-io/pinecone-api/blob/main/2026-07/db_data_2026-07.oas.yaml
CONTROL: https://github.com/pinecone-io/pinecone-api/blob/main/2026-07/db_control_2026-07.oas.yaml
LIMITS: https://docs.pinecone.io/reference/api/database-limits/operation-limits
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

Body: TypeAlias = dict[str, Any]
Values: TypeAlias = npt.NDArray[np.float32]

DEFAULT_NAMESPACE: Final = "__default__"
MAX_UPSERT: Final = 1000  # DATA, UpsertRequest
MAX_UPSERT_BYTES: Final = 2_000_000  # LIMITS
MAX_ANSWER_BYTES: Final = 4_000_000  # LIMITS
MAX_METADATA_BYTES: Final = 40_960  # LIMITS
MAX_TOP_K: Final = 10_000  # DATA, QueryRequest
MAX_IDS: Final = 1000  # DATA, fetchVectors and DeleteRequest
MAX_PAGE: Final = 100  # DATA, listVectors
MAX_FILTER_PAGE: Final = 10_000  # DATA, FetchByMetadataRequest
MAX_DIMENSION: Final = 20_000  # CONTROL, dense_vector
MAX_TAGS: Final = 20
SMALLEST: Final = 1e-8  # DATA, Vector: "at least one value must have a magnitude of 1e-8 or greater"
METRICS: Final = ("cosine", "dotproduct", "euclidean")

_ID: Final = re.compile(r"[\x01-\x7F]{1,512}")
_INDEX_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_TAG_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TAG_VALUE: Final = re.compile(r"[A-Za-z0-9;@_.+ -]{1,120}")


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        status: Of HTTP.
        message: What the answer says.
        plain: Whether the answer is bare text, as of what stands before the service.
        retry_after_s: Of an answer 429.
    """

    def __init__(
        self, status: int, message: str, *, plain: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.plain = plain
        self.retry_after_s = retry_after_s


def require(condition: object, message: str, status: int = 400) -> None:
    """Refuse the request unless a condition holds."""
    if not condition:
        raise RefusedError(status, message)


def fields(body: object, required: dict[str, type], optional: dict[str, type]) -> Body:
    """Return a body that has all fields of one kind, perhaps some of another, and no others."""
    require(isinstance(body, dict), "the body must be a JSON object")
    assert isinstance(body, dict)
    for name, kind in required.items():
        require(name in body, f"the field {name!r} is missing")
        _typed(name, body[name], kind)
    for name in body.keys() - required.keys():
        require(name in optional, f"there is no field {name!r}")
        _typed(name, body[name], optional[name])
    return body


def _typed(name: str, value: object, kind: type) -> None:
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(right, f"the field {name!r} must be of type {kind.__name__}")


def check_id(id: object) -> None:
    """Refuse what is no id."""
    require(
        isinstance(id, str) and _ID.fullmatch(id), f"an id must have 1 to 512 ASCII characters: {id!r:.80}"
    )


def namespace_of(name: str) -> str:
    """Return the one name of a namespace; no name is the default one's."""
    require(
        len(name) <= 512 and name.isascii() and "\0" not in name, "a namespace has 1 to 512 ASCII letters"
    )
    return name or DEFAULT_NAMESPACE


def check_values(values: object, dimension: int) -> Values:
    """Return a dense vector of this dimension."""
    require(isinstance(values, list) and values, "a vector must have values")
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise RefusedError(400, "a vector must consist of numbers") from None
    require(array.ndim == 1, "a vector must consist of numbers")
    require(
        len(array) == dimension,
        f"Vector dimension {len(array)} does not match the dimension of the index {dimension}",
    )
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    require(np.isfinite(found).all(), "a vector must consist of finite 32-bit floats")
    require(np.abs(array).max() >= SMALLEST, "Dense vectors must contain at least one non-zero value")
    return found


def check_metadata(metadata: object) -> Body:
    """Return metadata as it is kept: numbers are 64-bit floats."""
    require(isinstance(metadata, dict), "metadata must be an object")
    assert isinstance(metadata, dict)
    kept: Body = {}
    for key, value in metadata.items():
        require(not key.startswith("$"), f"a field name may not begin with $: {key!r:.80}")
        if isinstance(value, str | bool):
            kept[key] = value
        elif isinstance(value, int | float):
            kept[key] = float(value)
        else:
            strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
            require(
                strings,
                "Metadata value must be a string, number, boolean or list of strings, "
                f"got '{value!r:.16}...' for field '{key:.80}'",
            )
            kept[key] = value
    return kept


def check_size(metadata: Body) -> None:
    """Refuse metadata of more than 40 KB."""
    size = len(orjson.dumps(metadata))
    require(
        size <= MAX_METADATA_BYTES,
        f"Metadata size is {size} bytes, which exceeds the limit of {MAX_METADATA_BYTES} bytes per vector",
    )


def check_limit(limit: object, most: int) -> int:
    """Return the size of a page."""
    require(type(limit) is int and 1 <= limit <= most, f"limit must be 1 to {most}")
    assert isinstance(limit, int)
    return limit


def check_index(body: object) -> tuple[str, int, str, Body, Body]:
    """Return the name, dimension, metric, deployment and tags of an index to be made."""
    found = fields(
        body,
        {"schema": dict},
        {"name": str, "deployment": dict, "deletion_protection": str, "tags": dict},
    )
    name = found.get("name", "")
    require(
        _INDEX_NAME.fullmatch(name),
        "Name must be 1-45 characters long, start and end with an alphanumeric character, and consist only "
        "of lower case alphanumeric characters or '-'",
    )
    schema = fields(found["schema"], {"fields": dict}, {})["fields"]
    # "_values ... only as the whole schema": a classic index, which the vector operations serve
    require(schema.keys() == {"_values"}, "only classic dense indexes are emulated: the field _values alone")
    vector = fields(schema["_values"], {"type": str, "dimension": int}, {"metric": str})
    metric = vector.get("metric", "cosine")
    require(vector["type"] == "dense_vector", "_values must be of type dense_vector")
    require(1 <= vector["dimension"] <= MAX_DIMENSION, f"dimension must be 1 to {MAX_DIMENSION}")
    require(metric in METRICS, f"metric must be one of {', '.join(METRICS)}")
    deployment = found.get(
        "deployment", {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
    )
    match deployment.get("deployment_type"):
        case "managed":
            fields(deployment, {"deployment_type": str, "cloud": str, "region": str}, {})
            require(deployment["cloud"] in ("aws", "gcp", "azure"), "no such cloud", 404)
        case "byoc":
            fields(deployment, {"deployment_type": str, "environment": str}, {})
        case other:
            raise RefusedError(400, f"no deployment of type {other!r} can be made: managed or byoc")
    require(found.get("deletion_protection", "disabled") in ("disabled", "enabled"), "deletion_protection")
    tags = found.get("tags", {})
    check_tags(tags)
    return name, vector["dimension"], metric, deployment, tags


def check_tags(tags: Body) -> None:
    """Refuse tags that break the rules of `IndexTags` (CONTROL)."""
    require(len(tags) <= MAX_TAGS, f"at most {MAX_TAGS} tags")
    for key, value in tags.items():
        require(_TAG_KEY.fullmatch(key), f"Tag key must be 1-80 of A-Z a-z 0-9 _ -: {key!r:.80}")
        require(
            isinstance(value, str) and _TAG_VALUE.fullmatch(value),
            f"Tag value must be 1-120 of A-Z a-z 0-9 ; @ _ - . + and space: {value!r:.80}",
        )
