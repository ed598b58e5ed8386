"""The commands about records: ingest, search, get, delete, count."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from polyvec.cli.common import (
    NOT_FOUND,
    CollectionOption,
    DebugOption,
    FilterOption,
    JsonOption,
    NamespaceOption,
    StoreOption,
    YesOption,
    collection_name,
    confirm,
    examples,
    opened,
    place,
    plain_metadata,
    print_json,
    print_lines,
    say,
    scoped,
    shown_metadata,
)
from polyvec.errors import InvalidInputError
from polyvec.registry import connect
from polyvec.types import Record

app = typer.Typer()


@app.command(
    epilog=examples(
        "polyvec get handbook.md#0",
        "polyvec get a b c --store chroma:./data --vectors --json",
    )
)
def get(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of the records.")],
    store: StoreOption = None,
    collection: CollectionOption = None,
    namespace: NamespaceOption = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Show the vectors too.")] = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Show records by id.

    The exit code is 3 if one of them does not exist.
    """
    with opened(store, collection, namespace) as docs:
        found = docs.get(ids, include_vectors=vectors)
    records = [record for record in found if record is not None]
    missing = [id for id, record in zip(ids, found, strict=True) if record is None]
    if as_json:
        print_json({"records": [_record(record) for record in records], "missing": missing})
    else:
        for record in records:
            _print_record(record)
    if missing:
        say(f"not found: {', '.join(missing)}")
        raise typer.Exit(NOT_FOUND)


def _record(record: Record) -> dict[str, Any]:
    document = {"id": record.id, "text": record.text, "metadata": plain_metadata(record.metadata)}
    return document if record.vector is None else document | {"vector": [float(x) for x in record.vector]}


def _print_record(record: Record) -> None:
    values = {"id": record.id, "text": "-" if record.text is None else record.text}
    values["metadata"] = shown_metadata(record.metadata) or "-"
    if record.vector is not None:
        values["vector"] = " ".join(f"{number:.6g}" for number in record.vector)
    print_lines(values)
    print()


@app.command(
    epilog=examples(
        "polyvec count",
        'polyvec count --filter \'year >= 2020 and lang in ["ko","en"]\'',
    )
)
def count(
    store: StoreOption = None,
    collection: CollectionOption = None,
    namespace: NamespaceOption = None,
    filter: FilterOption = None,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Count records, exactly."""
    with opened(store, collection, namespace) as docs:
        number = docs.count(filter)
    if as_json:
        print_json({"count": number})
    else:
        print(number)


@app.command(
    epilog=examples(
        "polyvec delete handbook.md#0 handbook.md#1",
        "polyvec delete --filter 'year < 2015' --dry-run",
        "polyvec delete --all --namespace tenant-a --yes",
    )
)
def delete(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Ids of the records.", show_default=False)
    ] = None,
    store: StoreOption = None,
    collection: CollectionOption = None,
    namespace: NamespaceOption = None,
    filter: FilterOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete every record of the namespace.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Delete records by id, by filter, or all.

    Asks first, unless --yes is given.
    """
    if bool(ids) + (filter is not None) + everything != 1:
        raise InvalidInputError("say what to delete: either ids, or --filter, or --all")
    with connect(store) as connected:
        docs = scoped(connected.collection(collection_name(collection)), namespace)
        if ids:
            found = docs.get(ids, include_vectors=False, include_text=False, include_metadata=False)
            number = len({record.id for record in found if record is not None})
        else:
            number = docs.count(filter)
        records = f"{number} record{'' if number == 1 else 's'} of {place(connected, docs)}"
        if number and not dry_run:
            confirm(f"Delete {records}?", yes=yes)
            if everything:
                docs.clear()
            else:
                docs.delete(ids or None, filter=filter)
    if as_json:
        print_json({"deleted": 0 if dry_run else number, "matching": number, "dry_run": dry_run})
    else:
        say(f"{'would delete' if dry_run else 'deleted'} {records}")
