"""Filters as Typesense's `filter_by`: tokens match exactly, ranges compare companions. See `records`.

    tokens:[5a1f...,77c0...]          has at least one of the tokens
    tokens:!=[5a1f...]                has none of them
    n_3b7c...:>=4611686018427387904   the companion is there, and the comparison holds

joined by `&&`, `||` and parentheses: https://typesense.org/docs/0.24.1/api/search.html#filter-parameters.
There is no other negation, and nothing of what a user wrote stands in it. For tokens, which are words of
letters and digits, `:` ("has the word") means what `:=` means, and spares the engine a second look at every
document.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from polyvec.encoding import namespace_token, sortable_int
from polyvec.filters import And, Filter, Not, Or, push_negations
from polyvec.tokens import HasAny, InRange, RangeOperator, compile_filter
from polyvec_adapters.typesense.records import SLOT, TOKENS, presence_token

MAX_TERMS: Final = 100
"""Conditions, operators and parentheses that a filter may have; with more, 0.24.1 says that it is not valid.

Later servers count operators only, 100 of them by default (`filter-by-max-ops`:
https://typesense.org/docs/guide/configure-typesense.html, 27.0)."""

_SPARE: Final = 4
"""How many of them `confined` and `in_slots` add: a condition and an operator each."""

_SYMBOLS: Final[dict[RangeOperator, str]] = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_INVERSE: Final[dict[RangeOperator, RangeOperator]] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}
_NEVER: Final = f"{TOKENS}:[none]"
_ALWAYS: Final = f"{TOKENS}:!=[none]"


class Plan(NamedTuple):
    """How a filter is answered.

    Attributes:
        native: What the engine tests; the namespace is part of it.
        rest: What is still to be tested on the records that it finds; None where it tests everything.
    """

    native: str
    rest: Filter | None


def plan(namespace: str, filter: Filter | None, known: Collection[str] | None = None) -> Plan:
    """Return how a normalised filter, None for every record, is answered inside a namespace.

    Args:
        namespace: Its name.
        filter: Normalised.
        known: The companions that the collection has, since the engine refuses others; None for all.
    """
    if filter is None:
        return Plan(confined(namespace), None)
    text = to_native(filter, known)
    if _terms(text) <= MAX_TERMS - _SPARE:
        return Plan(confined(namespace, text), None)
    # what does not fit is tested on the records; what does fit leaves fewer of them
    fitting: list[str] = []
    for operand in filter.operands if isinstance(filter, And) else ():
        text = to_native(operand, known)
        if _terms(" && ".join([*fitting, text])) <= MAX_TERMS - _SPARE:
            fitting.append(text)
    return Plan(confined(namespace, *fitting), filter)


def confined(namespace: str, *conditions: str) -> str:
    """Return conditions joined with that of the namespace."""
    return " && ".join([f"{TOKENS}:[{namespace_token(namespace)}]", *conditions])


def in_slots(native: str, first: int, last: int) -> str:
    """Return a filter joined with a range of slots, both ends included."""
    return f"{native} && {SLOT}:[{first}..{last}]"


def with_ids(ids: Collection[str]) -> str:
    """Return the filter for the documents of these ids."""
    return f"id:=[{','.join(ids)}]"


def to_native(filter: Filter, known: Collection[str] | None = None) -> str:
    """Return the text of a normalised filter; it says nothing about the namespace."""
    return _text(_merged(push_negations(compile_filter(filter))), known)


def _terms(text: str) -> int:
    operators = text.count("&&") + text.count("||")
    return 2 * operators + 1 + text.count("(") + text.count(")")


def _merged(node: Filter) -> Filter:
    """Join conditions on tokens where one can say what several do."""
    if not isinstance(node, And | Or):
        return node
    kind = type(node)
    parts: list[Filter] = []
    tokens: dict[str, None] = {}
    for operand in map(_merged, node.operands):
        for part in operand.operands if isinstance(operand, kind) else (operand,):
            match part:
                case HasAny(found) if kind is Or:
                    tokens |= dict.fromkeys(found)
                case Not(HasAny(found)) if kind is And:
                    tokens |= dict.fromkeys(found)
                case _:
                    parts.append(part)
    if tokens:
        joined = HasAny(tuple(tokens))
        parts.append(joined if kind is Or else Not(joined))
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _text(node: Filter, known: Collection[str] | None) -> str:
    match node:
        case And(operands):
            return f"({' && '.join(_text(operand, known) for operand in operands)})"
        case Or(operands):
            return f"({' || '.join(_text(operand, known) for operand in operands)})"
        case HasAny(tokens):
            return f"{TOKENS}:[{','.join(tokens)}]"
        case Not(HasAny(tokens)):
            return f"{TOKENS}:!=[{','.join(tokens)}]"
        case InRange(field):
            return _NEVER if _absent(field, known) else _compare(node)
        case Not(InRange(field, operator, bound)):
            if _absent(field, known):
                return _ALWAYS
            inverse = _compare(InRange(field, _INVERSE[operator], bound))
            return f"({inverse} || {TOKENS}:!=[{presence_token(field)}])"
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _absent(field: str, known: Collection[str] | None) -> bool:
    return known is not None and field not in known


def _compare(node: InRange) -> str:
    return f"{node.field}:{_SYMBOLS[node.operator]}{sortable_int(node.field, node.bound)}"
