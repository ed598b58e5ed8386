"""The two written notations of a filter: JSON objects, for configuration and the wire, and strings.

JSON, in the style that most vector databases share:

    {"year": {"$gte": 2020, "$lt": 2024}, "lang": "en"}       joined by and; a bare value means $eq
    {"$or": [{"lang": "ko"}, {"tags": {"$contains": "x"}}]}   also $and and $not
    {"seen": {"$exists": false}}
    {"at": {"$gt": {"$datetime": "2024-05-01T00:00:00Z"}}}
    {"$eq": ["$odd key", 1]}                                   for keys that begin with $

Operators: $eq $ne $lt $lte $gt $gte $in $nin $contains $contains_any $contains_all $exists.

String:

    year >= 2020 and lang in ["ko", "en"] and not (tags contains "draft" or deleted exists)
    tags contains any ["a", "b"]          tags contains all ["a", "b"]          lang not in ["ko"]
    at >= datetime("2024-05-01T00:00:00Z") and `a key with spaces` == true

Strings take JSON's escapes, in double or single quotes. A key is a word of letters, digits, `_`, `-` and
`.`, or anything in backticks (two backticks stand for one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

from polyvec.errors import InvalidFilterError, shown
from polyvec.filters import (
    MAX_DEPTH,
    NEVER,
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    Filter,
    Gt,
    Gte,
    In,
    Lt,
    Lte,
    Ne,
    Not,
    NotIn,
    Or,
)
from polyvec.types import Scalar

_ONE: Final[dict[str, Callable[[str, Any], Filter]]] = {
    "$eq": Eq, "$ne": Ne, "$lt": Lt, "$lte": Lte, "$gt": Gt, "$gte": Gte, "$contains": Contains,
}  # fmt: skip
_MANY: Final[dict[str, Callable[[str, Any], Filter]]] = {
    "$in": In, "$nin": NotIn, "$contains_any": ContainsAny, "$contains_all": ContainsAll,
}  # fmt: skip
_JSON_NAMES: Final = {kind: name for name, kind in (_ONE | _MANY).items()}
_OPERATORS: Final = [*_ONE, *_MANY, "$exists", "$and", "$or", "$not"]


# JSON ------------------------------------------------------------------------------------------------


def from_json(value: Mapping[str, Any]) -> Filter:
    """Return the filter that a JSON object stands for.

    Raises:
        InvalidFilterError: Names the part that is wrong.
    """
    return _from_json(value, 0)


def _from_json(value: object, depth: int) -> Filter:
    if depth > 2 * MAX_DEPTH:  # an object adds up to two levels; the exact check is made on the nodes
        raise InvalidFilterError(f"a filter may nest {MAX_DEPTH} deep at most")
    if not isinstance(value, Mapping):
        raise InvalidFilterError(f"expected a JSON object, not {shown(value)}")
    if not value:
        raise InvalidFilterError("an empty object is no filter: leave the filter out to match everything")
    parts = [_json_entry(key, inner, depth) for key, inner in value.items()]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _json_entry(key: str, inner: object, depth: int) -> Filter:
    if key in ("$and", "$or"):
        if not isinstance(inner, list):
            raise InvalidFilterError(f"{key} needs a list of objects, not {shown(inner)}")
        kind = And if key == "$and" else Or
        return kind(tuple(_from_json(item, depth + 1) for item in inner))
    if key == "$not":
        return Not(_from_json(inner, depth + 1))
    if isinstance(key, str) and key.startswith("$"):
        if not (isinstance(inner, list) and len(inner) == 2):  # noqa: PLR2004  # a pair
            raise InvalidFilterError(
                f"{key!r} at this place needs a pair [key, value]; operators are {' '.join(_OPERATORS)}"
            )
        return _json_condition(inner[0], key, inner[1])
    if isinstance(inner, Mapping) and inner and "$datetime" not in inner:
        parts = [_json_condition(key, name, operand) for name, operand in inner.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))
    return Eq(key, _json_literal(inner))


def _json_condition(key: str, name: str, operand: object) -> Filter:
    if name in _ONE:
        return _ONE[name](key, _json_literal(operand))
    if name in _MANY:
        if not isinstance(operand, list | tuple):
            raise InvalidFilterError(f"{name} on {key!r} needs a list, not {shown(operand)}")
        return _MANY[name](key, tuple(map(_json_literal, operand)))
    if name == "$exists":
        if not isinstance(operand, bool):
            raise InvalidFilterError(f"$exists on {key!r} needs true or false, not {shown(operand)}")
        return Exists(key) if operand else Not(Exists(key))
    raise InvalidFilterError(f"unknown operator {name!r} on {key!r}; operators are {' '.join(_OPERATORS)}")


def _json_literal(value: object) -> Any:  # checked when the node is built
    if isinstance(value, Mapping) and list(value) == ["$datetime"]:
        return _datetime(value["$datetime"])
    return value


def _datetime(text: object) -> datetime:
    try:
        return datetime.fromisoformat(text)  # type: ignore[arg-type]  # TypeError is caught
    except (TypeError, ValueError):
        raise InvalidFilterError(
            f"{shown(text)} is no ISO 8601 date and time, e.g. 2024-05-01T00:00:00Z"
        ) from None


def to_json(filter: Filter) -> dict[str, Any]:
    """Return the filter as plain JSON data from which `from_json` makes an equal filter."""
    match filter:
        case And(operands):
            return {"$and": list(map(to_json, operands))}
        case Or(operands):
            return {"$or": list(map(to_json, operands))}
        case Not(operand):
            return {"$not": to_json(operand)}
        case Exists(key):
            return _entry(key, "$exists", operand=True)
        case In(key, values) | NotIn(key, values) | ContainsAny(key, values) | ContainsAll(key, values):
            return _entry(key, _JSON_NAMES[type(filter)], [_json_value(value) for value in values])
    name = _JSON_NAMES[type(filter)]
    return _entry(filter.key, name, _json_value(filter.value))  # type: ignore[attr-defined]


def _entry(key: str, name: str, operand: object) -> dict[str, Any]:
    return {name: [key, operand]} if key.startswith("$") else {key: {name: operand}}


def _json_value(value: Scalar) -> object:
    return {"$datetime": value.isoformat()} if isinstance(value, datetime) else value


# Strings ---------------------------------------------------------------------------------------------

_WORD: Final = r"[^\W\d][\w.\-]*"
_TOKEN: Final = re.compile(
    rf"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<key>`(?:[^`]|``)*`)
    | (?P<word>{_WORD})
    | (?P<symbol><=|>=|==|!=|<>|[=<>()\[\],])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMPARE: Final = {
    "==": Eq, "=": Eq, "!=": Ne, "<>": Ne, "<": Lt, "<=": Lte, ">": Gt, ">=": Gte,
}  # fmt: skip
_SYMBOLS: Final[dict[type[Filter], str]] = {
    Eq: "==",
    Ne: "!=",
    Lt: "<",
    Lte: "<=",
    Gt: ">",
    Gte: ">=",
    Contains: "contains",
}
_WORDS: Final[dict[type[Filter], str]] = {
    In: "in", NotIn: "not in", ContainsAny: "contains any", ContainsAll: "contains all",
}  # fmt: skip
_RESERVED: Final = frozenset(
    ("and", "or", "not", "in", "contains", "exists", "true", "false", "any", "all", "datetime")
)


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse(text: str) -> Filter:
    """Return the filter that a string stands for.

    Raises:
        InvalidFilterError: Shows the place where the text stops making sense.
    """
    return _Parser(text).parse()


class _Parser:
    """A recursive-descent parser: or < and < not < condition."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = []
        self.at = 0
        position = 0
        while not self.tokens or self.tokens[-1].kind != "end":
            found = _TOKEN.match(text, position)
            if found is None or found.lastgroup is None:
                position += len(text[position:]) - len(text[position:].lstrip())
                opened = text[position] in "\"'`"
                self.fail("a quote that is never closed" if opened else "unexpected character", position)
            self.tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
            position = found.end()

    def fail(self, what: str, position: int | None = None) -> NoReturn:
        position = self.tokens[self.at].start if position is None else position
        start = max(0, position - 40)
        shown = self.text[start : position + 40].replace("\n", " ")
        raise InvalidFilterError(f"{what} at position {position}\n  {shown}\n  {' ' * (position - start)}^")

    def next(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def take(self, *texts: str) -> bool:
        """Consume the next words or symbols if they are `texts`."""
        ahead = self.tokens[self.at : self.at + len(texts)]
        if [t.text.lower() if t.kind == "word" else t.text for t in ahead] != list(texts):
            return False
        if any(t.kind not in ("word", "symbol") for t in ahead):
            return False
        self.at += len(texts)
        return True

    def expect(self, symbol: str) -> None:
        if not self.take(symbol):
            self.fail(f"expected {symbol!r}")

    def parse(self) -> Filter:
        if self.tokens[0].kind == "end":
            raise InvalidFilterError("the filter is empty: leave it out to match everything")
        result = self.either(0)
        if self.tokens[self.at].kind != "end":
            self.fail("expected `and`, `or` or the end")
        return result

    def either(self, depth: int) -> Filter:
        parts = [self.both(depth)]
        while self.take("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self, depth: int) -> Filter:
        parts = [self.negation(depth)]
        while self.take("and"):
            parts.append(self.negation(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negation(self, depth: int) -> Filter:
        if depth > 2 * MAX_DEPTH:  # parentheses count here; the exact check is made on the nodes
            self.fail(f"nested more than {MAX_DEPTH} deep")
        if self.take("not"):
            return Not(self.negation(depth + 1))
        if self.take("("):
            inner = self.either(depth + 1)
            self.expect(")")
            return inner
        return self.condition()

    def condition(self) -> Filter:
        if self.tokens[self.at].text.lower() in ("true", "false") and self.tokens[self.at].kind == "word":
            return And(()) if self.next().text.lower() == "true" else NEVER
        key = self.key()
        if self.take("exists"):
            return Exists(key)
        if self.take("in"):
            return In(key, self.values())
        if self.take("not", "in"):
            return NotIn(key, self.values())
        if self.take("contains", "any"):
            return ContainsAny(key, self.values())
        if self.take("contains", "all"):
            return ContainsAll(key, self.values())
        if self.take("contains"):
            return Contains(key, self.literal())
        token = self.tokens[self.at]
        if token.kind != "symbol" or token.text not in _COMPARE:
            self.fail("expected == != < <= > >= in, not in, contains or exists")
        self.next()
        return _COMPARE[token.text](key, self.literal())

    def key(self) -> str:
        token = self.tokens[self.at]
        if token.kind == "key":
            self.next()
            return token.text[1:-1].replace("``", "`")
        if token.kind != "word" or token.text.lower() in _RESERVED:
            self.fail("expected a metadata key (put an unusual one in `backticks`)")
        self.next()
        return token.text

    def values(self) -> tuple[Scalar, ...]:
        self.expect("[")
        values: list[Scalar] = []
        while not self.take("]"):
            if values:
                self.expect(",")
            values.append(self.literal())
        return tuple(values)

    def literal(self) -> Scalar:
        token = self.tokens[self.at]
        word = token.text.lower() if token.kind == "word" else ""
        if token.kind == "string":
            self.next()
            return self.string(token)
        if token.kind == "number":
            self.next()
            try:
                return float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
            except ValueError:  # more digits than Python converts
                self.fail("a number that does not fit in an int64", token.start)
        if word in ("true", "false"):
            self.next()
            return word == "true"
        if word == "datetime":
            self.next()
            self.expect("(")
            inner = self.next()
            if inner.kind != "string":
                self.fail('expected a quoted date, e.g. datetime("2024-05-01T00:00:00Z")', inner.start)
            value = _datetime(self.string(inner))
            self.expect(")")
            return value
        hint = f'; put text in quotes: "{token.text}"' if token.kind == "word" else ""
        return self.fail(f"expected a value{hint}")

    def string(self, token: _Token) -> str:
        body = token.text[1:-1]
        if token.text[0] == "'":
            body = re.sub(r"\\(.)|\"", _requote, body, flags=re.DOTALL)
        try:
            return json.loads(f'"{body}"', strict=False)  # type: ignore[no-any-return]
        except ValueError:
            self.fail("a string with an unknown escape", token.start)


def _requote(found: re.Match[str]) -> str:
    if found[1] is None:
        return '\\"'
    return "'" if found[1] == "'" else found[0]


def format_filter(filter: Filter) -> str:
    """Return the string notation, from which `parse` makes an equal filter.

    An `And` or `Or` of a single operand has no notation of its own and is written as that operand.
    """
    match filter:
        case And(()):
            return "true"
        case Or(()):
            return "false"
        case And(operands):
            return " and ".join(map(_inner, operands))
        case Or(operands):
            return " or ".join(map(_inner, operands))
        case Not(operand):
            return f"not {_inner(operand)}"
        case Exists(key):
            return f"{_key(key)} exists"
        case In(key, values) | NotIn(key, values) | ContainsAny(key, values) | ContainsAll(key, values):
            return f"{_key(key)} {_WORDS[type(filter)]} [{', '.join(map(_literal, values))}]"
        case _ if type(filter) in _SYMBOLS:
            symbol = _SYMBOLS[type(filter)]
            return f"{_key(filter.key)} {symbol} {_literal(filter.value)}"  # type: ignore[attr-defined]
    return repr(filter)


def _inner(filter: Filter) -> str:
    text = format_filter(filter)
    return f"({text})" if isinstance(filter, And | Or) and filter.operands else text


def _key(key: str) -> str:
    if re.fullmatch(_WORD, key) and key.lower() not in _RESERVED:
        return key
    return f"`{key.replace('`', '``')}`"


def _literal(value: Scalar) -> str:
    if isinstance(value, datetime):
        return f'datetime("{value.isoformat()}")'
    return json.dumps(value, ensure_ascii=False)
