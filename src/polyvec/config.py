"""Where a store is and how to reach it: URLs, `polyvec.toml`, environment variables.

A store is named by a URL, or by its name in the configuration:

    [stores.docs]
    url = "qdrant://db.example.com:6333"
    api_key = "${QDRANT_API_KEY}"
    timeout_s = 10

The configuration is the file in `POLYVEC_CONFIG`; else the nearest `polyvec.toml`, or `pyproject.toml` with a
table `[tool.polyvec]`, in the current directory or above. `${NAME}` and `${NAME:-default}` are replaced by
environment variables in every value. A relative path in a file is relative to that file.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote

from polyvec.errors import ConfigurationError, shown

TABLES: Final = ("stores", "embedders", "defaults")
DEFAULTS: Final = ("store", "collection", "embedder")
_SHORTEST_SECRET: Final = 4


class Host(NamedTuple):
    """A host of a URL; `port` is None where the URL names none."""

    name: str
    port: int | None


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed store URL.

    Attributes:
        scheme: Lower case, e.g. "qdrant".
        hosts: Empty for an embedded store.
        path: A directory or file of an embedded store, or what follows the hosts; "" where there is none.
        user: From the URL, decoded.
        password: From the URL, decoded.
        options: The query parameters; not shown, since a key may be among them.
    """

    scheme: str
    hosts: tuple[Host, ...] = ()
    path: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


def redact(text: str) -> str:
    """Return a URL, or a text that quotes one, with passwords and key-like parameters replaced by `***`."""
    # up to the last @, because a password that should have been encoded may hold / ? # and @ itself
    text = re.sub(r"([A-Za-z][\w+.-]*:(?://)?[^\s:@]*:)\S*(?=@)", r"\1***", text)
    return re.sub(r"(?i)([?&][^\s=&]*(?:key|token|password|secret)[^\s=&]*=)[^\s&'\"]*", r"\1***", text)


def _wrong_url(url: str, what: str) -> ConfigurationError:
    quoted = redact(re.sub(r"\s", "%20", url))
    return ConfigurationError(f"{quoted!r}: {what}")


def parse_url(url: str) -> StoreUrl:
    """Parse `scheme:path`, `scheme://[user:password@]host[:port][,host...][/path][?option=value]`.

    Raises:
        ConfigurationError: The URL cannot be understood; its password is not shown.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise _wrong_url(url, "no store URL; write e.g. chroma:./data or qdrant://host")
    rest, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise _wrong_url(url, "the options after ? must be name=value&...") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise _wrong_url(url, "an option is given twice")
    if not rest.startswith("//"):
        return StoreUrl(scheme.lower(), path=unquote(rest), options=options)
    authority, slash, path = rest[2:].partition("/")
    login, at, netloc = authority.rpartition("@")
    user, _, password = login.partition(":")
    try:
        hosts = tuple(_parse_host(part) for part in netloc.split(",") if part)
    except ValueError as error:
        raise _wrong_url(url, str(error)) from None
    return StoreUrl(
        scheme.lower(),
        hosts,
        unquote(slash + path),
        unquote(user) if user else None,
        unquote(password) if at and password else None,
        options,
    )


# without the text itself: it is part of the password where that holds a / that should have been encoded
_NO_HOST: Final = "after :// stand [user:password@]host[:port] (%2F for a / in a password), port 1 to 65535"


def _parse_host(text: str) -> Host:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(_NO_HOST)
    port = int(found[2]) if found[2] else None
    if port is not None and not 0 < port < 65_536:  # noqa: PLR2004  # the range of ports
        raise ValueError(_NO_HOST)
    return Host(found[1].strip("[]"), port)


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """What every adapter's configuration has; an adapter adds fields of its own in a subclass.

    A field becomes an option: in the URL, in `polyvec.toml`, and as a keyword of `connect`. Its type is one
    of str, int, float, bool, or one of these or None. Give secrets `field(repr=False)`.

    Attributes:
        url: Where the store is.
        user: User name.
        password: Password; never shown.
        api_key: Key; never shown. A password without a user in the URL counts as one too: see `key`.
        timeout_s: Seconds within which a call is answered or fails, its retries included.
        tls: Encrypt the connection; None leaves it to the adapter.
    """

    environment: ClassVar[Mapping[str, str]] = {}
    """Option to the vendor's own environment variable, used where the option is not given."""

    url: StoreUrl
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    tls: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigurationError(f"timeout_s must be a positive number of seconds, not {self.timeout_s}")

    @property
    def key(self) -> str | None:
        """The `api_key`, or a password that came without a user."""
        return self.api_key or (self.password if not self.user else None)

    @property
    def host(self) -> Host | None:
        """The first host; None for an embedded store."""
        return self.url.hosts[0] if self.url.hosts else None

    def secrets(self) -> list[str]:
        """Return the values of the options that are never shown, but for those too short to be told apart."""
        values = [getattr(self, item.name) for item in dataclasses.fields(self) if not item.repr]
        return [value for value in values if isinstance(value, str) and len(value) >= _SHORTEST_SECRET]

    @classmethod
    def make(cls, url: StoreUrl, options: Mapping[str, object]) -> Self:
        """Build the configuration from a URL and further options, which win over the URL's.

        Raises:
            ConfigurationError: An unknown option (with a suggestion) or a value of the wrong type.
        """
        known = {item.name: item for item in dataclasses.fields(cls) if item.name != "url"}
        types = typing.get_type_hints(cls)
        given: dict[str, object] = {**url.options, **options}
        values: dict[str, Any] = {"user": url.user, "password": url.password}
        for name, value in given.items():
            if name not in known:
                raise ConfigurationError(
                    f"{url.scheme}: unknown option {name!r}{suggest(name, known)}; "
                    f"options are {', '.join(sorted(known))}"
                )
            values[name] = convert(value, types[name], f"{url.scheme}: option {name!r}")
        for name, variable in cls.environment.items():
            if name == "api_key" and values.get("password") and not values.get("user"):
                continue  # the URL has the key: see `key`
            if values.get(name) is None and (found := os.environ.get(variable)):
                values[name] = convert(found, types[name], f"environment variable {variable}")
        return cls(url=url, **{name: value for name, value in values.items() if value is not None})


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" if a known name is close, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def convert(value: object, kind: Any, what: str) -> object:  # a type hint
    """Return `value` as the type of an option: itself, or what a string of a URL stands for."""
    kinds = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    [wanted] = [item for item in kinds if item is not type(None)]
    if wanted is bool:
        if isinstance(value, bool):
            return value
        found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, str) and value.lower() in found:
            return found[value.lower()]
    elif wanted is str and isinstance(value, str):
        return value
    elif wanted in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number: float = wanted(value)
            if number == float(value):
                return number
        except (ValueError, OverflowError):
            pass
    # a wrong value for a str may be a key that was not quoted
    given = type(value).__name__ if wanted is str else shown(value)
    raise ConfigurationError(f"{what} must be a {wanted.__name__}, not {given}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration file.

    Attributes:
        source: The file; None if there is none, and then all tables are empty.
        stores: Name to the options of a store, `url` among them.
        embedders: Name to the options of an embedder, `model` among them.
        defaults: The names that are used where a call names none.
    """

    source: Path | None = None
    stores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    embedders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)


def load_configuration(path: str | os.PathLike[str] | None = None) -> Configuration:
    """Read the configuration from `path`, or from where it is looked for (see the module).

    Raises:
        ConfigurationError: The file cannot be read or holds an unknown key.
    """
    source = Path(path) if path is not None else _find()
    if source is None:
        return Configuration()
    try:
        data = tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{source}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: {error}") from error
    if source.name == "pyproject.toml":
        data = data.get("tool", {}).get("polyvec", {})
        if not isinstance(data, dict):
            raise ConfigurationError(f"{source}: tool.polyvec must be a table, not {shown(data)}")
    for table, value in data.items():
        if table not in TABLES:
            raise ConfigurationError(
                f"{source}: unknown key {table!r}{suggest(table, TABLES)}; known are {', '.join(TABLES)}"
            )
        if not isinstance(value, dict):
            raise ConfigurationError(f"{source}: {table} must be a table, not {shown(value)}")
    for table in ("stores", "embedders"):
        for name, value in data.get(table, {}).items():
            if not isinstance(value, dict):
                raise ConfigurationError(
                    f"{source}: {table}.{name} must be a table, not {type(value).__name__}"
                )
    for key, value in data.get("defaults", {}).items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{source}: defaults.{key} must be a name, not {shown(value)}")
        if key not in DEFAULTS:
            raise ConfigurationError(
                f"{source}: unknown key 'defaults.{key}'{suggest(key, DEFAULTS)}; "
                f"known are {', '.join(DEFAULTS)}"
            )
    return Configuration(source, data.get("stores", {}), data.get("embedders", {}), data.get("defaults", {}))


def _find() -> Path | None:
    if named := os.environ.get("POLYVEC_CONFIG"):
        return Path(named)
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "polyvec.toml").is_file():
            return folder / "polyvec.toml"
        project = folder / "pyproject.toml"
        try:
            if project.is_file() and "polyvec" in tomllib.loads(project.read_text("utf-8")).get("tool", {}):
                return project
        except (OSError, ValueError, TypeError):
            continue  # another tool's file, and another tool's problem
    return None


def expand(value: Any, what: str) -> Any:  # a TOML value
    """Replace `${NAME}` and `${NAME:-default}` in every string of a TOML value.

    Raises:
        ConfigurationError: Names the variable that is not set, and where it is used.
    """
    if isinstance(value, str):

        def replace(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if (given := os.environ.get(name)) is not None:
                return given
            if default is None:
                raise ConfigurationError(f"{what}: the environment variable {name} is not set")
            return default

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", replace, value)
    if isinstance(value, dict):
        return {key: expand(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, what) for item in value]
    return value


def store_options(name: str, configuration: Configuration) -> tuple[StoreUrl, dict[str, Any]]:
    """Return the URL and the other options of a store named in the configuration.

    Raises:
        ConfigurationError: There is no such store (with a suggestion), or it has no `url`.
    """
    stores = configuration.stores
    where = str(configuration.source) if configuration.source else "no polyvec.toml was found"
    if name not in stores:
        raise ConfigurationError(
            f"there is no store {name!r}{suggest(name, stores)} in the configuration ({where}); "
            f"known are {', '.join(sorted(stores)) or 'none'}"
        )
    options = expand(dict(stores[name]), f"{where}: stores.{name}")
    if not isinstance(options.get("url"), str):
        raise ConfigurationError(f"{where}: stores.{name} has no url")
    url = parse_url(options.pop("url"))
    # a path that begins with a colon is none: qdrant::memory:
    if configuration.source is not None and url.path and url.path[0] != ":" and not url.hosts:
        url = dataclasses.replace(url, path=str(configuration.source.parent / url.path))
    return url, options
