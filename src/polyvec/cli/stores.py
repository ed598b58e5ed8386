"""The commands about stores and collections: collections, describe, drop, backends, check."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from polyvec import spec as spec_codec
from polyvec.capabilities import Capabilities
from polyvec.cli.common import (
    FAILED,
    CollectionOption,
    DebugOption,
    JsonOption,
    NamespaceOption,
    StoreOption,
    YesOption,
    collection_name,
    confirm,
    examples,
    place,
    print_json,
    print_lines,
    print_table,
    printable,
    say,
    scoped,
    store_label,
)
from polyvec.config import suggest
from polyvec.errors import ConfigurationError
from polyvec.registry import Adapter, adapters, connect
from polyvec.types import CollectionSpec

app = typer.Typer()

ABILITIES = tuple(item.name for item in dataclasses.fields(Capabilities) if isinstance(item.default, bool))
LIMITS = tuple(
    item.name
    for item in dataclasses.fields(Capabilities)
    if isinstance(item.default, int) and not isinstance(item.default, bool)
)


@app.command(
    epilog=examples(
        "polyvec collections --store chroma:./data",
        "polyvec collections --store demo --json",
    )
)
def collections(store: StoreOption = None, as_json: JsonOption = False, _debug: DebugOption = False) -> None:
    """List the collections of a store."""
    with connect(store) as connected:
        found = [connected.collection(name) for name in connected.list_collections()]
        counts = [collection.count() for collection in found]
        backend = connected.name
    if as_json:
        print_json(
            {
                "store": store_label(store),
                "backend": backend,
                "collections": [
                    _spec(collection.info) | {"count": count}
                    for collection, count in zip(found, counts, strict=True)
                ],
            }
        )
    elif not found:
        say(f"no collections on {backend}")
    else:
        print_table(
            ("collection", "records", "dimension", "metric", "embedding"),
            [
                (spec.name, count, spec.dimension, spec.metric, spec.embedding or "-")
                for spec, count in zip((collection.info for collection in found), counts, strict=True)
            ],
            right=("records", "dimension"),
        )


@app.command(
    epilog=examples(
        "polyvec describe",
        "polyvec describe --store qdrant://localhost --collection docs --namespace tenant-a",
    )
)
def describe(
    store: StoreOption = None,
    collection: CollectionOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Describe a collection.

    Its spec, its embedding model, how many records it has, and where.
    """
    with connect(store) as connected:
        docs = scoped(connected.collection(collection_name(collection)), namespace)
        document = {
            "store": store_label(store),
            "backend": connected.name,
            "version": connected.version,
            "namespace": docs.namespace,
            "count": docs.count(),
            "collection": _spec(docs.info),
        }
    if as_json:
        print_json(document)
        return
    spec = docs.info
    print_lines(
        {
            "collection": spec.name,
            "namespace": docs.namespace or "(default)",
            "records": document["count"],
            "dimension": spec.dimension,
            "metric": spec.metric,
            "embedding": spec.embedding or "not said",
            "index": spec.index or "the default of the backend",
            "index hints": ", ".join(f"{key}: {kind}" for key, kind in spec.indexes.items()) or "none",
            "format version": spec.format_version,
            "store": document["store"],
            "backend": f"{document['backend']} {document['version']}",
        }
    )


def _spec(spec: CollectionSpec) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(spec_codec.to_json(spec))
    return data


@app.command(
    epilog=examples(
        "polyvec drop docs --store chroma:./data",
        "polyvec drop docs --yes",
    )
)
def drop(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection to drop.")],
    store: StoreOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Delete a collection with all its records and namespaces."""
    with connect(store) as connected:
        docs = connected.collection(name)
        confirm(f"Drop {place(connected, docs)} with all its records and namespaces?", yes=yes)
        connected.drop_collection(name)
        if as_json:
            print_json({"dropped": name})
        else:
            say(f"dropped {place(connected, docs)}")


@app.command(
    epilog=examples(
        "polyvec backends",
        "polyvec backends qdrant",
        "polyvec backends --json",
    )
)
def backends(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show everything about this one.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """List the databases that polyvec knows.

    What is installed, how to install the rest, and what each can do.
    """
    known = adapters()
    if name is None:
        chosen = list(known.values())
    elif name in known:
        chosen = [known[name]]
    else:
        raise ConfigurationError(
            f"there is no backend {name!r}{suggest(name, known)}; known are {', '.join(known)}"
        )
    if as_json:
        print_json({"backends": [_adapter(adapter) for adapter in chosen]})
    elif name is None:
        _print_overview(chosen)
    else:
        _print_adapter(chosen[0])


def _adapter(adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "title": adapter.title,
        "installed": adapter.installed,
        "install_command": adapter.install_command,
        "tested": adapter.tested,
        "examples": dict(adapter.examples),
        "options": _options(adapter),
        "capabilities": adapter.capabilities.as_dict(),
    }


def _options(adapter: Adapter) -> list[dict[str, Any]]:
    """Return the options of an adapter; none of the defaults is a secret."""
    return [
        {
            "name": item.name,
            "type": str(item.type),
            "default": None if item.default is dataclasses.MISSING else item.default,
            "environment": adapter.config.environment.get(item.name),
        }
        for item in dataclasses.fields(adapter.config)
        if item.name != "url"
    ]


def _print_overview(chosen: list[Adapter]) -> None:
    print_table(
        ("backend", "installed", "native", "done by polyvec", "dimension", "matches"),
        [
            (
                adapter.name,
                "yes" if adapter.installed else "no",
                ", ".join(ability for ability in ABILITIES if getattr(adapter.capabilities, ability)),
                ", ".join(adapter.capabilities.emulated) or "-",
                f"{adapter.capabilities.max_dimension:,}",
                f"{adapter.capabilities.max_query_limit:,}",
            )
            for adapter in chosen
        ],
        right=("dimension", "matches"),
    )
    print_table(
        ("URL", "opens"),
        [(url, what) for adapter in chosen for url, what in adapter.examples.items()],
    )
    for adapter in chosen:
        if not adapter.installed:
            print(f"{adapter.title} is not installed: {adapter.install_command}")
    print("polyvec backends NAME shows the reasons and the options of one.")


def _print_adapter(adapter: Adapter) -> None:
    capabilities = adapter.capabilities
    print(f"{adapter.title} ({adapter.name})")
    print("installed" if adapter.installed else f"not installed: {adapter.install_command}")
    if adapter.tested:
        print(f"tested: {adapter.tested}")
    print_table(("URL", "opens"), list(adapter.examples.items()))
    print_table(
        ("ability", "", "why"),
        [
            ("metrics", ", ".join(capabilities.metrics), capabilities.reasons.get("metrics", "")),
            *(
                (ability, "yes", "")
                if getattr(capabilities, ability)
                else (ability, "no", capabilities.reason(ability))
                for ability in ABILITIES
            ),
            *(
                (limit, f"{getattr(capabilities, limit):,}", capabilities.reasons.get(limit, ""))
                for limit in LIMITS
            ),
        ],
    )
    if capabilities.emulated:
        print_table(("done by polyvec", "how"), list(capabilities.emulated.items()))
    print_table(
        ("option", "type", "default", "environment"),
        [
            (
                option["name"],
                option["type"],
                "" if option["default"] is None else option["default"],
                option["environment"] or "",
            )
            for option in _options(adapter)
        ],
    )


@app.command(
    epilog=examples(
        "polyvec check --store qdrant://localhost",
        "polyvec check --store chroma:./data --read-only",
    )
)
def check(
    store: StoreOption = None,
    read_only: Annotated[
        bool, typer.Option("--read-only/--write", help="Skip, or do, what needs a collection of its own.")
    ] = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Check that a store answers, and answers right.

    Can it be reached, which version is it, may it be written, are the answers right?
    The writing steps make a collection polyvec_check_... of their own and drop it again.
    """
    from polyvec.cli.check import Step
    from polyvec.cli.check import check as run_check

    steps: list[Step] = []

    def report(step: Step) -> None:
        steps.append(step)
        if not as_json:
            verdict = "ok    " if step.ok else "FAILED"
            line = f"{verdict} {step.name:<12} {step.seconds * 1000:>8.1f} ms  {step.detail}"
            print(printable(line), flush=True)

    ok = run_check(store, write=not read_only, report=report)
    if as_json:
        print_json(
            {
                "store": store_label(store),
                "ok": ok,
                "steps": [dataclasses.asdict(step) for step in steps],
            }
        )
    else:
        failed = sum(not step.ok for step in steps)
        say(f"{len(steps) - failed} of {len(steps)} steps went well on {store_label(store)}")
    if not ok:
        raise typer.Exit(FAILED)
