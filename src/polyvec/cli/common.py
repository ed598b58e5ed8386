"""What all commands share: the options, how things are printed, and how errors end a command."""

from __future__ import annotations

import json
import logging
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from polyvec import metadata as metadata_codec
from polyvec.config import load_configuration, redact
from polyvec.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    ConfigurationError,
    EmbeddingSpaceError,
    ForeignCollectionError,
    InvalidInputError,
    PolyvecError,
    RecordNotFoundError,
    SpecMismatchError,
    UnsupportedOperationError,
)
from polyvec.protocol import Collection, VectorStore
from polyvec.registry import connect
from polyvec.types import Metadata

if TYPE_CHECKING:
    from rich.console import Console

FAILED: Final = 1
WRONG_INPUT: Final = 2
NOT_FOUND: Final = 3
INTERRUPTED: Final = 130

EXIT_CODES: Final = """\
Exit codes: 0 done; 1 the backend failed, or some documents did; 2 wrong usage, input or configuration; \
3 no such collection or record; 130 interrupted."""

DEFAULT_COLLECTION: Final = "docs"

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        envvar="POLYVEC_STORE",
        metavar="URL|NAME",
        help="URL of the store, or its name in polyvec.toml.  [default: defaults.store of polyvec.toml]",
    ),
]
CollectionOption = Annotated[
    str | None,
    typer.Option(
        "--collection",
        "-c",
        metavar="NAME",
        help="Name of the collection.  [default: defaults.collection of polyvec.toml, else docs]",
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="Stay within this namespace."),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        "-e",
        metavar="NAME",
        help="Embedding model: local, openai:MODEL, or a name from polyvec.toml.  "
        "[default: defaults.embedder of polyvec.toml, else local]",
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter", "-f", metavar="FILTER", help="Only these records, e.g. 'year >= 2020 and lang = \"ko\"'."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def examples(*lines: str) -> str:
    """Return an epilog with examples."""
    # backspace: a paragraph that the help must not wrap
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class Commands(TyperGroup):
    """The commands, whose errors end in one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # click's own class or the copy of it in typer
        """Run a command."""
        as_json, debug = "--json" in ctx.args, "--debug" in ctx.args
        if logging.lastResort is not None:  # where warnings go that nobody handles
            logging.lastResort.setFormatter(None if debug else _OneLine())
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("interrupted; what was written stays: run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001  # the end of the line for every error
            if debug:
                traceback.print_exc(file=sys.stderr)
            message = _message(error, debug)
            say(f"error: {message}")
            if as_json:
                print_json({"error": _error_document(error, message)})
            raise typer.Exit(_exit_code(error)) from None


class _OneLine(logging.Formatter):
    """Warnings without tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        reason = f": {record.exc_info[1]}" if record.exc_info else ""
        return f"{record.levelname.lower()}: {record.getMessage()}{reason}"


def _message(error: Exception, debug: bool) -> str:  # noqa: FBT001
    if isinstance(error, PolyvecError):
        text = str(error)
    elif hasattr(error, "format_message"):  # a usage error of click or typer
        text = f"{error.format_message()} (polyvec --help and polyvec COMMAND --help say more)"
    else:
        text = f"{type(error).__name__}: {error}" + ("" if debug else " (--debug shows where)")
    return redact(" ".join(text.split()))


def _exit_code(error: Exception) -> int:
    match error:
        case CollectionNotFoundError() | RecordNotFoundError():
            return NOT_FOUND
        case (
            ConfigurationError()
            | InvalidInputError()
            | UnsupportedOperationError()
            | CollectionExistsError()
            | ForeignCollectionError()
            | SpecMismatchError()
            | EmbeddingSpaceError()
        ):
            return WRONG_INPUT
    return int(getattr(error, "exit_code", FAILED))


def _error_document(error: Exception, message: str) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": message,
        "retryable": bool(getattr(error, "retryable", False)),
        "backend": getattr(error, "backend", None),
        "operation": getattr(error, "operation", None),
        "collection": getattr(error, "collection", None),
    }


# Opening -----------------------------------------------------------------------------------------------


def collection_name(given: str | None) -> str:
    """Return the name of the collection: as given, or configured, or "docs"."""
    return given or load_configuration().defaults.get("collection", DEFAULT_COLLECTION)


def store_label(given: str | None) -> str:
    """Return what names the store, without secrets."""
    return redact(given or load_configuration().defaults.get("store", ""))


@contextmanager
def opened(store: str | None, collection: str | None, namespace: str | None) -> Iterator[Collection]:
    """Open a collection, confined to a namespace if there is one, and close its store at the end."""
    with connect(store) as connected:
        yield scoped(connected.collection(collection_name(collection)), namespace)


def scoped(collection: Collection, namespace: str | None) -> Collection:
    """Return the collection, confined to a namespace if there is one."""
    return collection if namespace is None else collection.scoped(namespace)


def place(store: VectorStore, collection: Collection) -> str:
    """Return where records are, for messages."""
    within = f", namespace {collection.namespace!r}" if collection.namespace else ""
    return f"{collection.name!r} on {store.name}{within}"


# Printing ----------------------------------------------------------------------------------------------


def say(message: str) -> None:
    """Print a message on stderr."""
    print(printable(message), file=sys.stderr)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout, with characters beyond ASCII as they are where stdout takes them."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    print(json.dumps(document, indent=2, ensure_ascii=not encoding.lower().startswith("utf")))


def plain_metadata(metadata: Metadata) -> Any:  # a JSON value
    """Return metadata as JSON data, a datetime as `{"$datetime": "2024-05-01T12:00:00+09:00"}`."""
    return json.loads(metadata_codec.encode(metadata))


def printable(text: str) -> str:
    """Return text of unknown origin with control characters shown instead of sent to the terminal."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else ascii(char)[1:-1]
        for char in text
    )


def shortened(text: str, length: int) -> str:
    """Return text on one line, cut after `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def lines(values: Mapping[str, Any]) -> str:
    """Return `key: value` lines; what is neither str nor number as JSON."""
    return "\n".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
    )


def shown_metadata(metadata: Metadata, *, everything: bool = False) -> str:
    """Return metadata for people; without the keys that polyvec keeps for itself, unless all are wanted."""
    plain = plain_metadata(metadata)
    return lines({key: value for key, value in plain.items() if everything or not key.startswith("_")})


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    ruled: bool = False,
) -> None:
    """Print a table on stdout; the columns named in `right` hold numbers, and cells may have many lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_lines=ruled)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console().print(table)


def print_lines(values: Mapping[str, object]) -> None:
    """Print names and values on stdout, one a line."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(name, Text(printable(str(value)), overflow="fold"))
    console().print(table)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer was given; end the command if it is no.

    Raises:
        InvalidInputError: Nobody can be asked.
    """
    if yes:
        return
    if not on_terminal():
        raise InvalidInputError(f"{question} Nobody can be asked here: pass --yes if that is meant")
    if not typer.confirm(printable(question), err=True):
        say("nothing was changed")
        raise typer.Exit(FAILED)


def on_terminal() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin.isatty()
