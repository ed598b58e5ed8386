"""How Typesense is reached: the few requests that polyvec makes, to the node that leads."""

from __future__ import annotations

import ipaddress
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import orjson
from typesense import Client

from polyvec.errors import BackendUnavailableError
from polyvec_adapters.typesense import TypesenseConfig
from polyvec_adapters.typesense.errors import RefusedError
from polyvec_adapters.typesense.filters import with_ids
from polyvec_adapters.typesense.records import Document

DEFAULT_PORT: Final = 8108

MAX_SEARCHES: Final = 50
"""Searches of one request: https://typesense.org/docs/0.24.1/api/federated-multi-search.html."""

MAX_PAGE: Final = 250
"""Hits of one search: https://typesense.org/docs/0.24.1/api/search.html#pagination-parameters."""

MAX_URL_FILTER: Final = 7000
"""Longest filter that goes into a URL. A server takes more; proxies before it often stop at 8 KiB."""

TRUSTED_S: Final = 5.0
"""A node that led so long ago is asked again whether it still does."""

_LEADER: Final = 1


def node_urls(config: TypesenseConfig) -> list[str]:
    """Return the URL of each node."""
    urls = []
    for name, port in config.url.hosts:
        encrypted = not loopback(name) if config.tls is None else config.tls
        host = f"[{name}]" if ":" in name else name
        scheme = "https" if encrypted else "http"
        urls.append(f"{scheme}://{host}:{port or DEFAULT_PORT}{config.url.path.rstrip('/')}")
    return urls


def loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Api:
    """The requests of the adapter, over httpx as the driver's are.

    Not through the driver: it reads from nodes that follow the leader and lag behind it, and once all nodes
    have failed it stays with one of them for a minute, up or down (`node_manager.py` of 2.1,
    https://github.com/typesense/typesense-python). It also keeps an object for each id for ever, and puts
    names and ids into URLs as they are.
    """

    def __init__(self, config: TypesenseConfig) -> None:
        self._nodes = node_urls(config)
        self._key = config.key or ""
        self._share_s = config.timeout_s / len(self._nodes)
        self._http = httpx.Client(
            headers={"X-TYPESENSE-API-KEY": self._key},
            timeout=httpx.Timeout(config.timeout_s, connect=self._share_s),
        )
        self._leader: str | None = None
        self._trusted_until = 0.0

    def client(self) -> Client:
        """Return a client of the driver's, for what polyvec does not cover."""
        with warnings.catch_warnings():
            # it warns of a part of itself (sync/client.py, 2.1)
            warnings.simplefilter("ignore", DeprecationWarning)
            return Client({"nodes": list(self._nodes), "api_key": self._key}, self._http)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def version(self) -> str:
        """Return the version of the server, which it tells only to those who have a key."""
        return str(orjson.loads(self._send("GET", "/debug"))["version"])

    def create(self, description: Document) -> None:
        """Create a collection."""
        self._send("POST", "/collections", orjson.dumps(description))

    def describe(self, name: str) -> Document:
        """Return what a collection is."""
        found: Document = orjson.loads(self._send("GET", f"/collections/{name}"))
        return found

    def describe_all(self) -> list[Document]:
        """Return what each collection is."""
        found: list[Document] = orjson.loads(self._send("GET", "/collections"))
        return found

    def drop(self, name: str) -> None:
        """Delete a collection."""
        self._send("DELETE", f"/collections/{name}")

    def write(self, name: str, action: str, lines: Sequence[bytes]) -> list[Document]:
        """Write documents, a line of JSON each, and return an answer for each: success, or code and error."""
        # reject: else a value of another type is changed into one of the field's
        query = _query(action=action, dirty_values="reject")
        text = self._send("POST", f"/collections/{name}/documents/import?{query}", b"\n".join(lines))
        return [orjson.loads(line) for line in text.split("\n")]

    def delete(self, name: str, filter: str) -> None:
        """Delete the documents for which a filter holds; it goes into the URL."""
        self._send("DELETE", f"/collections/{name}/documents?{_query(filter_by=filter)}")

    def delete_ids(self, name: str, ids: Collection[str]) -> None:
        """Delete up to 250 documents; unknown ids are no error."""
        self.delete(name, with_ids(ids))

    def export(self, name: str, filter: str, include: str) -> list[Document]:
        """Return the documents for which a filter holds; it goes into the URL. The quickest way to read."""
        query = _query(filter_by=filter, include_fields=include)
        # not splitlines, for which a text may hold a few more kinds of line end
        lines = self._send("GET", f"/collections/{name}/documents/export?{query}").split("\n")
        return [orjson.loads(line) for line in lines if line]

    def search(self, searches: Sequence[Document]) -> Iterator[Document]:
        """Yield the answer of each search, of which a request takes up to 50.

        Raises:
            RefusedError: A search failed; the others do not matter then.
        """
        for start in range(0, len(searches), MAX_SEARCHES):
            body = orjson.dumps({"searches": searches[start : start + MAX_SEARCHES]})
            for answer in orjson.loads(self._send("POST", "/multi_search", body))["results"]:
                if "error" in answer:
                    raise RefusedError(answer.get("code", 0), answer["error"])
                yield answer

    def find(self, name: str, filter: str, include: str) -> list[Document]:
        """Return the documents for which a filter of any length holds, 250 to a request."""
        search = {
            "collection": name,
            "q": "*",
            "filter_by": filter,
            "include_fields": include,
            "per_page": MAX_PAGE,
        }
        found: list[Document] = []
        while True:
            [answer] = self.search([{**search, "page": 1 + len(found) // MAX_PAGE}])
            found += (hit["document"] for hit in answer["hits"])
            if len(answer["hits"]) < MAX_PAGE:
                return found

    def count(self, name: str, filter: str) -> int:
        """Return for how many documents a filter of any length holds."""
        [answer] = self.search([{"collection": name, "q": "*", "filter_by": filter, "per_page": 0}])
        return int(answer["found"])

    # How a request is sent ----------------------------------------------------------------------------

    def _send(self, method: str, path: str, content: bytes | None = None) -> str:
        """Make a request of the leader, and look for it again the next time if it failed."""
        leader = self._find_leader()
        try:
            response = self._http.request(method, leader + path, content=content)
        except httpx.HTTPError:
            self._leader = None
            raise
        if response.is_server_error:
            self._leader = None
        if not response.is_success:
            raise RefusedError.of(response)
        return response.text

    def _find_leader(self) -> str:
        """Return the node that leads; what is read from another may be behind what was written.

        Run on a cluster of three: of 200 records written and read at once through a node that does not lead,
        199 were not there yet.

        Raises:
            BackendUnavailableError: None leads, for example while a new leader is being elected.
        """
        leader = self._leader
        if leader is not None and time.monotonic() < self._trusted_until:
            return leader
        errors: list[Exception] = []
        for node in sorted(self._nodes, key=lambda node: node != leader):
            try:
                response = self._http.get(f"{node}/debug", timeout=self._share_s)
            except httpx.TransportError as error:
                errors.append(error)
                continue
            if not response.is_success:
                errors.append(RefusedError.of(response))
            # https://typesense.org/docs/guide/high-availability.html: 1 leads
            elif orjson.loads(response.content).get("state") == _LEADER:
                self._trusted_until = time.monotonic() + TRUSTED_S
                self._leader = node
                return node
        self._leader = None
        if len(errors) == len(self._nodes):
            raise errors[0]
        raise BackendUnavailableError(_NO_LEADER)


_NO_LEADER: Final = (
    "no node here leads the cluster, and the others may be behind; name all nodes (typesense://:KEY@a,b,c)"
)


def _query(**parameters: Any) -> str:
    # these need not be encoded, and an id with its comma takes two characters less
    return urlencode(parameters, safe=":=,!()")
