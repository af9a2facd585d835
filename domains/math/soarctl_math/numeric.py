"""Equality of expressions by value: at 60 and 400 digits, and at several points where there are variables.

Two different values agree to 400 digits only if someone made them to; the difference of two equal ones shrinks as
digits are added. Every operation is bounded before it is carried out. mpmath does the arithmetic (it comes with
sympy); where it is missing, `available` is False.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from functools import cache, reduce
from operator import add, mul
from typing import Any

from soarctl_math.exact import Beyond, Undefined
from soarctl_math.expressions import Node, symbols

COARSE, FINE = 60, 400
MAX_LOG = 40_000
"""Values are kept between exp(-MAX_LOG) and exp(MAX_LOG)."""
MAX_ANGLE = 10**30
POINTS = 6
COUNTERS = frozenset("nkmNKM")
"""Variables that count: they are tried at integers, so that (-1)^n and n! mean what they say."""

Values = Mapping[str, Any]


@cache
def available() -> bool:
    return importlib.util.find_spec("mpmath") is not None


class _Contexts(threading.local):
    """mpmath contexts of one thread; a context's precision changes while it works, so none is shared."""

    def __init__(self) -> None:
        self.by_digits: dict[int, Any] = {}

    def get(self, digits: int) -> Any:
        if digits not in self.by_digits:
            from mpmath.ctx_mp import MPContext

            context = MPContext()
            context.dps = digits
            self.by_digits[digits] = context
        return self.by_digits[digits]


_contexts = _Contexts()


def same(one: Node, other: Node) -> bool:
    """Whether two expressions have the same value at every point where both have one.

    Raises:
        Beyond: they cannot be evaluated.
        Undefined: one of them has no value anywhere.
    """
    names = sorted(symbols(one) | symbols(other))
    compared = 0
    points = 1 if not names else 8 * POINTS if _steps(one) or _steps(other) else POINTS
    for point in range(points):
        try:
            if not _same_at(one, other, names, point):
                return False
            compared += 1
        except Undefined:
            continue
    if not compared:
        raise Undefined("no value")
    return True


def _steps(node: Node) -> bool:
    """Whether there is a floor or a ceiling in it: two of these agree at most points without being the same."""
    return node.name in ("floor", "ceil") or any(_steps(child) for child in node.below)


def _same_at(one: Node, other: Node, names: list[str], point: int) -> bool:
    coarse, fine = _context(COARSE), _context(FINE)
    a, b = (_at(coarse, node, names, point) for node in (one, other))
    # Where a variable is negative a root or logarithm may leave the real line: then nothing is concluded.
    if names and point == POINTS - 1 and (coarse.im(a) or coarse.im(b)):
        raise Undefined("not real")
    gap, size = abs(a - b), max(abs(a), abs(b))
    if gap > size * coarse.mpf(10) ** -20 and size > coarse.mpf(10) ** -30:
        return False
    if point:
        return True
    a, b = (_at(fine, node, names, point) for node in (one, other))
    fine_gap, size = abs(a - b), max(abs(a), abs(b))
    return bool(fine_gap <= size * fine.mpf(10) ** -330 or fine_gap <= gap * fine.mpf(10) ** -100)


def value(node: Node) -> Any:
    """A closed expression's value to 60 digits, as an mpmath number.

    Raises:
        Beyond, Undefined: as `same`.
    """
    return _at(_context(COARSE), node, [], 0)


def _context(digits: int) -> Any:
    if not available():
        raise Beyond("mpmath is not installed")
    return _contexts.get(digits)


def _at(context: Any, node: Node, names: list[str], point: int) -> Any:
    return evaluate(context, node, {name: _coordinate(context, name, point) for name in names})


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _coordinate(context: Any, name: str, point: int) -> Any:
    if name.partition("_")[0] in COUNTERS:
        return context.mpf(2 + _seed(name) % 4 + point)
    coordinate = context.mpf(_seed(f"{name}/{point}")) / 2**48 * 2 + context.mpf(3) / 10
    return -coordinate if point == POINTS - 1 else coordinate


def evaluate(context: Any, node: Node, values: Values) -> Any:
    """The value of an expression in an mpmath context.

    Raises:
        Beyond, Undefined: as `same`.
    """
    if node.head == "number":
        return context.mpf(node.value.numerator) / node.value.denominator
    if node.head == "symbol":
        if node.name not in values:
            raise Beyond(f"{node.name} has no value")
        return values[node.name]
    if node.head == "constant":
        if node.name == "infty":
            raise Beyond("infinity")
        return {"pi": context.pi, "e": context.e, "i": context.j}[node.name] * 1
    below = [evaluate(context, child, values) for child in node.below]
    match node.head:
        case "add":
            return reduce(add, below)
        case "times":
            return reduce(mul, below)
        case "negative":
            return -below[0]
        case "degrees":
            return below[0] * context.pi / 180
        case "over":
            return _divided(below[0], below[1])
        case "power":
            return _power(context, below[0], below[1])
        case "applied":
            # Any function will do, as long as it is the same one for the same name.
            first, second = (context.mpf(_seed(f"{node.name}{k}")) / 2**47 for k in "12")
            return context.sin(_angle(context, below[0] * first)) + second * below[0]
        case "function":
            return _function(context, node.name, below)
        case _:
            raise Beyond(node.head)


def _divided(top: Any, bottom: Any) -> Any:
    if not bottom:
        raise Undefined("division by zero")
    return top / bottom


def _power(context: Any, base: Any, exponent: Any) -> Any:
    if not base:
        if context.re(exponent) > 0:
            return base
        raise Undefined("zero to a power that is not positive")
    logarithm = context.ln(base)
    if abs(logarithm) * abs(exponent) > MAX_LOG:
        raise Beyond("a power that is too large")
    return base ** int(context.re(exponent)) if context.isint(exponent) else base**exponent


def _angle(context: Any, argument: Any) -> Any:
    if abs(argument) > MAX_ANGLE or abs(context.im(argument)) > MAX_LOG:
        raise Beyond("an angle out of all proportion")
    return argument


def _exp(context: Any, argument: Any) -> Any:
    if abs(argument) > MAX_LOG:
        raise Beyond("a power that is too large")
    return context.exp(argument)


def _log(context: Any, argument: Any, base: Any | None = None) -> Any:
    if not argument or (base is not None and (not base or base == 1)):
        raise Undefined("a logarithm without a value")
    return context.ln(argument) if base is None else _divided(context.ln(argument), context.ln(base))


def _root(context: Any, argument: Any, degree: Any) -> Any:
    if not context.isint(degree) or not 1 <= degree <= 10_000:
        raise Beyond("root")
    degree = int(degree)
    if degree % 2 and not context.im(argument) and context.re(argument) < 0:
        return -((-context.re(argument)) ** (context.mpf(1) / degree))  # the real root
    return context.sqrt(argument) if degree == 2 else argument ** (context.mpf(1) / degree)


def _counted(context: Any, *arguments: Any) -> None:
    if any(context.im(x) or not -0.5 < context.re(x) <= 5000 for x in arguments):
        raise Beyond("a factorial out of all proportion")


def _factorial(context: Any, argument: Any) -> Any:
    _counted(context, argument)
    return context.factorial(argument)


def _binomial(context: Any, top: Any, bottom: Any) -> Any:
    _counted(context, top, bottom)
    return context.binomial(top, bottom)


def _real(context: Any, argument: Any) -> Any:
    if context.im(argument) or abs(argument) > MAX_ANGLE:
        raise Beyond("not a real number")
    return context.re(argument)


_OF_ONE: Mapping[str, Callable[[Any, Any], Any]] = {
    "exp": _exp,
    "ln": _log,
    "log": _log,
    "lg": lambda c, x: _log(c, x, c.mpf(10)),
    "factorial": _factorial,
    "abs": lambda c, x: abs(x),
    "floor": lambda c, x: c.floor(_real(c, x)),
    "ceil": lambda c, x: c.ceil(_real(c, x)),
    "sin": lambda c, x: c.sin(_angle(c, x)),
    "cos": lambda c, x: c.cos(_angle(c, x)),
    "tan": lambda c, x: _divided(c.sin(_angle(c, x)), c.cos(x)),
    "cot": lambda c, x: _divided(c.cos(_angle(c, x)), c.sin(x)),
    "sec": lambda c, x: _divided(c.mpf(1), c.cos(_angle(c, x))),
    "csc": lambda c, x: _divided(c.mpf(1), c.sin(_angle(c, x))),
    "sinh": lambda c, x: (_exp(c, x) - _exp(c, -x)) / 2,
    "cosh": lambda c, x: (_exp(c, x) + _exp(c, -x)) / 2,
    "tanh": lambda c, x: _divided(_exp(c, x) - _exp(c, -x), _exp(c, x) + _exp(c, -x)),
    "arcsin": lambda c, x: c.asin(_angle(c, x)),
    "arccos": lambda c, x: c.acos(_angle(c, x)),
    "arctan": lambda c, x: c.atan(_angle(c, x)) if x * x != -1 else _divided(x, 0),
}
_OF_TWO: Mapping[str, Callable[[Any, Any, Any], Any]] = {"root": _root, "log": _log, "binom": _binomial}


def _function(context: Any, name: str, arguments: list[Any]) -> Any:
    if name in ("min", "max") and not any(context.im(x) for x in arguments):
        return min(arguments) if name == "min" else max(arguments)
    if len(arguments) == 1 and name in _OF_ONE:
        return _OF_ONE[name](context, arguments[0])
    if len(arguments) == 2 and name in _OF_TWO:
        return _OF_TWO[name](context, *arguments)
    raise Beyond(name)
