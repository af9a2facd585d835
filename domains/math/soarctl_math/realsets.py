"""Sets of real numbers: intervals, unions, inequalities. Two are equal if they hold the same points.

The end points of both sets cut the line into points and open pieces; a set holds all of a piece or nothing of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from soarctl_math import numeric
from soarctl_math.answers import Answer, Combination, Condition, Group, Named, Relation, Value
from soarctl_math.exact import Beyond, Undefined
from soarctl_math.expressions import Node, add, negative, number, symbols

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
INFINITY = float("inf")


@dataclass(frozen=True, slots=True)
class Interval:
    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


@dataclass(frozen=True, slots=True)
class Operation:
    operator: str
    parts: tuple["RealSet", ...]


RealSet = Interval | Operation


def same_set(one: Answer, other: Answer) -> bool | None:
    """Whether two answers are the same set of real numbers; None where one of them is not a set that we can read."""
    try:
        a, b = real_set(one), real_set(other)
        if a is None or b is None:
            return None
        if _closed_at_infinity(a) or _closed_at_infinity(b):
            return False  # [-\\infty, 3) is no interval
        cuts = _cuts([*_ends(a), *_ends(b)])
        return all(_holds(a, cuts, cell) == _holds(b, cuts, cell) for cell in range(2 * len(cuts) + 1))
    except (Beyond, Undefined, ValueError, TypeError):
        return None


def infinite(node: Node) -> int:
    """1 and -1 for the infinities, 0 for anything else."""
    if node.head == "constant" and node.name == "infty":
        return 1
    if node.head == "negative":
        return -infinite(node.below[0])
    return 0


def _end(answer: Answer) -> Any:
    if not isinstance(answer, Value) or answer.unit not in ("", "deg", "$"):
        raise Beyond("not a number")
    if sign := infinite(answer.node):
        return sign * INFINITY
    value = numeric.value(answer.node)
    if getattr(value, "imag", 0):
        raise Beyond("not a real number")
    return value.real


def real_set(answer: Answer) -> RealSet | None:
    """The set that an answer describes, or None.

    Raises:
        Beyond, Undefined: an end point cannot be evaluated.
    """
    match answer:
        case Group("pair", (low, high), brackets):
            return Interval(_end(low), brackets[0] == "[", _end(high), brackets[1] == "]")
        case Group("set", items):
            return Operation("cup", tuple(_point(_end(item)) for item in items))
        case Group("list", items):
            parts = [real_set(item) for item in items]
            whole = [part for part in parts if part is not None]
            return Operation("cup", tuple(whole)) if len(whole) == len(items) else None
        case Combination(operator, parts):
            found = [real_set(part) for part in parts]
            whole = [part for part in found if part is not None]
            return Operation(operator, tuple(whole)) if len(whole) == len(parts) else None
        case Named("R"):
            return Interval(-INFINITY, False, INFINITY, False)
        case Named("empty"):
            return Operation("cup", ())
        case Condition(relation):
            return real_set(relation)
        case Relation(sides, operators):
            return _solved(sides, operators)
        case _:
            return None


def _closed_at_infinity(part: RealSet) -> bool:
    if isinstance(part, Operation):
        return any(_closed_at_infinity(child) for child in part.parts)
    return (part.low_closed and part.low == -INFINITY) or (part.high_closed and part.high == INFINITY)


def _point(value: Any) -> Interval:
    return Interval(value, True, value, True)


def _solved(sides: Sequence[Answer], operators: Sequence[str]) -> RealSet | None:
    if operators == ("in",):
        return real_set(sides[1])
    if not set(operators) <= _FLIPPED.keys() or not all(isinstance(side, Value) for side in sides):
        return None
    nodes = [side.node for side in sides if isinstance(side, Value)]
    parts = [_one(left, operator, right) for left, operator, right in zip(nodes, operators, nodes[1:], strict=False)]
    if len({frozenset(symbols(node)) for node in nodes if symbols(node)}) != 1:
        return None
    return Operation("cap", tuple(parts))


def _one(left: Node, operator: str, right: Node) -> RealSet:
    for node, bound, sign in ((left, right, operator), (right, left, _FLIPPED[operator])):
        if node.head == "function" and node.name == "abs" and not symbols(bound):
            inner = node.below[0]
            low, high = _linear(inner, _FLIPPED[sign], negative(bound)), _linear(inner, sign, bound)
            return Operation("cap" if sign in ("<", "<=", "!=") else "cup", (low, high))
        # f(x) > 1 tells the values of f(x), as x > 1 tells those of x.
        if node.head in ("symbol", "applied") and not symbols(bound):
            return _half_line(sign, _end(Value(bound)))
    return _linear(left, operator, right)


def _linear(left: Node, operator: str, right: Node) -> RealSet:
    """What satisfies an inequality that is linear in its only variable."""
    difference = add(left, negative(right))
    (name,) = symbols(difference)
    at = [numeric.value(_put(difference, name, number(k))) for k in (0, 1, 2, -5)]
    slope = at[1] - at[0]
    if abs(at[2] - at[0] - 2 * slope) + abs(at[3] - at[0] + 5 * slope) > abs(slope) * 1e-40 or not slope:
        raise Beyond("not linear")
    if getattr(slope, "imag", 0):
        raise Beyond("not real")
    return _half_line(operator if slope > 0 else _FLIPPED[operator], -at[0] / slope)


def _half_line(operator: str, bound: Any) -> RealSet:
    if operator == "=":
        return _point(bound)
    if operator == "!=":
        return Operation("setminus", (Interval(-INFINITY, False, INFINITY, False), _point(bound)))
    if operator in ("<", "<="):
        return Interval(-INFINITY, False, bound, operator == "<=" and bound != INFINITY)
    return Interval(bound, operator == ">=" and bound != -INFINITY, INFINITY, False)


def _put(node: Node, name: str, value: Node) -> Node:
    if node.head == "symbol" and node.name == name:
        return value
    if node.head == "applied":
        raise Beyond("a function")
    return Node(node.head, tuple(_put(child, name, value) for child in node.below), node.name, node.value)


def _ends(part: RealSet) -> list[Any]:
    if isinstance(part, Interval):
        return [end for end in (part.low, part.high) if abs(end) != INFINITY]
    return [end for child in part.parts for end in _ends(child)]


def _near(one: Any, other: Any) -> bool:
    if INFINITY in (abs(one), abs(other)):
        return one == other
    return abs(one - other) <= 1e-40 * max(abs(one), abs(other), 1e-30)


def _cuts(ends: list[Any]) -> list[Any]:
    cuts: list[Any] = []
    for end in sorted(ends):
        if not cuts or not _near(cuts[-1], end):
            cuts.append(end)
    return cuts


def _holds(part: RealSet, cuts: list[Any], cell: int) -> bool:
    """Whether a set holds cell number 2k + 1, the k-th cut, or 2k, the open piece before it."""
    if isinstance(part, Operation):
        held = [_holds(child, cuts, cell) for child in part.parts]
        combine: Callable[[list[bool]], bool] = {"cup": any, "cap": all}.get(part.operator, _without)
        return combine(held)
    low, high = (_place(cuts, end) for end in (part.low, part.high))
    above = cell > low or (cell == low and part.low_closed)
    below = cell < high or (cell == high and part.high_closed)
    return above and below


def _without(held: list[bool]) -> bool:
    return held[0] and not any(held[1:])


def _place(cuts: list[Any], end: Any) -> int:
    if abs(end) == INFINITY:
        return -1 if end < 0 else 2 * len(cuts) + 1
    return next(2 * k + 1 for k, cut in enumerate(cuts) if _near(cut, end))
