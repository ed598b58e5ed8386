"""Embedders by name: `local`, `hash:256`, `openai:text-embedding-3-small`, or a name from `polyvec.toml`."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from polyvec.config import Configuration, convert, expand, load_configuration, suggest
from polyvec.embed.base import BaseEmbedder, Embedder
from polyvec.errors import ConfigurationError, shown


class _Provider(NamedTuple):
    """Where the class of a provider is, and which of its arguments stands after the colon of a name."""

    module: str
    name: str
    argument: str | None = None
    example: str | None = None


_PROVIDERS: Final = {
    "local": _Provider("polyvec.embed.local", "LocalEmbedder"),
    "hash": _Provider("polyvec.embed.hashing", "HashEmbedder", "dimensions"),
    "openai": _Provider("polyvec.embed.openai", "OpenAIEmbedder", "model", "openai:text-embedding-3-small"),
}


def embedder(name: str | None = None, **options: Any) -> Embedder:  # those of the embedder's class
    """Return an embedder; nothing is loaded or sent before it is used.

    Args:
        name: `local`, a model that needs no key and no network; `openai:MODEL`; `hash` or `hash:DIMENSIONS`,
            deterministic, without a model, for tests; or the NAME of a table `[embedders.NAME]` of the
            configuration, with such a name as its `model` and options beside it. None is the configuration's
            `defaults.embedder`, or else `local`.
        **options: Options of the embedder; they win over the configuration's. See `OpenAIEmbedder`,
            `LocalEmbedder` and `HashEmbedder`. All have `cache`, a file that keeps the vectors of texts (see
            `CachedEmbedder`); a path in the configuration is relative to it.

    Raises:
        ConfigurationError: An unknown name or option (with a suggestion), or a wrong value.
        MissingDriverError: A package is missing; the message has the line that installs it.
    """
    if name is None or ":" not in name:
        configuration = load_configuration()
        name = name or configuration.defaults.get("embedder", "local")
        if name in configuration.embedders:
            name, configured = _configured(name, configuration)
            options = configured | options
        elif ":" not in name and name not in _PROVIDERS:
            known = [*configuration.embedders, *_PROVIDERS]
            raise ConfigurationError(
                f"there is no embedder {name!r}{suggest(name, known)}; known are {', '.join(known)}"
            )
    return _make(name, options)


def _configured(name: str, configuration: Configuration) -> tuple[str, dict[str, Any]]:
    where = f"{configuration.source}: embedders.{name}"
    options: dict[str, Any] = expand(dict(configuration.embedders[name]), where)
    model = options.pop("model", None)
    if not isinstance(model, str):
        raise ConfigurationError(f'{where} needs a model, e.g. model = "openai:text-embedding-3-small"')
    cache = options.get("cache")
    if isinstance(cache, str) and configuration.source is not None:
        options["cache"] = str(configuration.source.parent / Path(cache).expanduser())
    return model, options


def _make(name: str, options: Mapping[str, Any]) -> Embedder:
    prefix, colon, rest = name.partition(":")
    if prefix not in _PROVIDERS:
        raise ConfigurationError(
            f"there is no embedder {name!r}{suggest(prefix, _PROVIDERS)}; known are {', '.join(_PROVIDERS)}"
        )
    provider = _PROVIDERS[prefix]
    given = dict(options)
    cache = given.pop("cache", None)
    if not isinstance(cache, str | Path | None):
        raise ConfigurationError(f"{prefix}: cache must be the path of a file, not {shown(cache)}")
    if colon:
        if provider.argument is None:
            raise ConfigurationError(f"{prefix} has one model only; write {prefix!r}, not {name!r}")
        if provider.argument in given:
            raise ConfigurationError(f"{prefix}: {provider.argument} is given twice")
        given[provider.argument] = rest
    elif provider.example is not None and provider.argument not in given:
        raise ConfigurationError(f"say which model, e.g. {provider.example}")
    kind: type[BaseEmbedder] = getattr(importlib.import_module(provider.module), provider.name)
    made = kind(**_checked(kind, given, prefix))
    if cache is None:
        return made
    from polyvec.embed.cache import CachedEmbedder  # and sqlite3, which not every Python has

    return CachedEmbedder(made, cache)


def _checked(kind: type[BaseEmbedder], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the arguments of an embedder, of the types it wants."""
    known = list(inspect.signature(kind).parameters)
    types = typing.get_type_hints(kind.__init__)
    values: dict[str, Any] = {}
    for option, value in given.items():
        if option not in known:
            raise ConfigurationError(
                f"{prefix}: unknown option {option!r}{suggest(option, [*known, 'cache'])}; "
                f"options are {', '.join([*known, 'cache'])}"
            )
        what = f"{prefix}: {option}"
        if option == "api_key" and not isinstance(value, str | None):
            raise ConfigurationError(f"{what} must be a str, not {type(value).__name__}")  # never shown
        # what a configuration cannot hold comes from a program, whose types are checked elsewhere
        plain = isinstance(value, str | int | float | None)
        values[option] = convert(value, types[option], what) if plain else value
    return values
