"""The public methods of a store, over its hooks."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

from polyvec import spec as _spec
from polyvec.base.collection import BaseCollection
from polyvec.base.hooks import StoreHooks
from polyvec.batches import check_name
from polyvec.errors import (
    BackendError,
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    PolyvecError,
    SpecMismatchError,
    UnsupportedOperationError,
)
from polyvec.types import (
    EmbeddingSpace,
    Index,
    Metric,
)

if TYPE_CHECKING:
    from polyvec.config import StoreConfig
    from polyvec.protocol import IndexHints
    from polyvec.registry import Adapter

T = TypeVar("T")


class BaseVectorStore(StoreHooks):
    """Base of an adapter's store; see `polyvec.protocol.VectorStore` for the methods."""

    def __repr__(self) -> str:
        url = self.config.url
        place = ",".join(f"{host}:{port}" if port else host for host, port in url.hosts)
        return f"<{self.name} store {place}{url.path}>"

    @classmethod
    @final
    def open(cls, adapter: Adapter, config: StoreConfig) -> Self:
        """Return a connected store; see `polyvec.connect`."""
        store = cls(adapter, config)
        store._call("connect", None, store._do_connect)
        return store

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    @abstractmethod
    def native(self) -> Any:
        """The driver's own client, for what polyvec does not cover."""

    @property
    @final
    def version(self) -> str:
        return self._call("version", None, self._do_version)

    @final
    def create_collection(
        self,
        name: str,
        dimension: int | None = None,
        metric: Metric = "cosine",
        *,
        indexes: IndexHints | None = None,
        index: Index | None = None,
        embedding: EmbeddingSpace | None = None,
        exist_ok: bool = False,
    ) -> BaseCollection:
        operation = "create_collection"
        try:
            spec = _spec.make_spec(name, dimension, metric, indexes, index, embedding, self.capabilities)
        except PolyvecError as error:
            raise error.at(self.name, operation, str(name)) from None
        existing = self._call(operation, name, self._do_open, name)
        if existing is None:
            try:
                self._call(operation, name, self._do_create, spec)
                return self._collection(spec)
            except CollectionExistsError:  # somebody else was faster
                existing = self._call(operation, name, self._do_open, name)
                if existing is None:
                    raise
        if not exist_ok:
            raise CollectionExistsError("it exists already; pass exist_ok=True to open it").at(
                self.name, operation, name
            )
        if differences := _spec.differences(existing, spec):
            raise SpecMismatchError(f"it exists and differs: {'; '.join(differences)}").at(
                self.name, operation, name
            )
        return self._collection(existing)

    @final
    def collection(self, name: str) -> BaseCollection:
        try:
            check_name(name, "a collection's name")
        except InvalidInputError as error:
            raise error.at(self.name, "collection", str(name)) from None
        spec = self._call("collection", name, self._do_open, name)
        if spec is None:
            raise self._missing("collection", name)
        return self._collection(spec)

    @final
    def list_collections(self) -> list[str]:
        return sorted(self._call("list_collections", None, self._do_list))

    @final
    def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        try:
            check_name(name, "a collection's name")
        except InvalidInputError as error:
            raise error.at(self.name, "drop_collection", str(name)) from None
        if self._call("drop_collection", name, self._do_open, name) is not None:
            self._call("drop_collection", name, self._do_drop, name)
        elif not missing_ok:
            raise self._missing("drop_collection", name)

    @final
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._once("close", None, self._do_close)

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The steps of the public methods -----------------------------------------------------------------

    def _require_open(self, operation: str, collection: str | None) -> None:
        if self._closed:
            raise UnsupportedOperationError("the store is closed").at(self.name, operation, collection)

    def _missing(self, operation: str, name: str) -> PolyvecError:
        close = difflib.get_close_matches(name, self.list_collections(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return CollectionNotFoundError(f"there is no such collection{hint}").at(self.name, operation, name)

    def _call(
        self,
        operation: str,
        collection: str | None,
        hook: Callable[..., T],
        *args: Any,
        **options: Any,
    ) -> T:
        """Call a hook: translate its errors and try again what is retryable."""
        self._require_open(operation, collection)
        return self.retry.run(lambda: self._once(operation, collection, hook, *args, **options))

    def _once(
        self,
        operation: str,
        collection: str | None,
        hook: Callable[..., T],
        *args: Any,
        **options: Any,
    ) -> T:
        try:
            return hook(*args, **options)
        except PolyvecError as error:
            raise error.at(self.name, operation, collection) from error.__cause__
        except Exception as error:
            raise self._translate_any(error).at(self.name, operation, collection) from error

    def _translate_any(self, error: Exception) -> PolyvecError:
        """Return our error for a driver's, with a secret that the driver quotes replaced by `***`."""
        translated = self._translate(error) or BackendError(f"{type(error).__name__}: {error}")
        for secret in self.config.secrets():
            translated.message = translated.message.replace(secret, "***")
        translated.args = (translated.message,)
        return translated
