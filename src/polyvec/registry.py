"""Adapters: found through entry points, opened by URL or by name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from polyvec.capabilities import Capabilities
from polyvec.config import StoreConfig, load_configuration, parse_url, store_options, suggest
from polyvec.errors import ConfigurationError, MissingDriverError

if TYPE_CHECKING:
    from polyvec.base import BaseVectorStore
    from polyvec.protocol import VectorStore

GROUP: Final = "polyvec.adapters"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How a database is reached; importing it must not import the driver.

    Attributes:
        name: Name of the adapter, e.g. "qdrant".
        title: The database's own name, e.g. "Qdrant".
        schemes: URL schemes that it opens.
        capabilities: What it can do, before a server has been asked.
        config: Its options.
        store: `module:Class` of its `BaseVectorStore`, imported when a store is opened.
        driver: Modules that must be installed.
        requires: What `pip install` needs for the driver, e.g. "polyvec[qdrant]".
        examples: URLs, each with what it opens.
        tested: The engines that its tests run on, with their versions, for the support table.
    """

    name: str
    title: str
    schemes: tuple[str, ...]
    capabilities: Capabilities
    config: type[StoreConfig]
    store: str
    driver: tuple[str, ...] = ()
    requires: str = "polyvec"
    examples: Mapping[str, str]
    tested: str = ""

    @property
    def installed(self) -> bool:
        """Whether the driver is installed; nothing is imported to find out."""
        try:
            return all(importlib.util.find_spec(module) is not None for module in self.driver)
        except ModuleNotFoundError:  # the package that a dotted module would be in
            return False

    @property
    def install_command(self) -> str:
        """The exact line that installs the driver."""
        return f'pip install "{self.requires}"'

    def open(self, config: StoreConfig) -> BaseVectorStore:
        """Open a store.

        Raises:
            MissingDriverError: The driver is not installed, or cannot be imported; the message has the line
                that installs it.
        """
        if not self.installed:
            raise MissingDriverError(
                f"the driver of {self.title} is not installed; run: {self.install_command}",
                backend=self.name,
            )
        module, _, name = self.store.partition(":")
        try:
            kind: type[BaseVectorStore] = getattr(importlib.import_module(module), name)
        except ImportError as error:  # the driver is there, but too old or broken
            raise MissingDriverError(
                f"the driver of {self.title} cannot be imported ({error}); run: {self.install_command}",
                backend=self.name,
            ) from error
        return kind.open(self, config)


@functools.cache
def adapters() -> Mapping[str, Adapter]:
    """Return every installed adapter by name; one that cannot be imported is left out, with a warning."""
    found: dict[str, Adapter] = {}
    for entry in entry_points(group=GROUP):
        try:
            adapter = entry.load()
            if not isinstance(adapter, Adapter) or adapter.name != entry.name:
                raise TypeError(f"{entry.value} is not the Adapter {entry.name!r}")  # noqa: TRY301
        except Exception:
            # somebody's broken package must not keep the other adapters from working
            logger.warning("the adapter %r (%s) cannot be used", entry.name, entry.value, exc_info=True)
        else:
            found[adapter.name] = adapter
    return dict(sorted(found.items()))


def adapter_for(scheme: str) -> Adapter:
    """Return the adapter that opens URLs of this scheme, or raise ConfigurationError."""
    by_scheme = {known: adapter for adapter in adapters().values() for known in adapter.schemes}
    if scheme not in by_scheme:
        raise ConfigurationError(
            f"no adapter opens {scheme!r} URLs{suggest(scheme, by_scheme)}; "
            f"known are {', '.join(sorted(by_scheme))}"
        )
    return by_scheme[scheme]


def connect(target: str | None = None, **options: Any) -> VectorStore:  # see StoreConfig
    """Open a store.

    Args:
        target: A URL (`chroma:./data`, `qdrant://host:6333?timeout_s=10`) or the name of a store in the
            configuration; None is the configuration's default store.
        **options: Options of the adapter, as in its URL or its table in `polyvec.toml`; they win over both.

    Raises:
        ConfigurationError: The target or an option is unknown or wrong.
        MissingDriverError: The driver is not installed; the message has the line that installs it.
        BackendUnavailableError: No server answers there.
        AuthenticationError: The server refuses the key.
    """
    if target is not None and ":" in target:
        url = parse_url(target)
    else:
        configuration = load_configuration()
        name = target if target is not None else configuration.defaults.get("store")
        if name is None:
            raise ConfigurationError(
                "say which store: a URL such as chroma:./data, a name from polyvec.toml, or set "
                "defaults.store there"
            )
        url, configured = store_options(name, configuration)
        options = configured | options
    adapter = adapter_for(url.scheme)
    return adapter.open(adapter.config.make(url, options))
