"""Documents from files: text, Markdown, JSON lines and CSV.

A file or a row that cannot be read is no end: it is passed on as a document whose `text` raises the reason,
so that a pipeline reports it, like any other document that it cannot use, and goes on.
"""

from __future__ import annotations

import csv
import glob
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from polyvec.config import suggest
from polyvec.errors import InvalidInputError, PolyvecError, shown

T = TypeVar("T")

logger = logging.getLogger(__name__)

OnSkip = Callable[[Path, str], None]


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found, and what is known about it.

    Attributes:
        source: Identifies the document for good: reading it again, changed or not, gives the same source.
        text: All of it.
        metadata: See `polyvec.types.Metadata`; every chunk of the document gets it.
    """

    source: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class UnreadableDocument(Document):
    """A document that could not be read: its `text` raises `error`."""

    __slots__ = ("error",)
    error: PolyvecError

    def __init__(self, source: str, error: PolyvecError) -> None:
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "metadata", {})
        object.__setattr__(self, "error", error)

    @property
    def text(self) -> str:
        """Raise the reason why there is no text."""
        raise self.error

    def __repr__(self) -> str:
        return f"UnreadableDocument({self.source!r}, {self.error!r})"

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class _Fields:
    """How a row becomes a document."""

    text: str
    id: str
    types: Mapping[str, type]


def read(
    *patterns: str | os.PathLike[str],
    text_field: str = "text",
    id_field: str = "id",
    types: Mapping[str, type] | None = None,
    on_skip: OnSkip | None = None,
) -> Iterator[Document]:
    """Read documents from files, in a fixed order, one at a time.

    A `.txt`, `.md` or `.markdown` file is one document; its source is its path, as given. Each line of a
    `.jsonl` file (an object) and each row of a `.csv` file (with a header) is one; its source is its id, or
    `path#number` where it has none, and its metadata are the other fields. All is UTF-8.

    Args:
        *patterns: Files, folders (read with all that is below them, but for names that begin with a dot) and
            globs (`**` is any depth). A file that several of them name is read once.
        text_field: The field of a row with the text.
        id_field: The field of a row with its id, a str or an int.
        types: For some fields the type of their values: int, float, bool or datetime (ISO 8601, with a time
            zone). A string there is converted; an empty one becomes None. Without it all fields of a CSV file
            are strings.
        on_skip: Is called with each file that a folder or glob holds and that is of no known kind, and the
            reason. It is logged in any case.

    Raises:
        InvalidInputError: A pattern that names nothing, or a file of an unknown kind; at once, not only when
            the documents are read.
    """
    if not patterns:
        raise InvalidInputError("say what to read: files, folders or globs")
    for field_, kind in (types or {}).items():
        if kind not in _CONVERT:
            raise InvalidInputError(
                f"types[{field_!r}] must be int, float, bool, str or datetime, not {kind!r}"
            )
    names = [os.path.normpath(pattern) for pattern in patterns]
    for name in names:
        _check_pattern(name)
    return _documents(names, _Fields(text_field, id_field, types or {}), on_skip)


def _check_pattern(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        return
    if path.exists():
        if path.suffix.lower() not in _READERS:
            known = ", ".join(_READERS)
            raise InvalidInputError(f"{name}: unknown kind of file {path.suffix!r}; known are {known}")
    elif not glob.has_magic(name):
        raise InvalidInputError(f"{name}: there is no such file or folder")
    elif next(glob.iglob(name, recursive=True), None) is None:  # noqa: PTH207  # a Path has no magic
        raise InvalidInputError(f"{name}: nothing matches")


def _documents(names: Sequence[str], fields: _Fields, on_skip: OnSkip | None) -> Iterator[Document]:
    read_already: set[str] = set()
    for name in names:
        for path in _files(name):
            if isinstance(path, UnreadableDocument):
                yield path
                continue
            absolute = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links
            if absolute in read_already:
                continue
            read_already.add(absolute)
            if (reader := _READERS.get(path.suffix.lower())) is None:
                reason = f"unknown kind of file {path.suffix!r}"
                logger.info("%s: skipped: %s", path, reason)
                if on_skip is not None:
                    on_skip(path, reason)
            else:
                yield from _guarded(reader, path, fields)


def _files(name: str) -> Iterator[Path | UnreadableDocument]:
    path = Path(name)
    if path.is_file():
        yield path
    elif path.is_dir():
        errors: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=errors.append):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))
        yield from (_unreadable(Path(error.filename), error) for error in errors)
    else:
        for found in sorted(glob.iglob(name, recursive=True)):  # noqa: PTH207
            if Path(found).is_file():
                yield Path(found)


Reader = Callable[[Path, _Fields], Iterator[Document]]


def _guarded(reader: Reader, path: Path, fields: _Fields) -> Iterator[Document]:
    """Yield the documents of a file; where it cannot be read on, one that says so."""
    try:
        yield from reader(path, fields)
    except (OSError, UnicodeDecodeError, csv.Error, PolyvecError) as error:
        yield _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> UnreadableDocument:
    reason = error.strerror if isinstance(error, OSError) else error
    problem = InvalidInputError(f"{path}: cannot be read: {reason}")
    problem.__cause__ = error
    return UnreadableDocument(path.as_posix(), problem)


def _read_text(path: Path, fields: _Fields) -> Iterator[Document]:  # noqa: ARG001  # has no fields
    # newlines as they are, so that offsets in the text are offsets in the file
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield Document(path.as_posix(), file.read())


def _read_jsonl(path: Path, fields: _Fields) -> Iterator[Document]:
    with path.open("rb") as file:  # in bytes, so that a line that is not UTF-8 spoils no other
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path.as_posix()}#{number}"
                yield _row(place, _parse_line, line, fields)


def _read_csv(path: Path, fields: _Fields) -> Iterator[Document]:
    # a field may hold a whole article; the module's limit of 128 KB guards against an unclosed quote only
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        columns = list(rows.fieldnames or ())
        if fields.text not in columns:
            raise InvalidInputError(
                f"there is no column {fields.text!r}{suggest(fields.text, columns)}; there are "
                f"{', '.join(columns) or 'none'}"
            )
        for number, row in enumerate(rows, 1):
            yield _row(f"{path.as_posix()}#{number}", _same_length, row, fields)


def _parse_line(line: bytes) -> Any:
    return json.loads(line.decode("utf-8-sig"))


def _same_length(row: dict[str | Any, str | Any]) -> dict[str | Any, str | Any]:
    if None in row or None in row.values():  # DictReader's marks of too many and too few fields
        raise InvalidInputError("it has not as many fields as the header")
    return row


def _row(place: str, parse: Callable[[T], Any], raw: T, fields: _Fields) -> Document:
    """Return the document of a row, or one that says what is wrong with the row."""
    source = place
    try:
        row = parse(raw)
        if not isinstance(row, dict):
            raise InvalidInputError(f"expected an object, not {shown(row)}")
        found = row.pop(fields.id, None)
        if found not in (None, ""):
            if not isinstance(found, str | int) or isinstance(found, bool):
                raise InvalidInputError(f"field {fields.id!r} must be a str or an int, not {shown(found)}")
            source = str(found)
        if not isinstance(text := row.pop(fields.text, None), str):
            what = "is missing" if text is None else f"must be a str, not {shown(text)}"
            raise InvalidInputError(f"field {fields.text!r} {what}")
        return Document(
            source, text, {key: _converted(key, value, fields.types) for key, value in row.items()}
        )
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, and our own
        problem = InvalidInputError(f"{place}: {error}")
        problem.__cause__ = error
        return UnreadableDocument(source, problem)


def _converted(key: str, value: Any, types: Mapping[str, type]) -> Any:
    if key not in types or not isinstance(value, str):
        return value
    if not value.strip() and types[key] is not str:
        return None
    try:
        return _CONVERT[types[key]](value)
    except (ValueError, KeyError):
        raise InvalidInputError(f"field {key!r} is no {types[key].__name__}: {shown(value)}") from None


_CONVERT: Final[Mapping[type, Callable[[str], Any]]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda value: {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        value.strip().lower()
    ],
    datetime: datetime.fromisoformat,
}

_READERS: Final[Mapping[str, Reader]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".markdown": _read_text,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
}
