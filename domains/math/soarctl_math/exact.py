"""Exact arithmetic: canonical forms of what is built from rationals, roots, pi, e, i and variables.

A value is a quotient of two polynomials over the rationals. A polynomial is a sum of terms; a term is a coefficient
and a monomial, which maps generators to exponents. Generators are primes with a fractional exponent (roots), "i",
"pi", "e", and variables. Products of fractional powers of different primes are linearly independent over the rationals
(Besicovitch 1940), so two values are equal if and only if the cross products of their quotients have the same terms;
for pi and e together this is Schanuel's conjecture.

Whatever would grow out of proportion raises `Beyond`, before it is computed.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from soarctl_math.expressions import Node, spelled

MAX_BITS = 60_000
"""Of any integer. 2021055^2011, from a real gold, has 42,100."""
MAX_TERMS = 300
MAX_WORK = 20_000
"""Products of terms in one multiplication."""
WORK = 30_000
"""Of one comparison: a third of a second. A product of two terms counts 1, and more with long coefficients."""
_TRIAL = 3000

Monomial = tuple[tuple[str | int, Fraction], ...]
Polynomial = Mapping[Monomial, Fraction]


class Beyond(Exception):
    """Not a value that exact arithmetic can hold; another way of comparing has to be found."""


class Undefined(Exception):
    """Not a value at all: a division by zero, say."""


class _Allowance(threading.local):
    left = WORK


_allowance = _Allowance()


def allow(work: int) -> None:
    """Sets what this thread may spend from now on, until it gets `Beyond`."""
    _allowance.left = work


def _spend(work: int) -> None:
    _allowance.left -= work
    if _allowance.left < 0:
        raise Beyond("work")


ONE: Monomial = ()


@dataclass(frozen=True, slots=True)
class Exact:
    top: Polynomial
    bottom: Polynomial

    def rational(self) -> Fraction | None:
        """Its value, where it is a rational number."""
        if self.bottom != {ONE: Fraction(1)}:
            return None
        if not self.top:
            return Fraction(0)
        return self.top[ONE] if len(self.top) == 1 and ONE in self.top else None


def rational(value: int | Fraction) -> Exact:
    return Exact({ONE: Fraction(value)} if value else {}, {ONE: Fraction(1)})


def equal(one: Exact, other: Exact) -> bool | None:
    """Whether two values are the same; None where huge powers make it impossible to tell."""
    if one.bottom == other.bottom and one.top == other.top:
        return True
    left, right = _multiply(one.top, other.bottom), _multiply(other.top, one.bottom)
    if left == right:
        return True
    huge = any(isinstance(name, int) and not 0 < exponent < 1 for m in (*left, *right) for name, exponent in m)
    return None if huge and len(left) + len(right) > 2 else False


def evaluate(node: Node) -> Exact:
    """The canonical form of an expression.

    Raises:
        Beyond: it holds something else than arithmetic, or is too large.
        Undefined: it divides by zero.
    """
    below = [evaluate(child) for child in node.below] if node.head not in ("applied", "degrees") else []
    match node.head:
        case "number":
            return rational(node.value)
        case "symbol":
            return _generator(node.name)
        case "constant" if node.name != "infty":
            return _generator({"i": "\\i", "e": "\\e", "pi": "\\pi"}[node.name])
        case "applied":
            return _generator(f"{node.name}({_name(node.below[0])})")
        case "add":
            total = below[0]
            for term in below[1:]:
                total = _add(total, term)
            return total
        case "negative":
            return Exact({m: -c for m, c in below[0].top.items()}, below[0].bottom)
        case "times":
            total = below[0]
            for factor in below[1:]:
                total = _quotient(_multiply(total.top, factor.top), _multiply(total.bottom, factor.bottom))
            return total
        case "over":
            return _divide(*below)
        case "power":
            return _power(*below)
        case "function":
            return _function(node.name, below)
        case _:
            raise Beyond(node.head)


def _name(node: Node) -> str:
    try:
        value = evaluate(node)
    except (Beyond, Undefined):
        return spelled(node)
    return repr((sorted(value.top.items(), key=repr), sorted(value.bottom.items(), key=repr)))


def _generator(name: str) -> Exact:
    return Exact({((name, Fraction(1)),): Fraction(1)}, {ONE: Fraction(1)})


def _checked(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise Beyond("digits")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _add(one: Exact, other: Exact) -> Exact:
    if one.bottom == other.bottom:
        return _quotient(_sum(one.top, other.top), one.bottom)
    top = _sum(_multiply(one.top, other.bottom), _multiply(other.top, one.bottom))
    return _quotient(top, _multiply(one.bottom, other.bottom))


def _sum(one: Polynomial, other: Polynomial) -> Polynomial:
    total = dict(one)
    for monomial, coefficient in other.items():
        _spend(1 + _bits(coefficient) // 200)
        value = _checked(total.get(monomial, Fraction(0)) + coefficient)
        if value:
            total[monomial] = value
        else:
            del total[monomial]
    if len(total) > MAX_TERMS:
        raise Beyond("terms")
    return total


def _multiply(one: Polynomial, other: Polynomial) -> Polynomial:
    if len(one) * len(other) > MAX_WORK:
        raise Beyond("terms")
    total: dict[Monomial, Fraction] = {}
    for m, c in one.items():
        for n, d in other.items():
            bits = _bits(c) + _bits(d)
            if bits > MAX_BITS:
                raise Beyond("digits")
            _spend(1 + bits // 200)
            monomial, coefficient = _merge(m, n)
            value = total.get(monomial, Fraction(0)) + c * d * coefficient
            if value:
                total[monomial] = value
            else:
                total.pop(monomial, None)
    if len(total) > MAX_TERMS:
        raise Beyond("terms")
    return total


def _merge(one: Monomial, other: Monomial) -> tuple[Monomial, Fraction]:
    if not one:
        return other, Fraction(1)
    if not other:
        return one, Fraction(1)
    exponents = dict(one)
    for name, exponent in other:
        exponents[name] = exponents.get(name, Fraction(0)) + exponent
    return _normal(exponents)


def _normal(exponents: dict[str | int, Fraction]) -> tuple[Monomial, Fraction]:
    """The monomial of these exponents, with what is rational in it as a coefficient."""
    coefficient = Fraction(1)
    kept: list[tuple[str | int, Fraction]] = []
    for name, exponent in exponents.items():
        if isinstance(name, int):
            whole = math.floor(exponent)
            # A power too large to write out stays a generator: 4^(5 10^8) and 2^(10^9) are the same one.
            if abs(whole) * name.bit_length() <= MAX_BITS // 2:
                coefficient *= Fraction(name) ** whole
                exponent -= whole
        elif name == "\\i":
            turns = int(exponent) % 4
            coefficient *= -1 if turns >= 2 else 1
            exponent = Fraction(turns % 2)
        if exponent:
            kept.append((name, exponent))
    return tuple(sorted(kept, key=_order)), _checked(coefficient)


def _order(entry: tuple[str | int, Fraction]) -> tuple[bool, str]:
    return isinstance(entry[0], int), str(entry[0])


def _quotient(top: Polynomial, bottom: Polynomial) -> Exact:
    if not bottom:
        raise Undefined("division by zero")
    if len(bottom) > 1:
        return Exact(top, bottom)
    ((monomial, coefficient),) = bottom.items()
    inverse, scale = _normal({name: -exponent for name, exponent in monomial})
    return Exact(_multiply(top, {inverse: scale / coefficient}), {ONE: Fraction(1)})


def _divide(top: Exact, bottom: Exact) -> Exact:
    if not bottom.top:
        raise Undefined("division by zero")
    return _quotient(_multiply(top.top, bottom.bottom), _multiply(top.bottom, bottom.top))


def _power(base: Exact, exponent: Exact) -> Exact:
    if base.rational() == 1:
        return base
    n = exponent.rational()
    if n is None:
        raise Beyond("exponent")
    if not base.top:
        if n <= 0:
            raise Undefined("zero to a power that is not positive")
        return base
    if n < 0:
        return _power(_divide(rational(1), base), Exact({ONE: -n}, {ONE: Fraction(1)}))
    if len(base.top) == len(base.bottom) == 1:
        ((monomial, coefficient),) = base.top.items()
        return Exact(*_monomial_power(monomial, coefficient, n))
    if n.denominator != 1 or n > 64:
        raise Beyond("exponent")
    result = rational(1)
    for _ in range(int(n)):
        result = Exact(_multiply(result.top, base.top), _multiply(result.bottom, base.bottom))
    return result


def _monomial_power(monomial: Monomial, coefficient: Fraction, n: Fraction) -> tuple[Polynomial, Polynomial]:
    exponents: dict[str | int, Fraction] = {}
    sign = Fraction(1)
    for name, exponent in monomial:
        if n.denominator != 1 and (name == "\\i" or (exponent != 1 and not isinstance(name, int) and name[0] != "\\")):
            raise Beyond("a root of a power")  # the root of x^2 is not always x
        exponents[name] = exponent * n
    if abs(n.numerator) > 10**12 or n.denominator > 60:
        raise Beyond("exponent")
    if coefficient < 0:
        coefficient = -coefficient
        if n.denominator == 1:
            sign = Fraction(-1 if n.numerator % 2 else 1)
        elif n.denominator == 2:
            exponents["\\i"] = Fraction(n.numerator)
        else:
            raise Beyond("a root of a negative number")
    if n.denominator == 1 and n * _bits(coefficient) <= MAX_BITS // 2:
        sign *= coefficient ** int(n)
    elif coefficient != 1:
        for prime, multiplicity in factors(coefficient.numerator).items():
            exponents[prime] = exponents.get(prime, Fraction(0)) + multiplicity * n
        for prime, multiplicity in factors(coefficient.denominator).items():
            exponents[prime] = exponents.get(prime, Fraction(0)) - multiplicity * n
    result, scale = _normal(exponents)
    return {result: _checked(scale * sign)}, {ONE: Fraction(1)}


@cache
def _primes() -> tuple[int, ...]:
    return tuple(n for n in range(2, _TRIAL) if all(n % p for p in range(2, math.isqrt(n) + 1)))


def factors(value: int) -> dict[int, int]:
    """The prime factors of a positive integer.

    Raises:
        Beyond: two of them, or more, are large.
    """
    found: dict[int, int] = {}
    for prime in _primes():
        if prime * prime > value:
            break
        while value % prime == 0:
            found[prime] = found.get(prime, 0) + 1
            value //= prime
    if value == 1:
        return found
    if (root := math.isqrt(value)) ** 2 == value and root < _TRIAL**2:
        found[root] = found.get(root, 0) + 2
    elif value < _TRIAL**2:
        found[value] = found.get(value, 0) + 1
    else:
        raise Beyond("a large factor")
    return found


def _function(name: str, arguments: list[Exact]) -> Exact:
    if name == "root":
        degree = arguments[1].rational()
        if degree is None or degree.denominator != 1 or not 1 <= degree <= 60:
            raise Beyond("root")
        inside = arguments[0].rational()
        if inside is not None and inside < 0 and degree % 2 == 1:  # the real root
            negated = _power(rational(-inside), rational(1 / degree))
            return Exact({m: -c for m, c in negated.top.items()}, negated.bottom)
        return _power(arguments[0], rational(1 / degree))
    values = [argument.rational() for argument in arguments]
    if any(value is None for value in values):
        raise Beyond(name)
    numbers = [value for value in values if value is not None]
    if name == "abs":
        return rational(abs(numbers[0]))
    if name in ("floor", "ceil"):
        return rational(math.floor(numbers[0]) if name == "floor" else math.ceil(numbers[0]))
    if any(value.denominator != 1 for value in numbers) and name in ("factorial", "binom", "gcd", "lcm"):
        raise Beyond(name)
    integers = [int(value) for value in numbers]
    match name:
        case "factorial" if 0 <= integers[0] <= 3000:
            return rational(math.factorial(integers[0]))
        case "binom" if 0 <= integers[1] <= integers[0] <= 10_000:
            return rational(math.comb(*integers))
        case "gcd":
            return rational(math.gcd(*integers))
        case "lcm" if sum(value.bit_length() for value in integers) < MAX_BITS:
            return rational(math.lcm(*integers))
        case "min" | "max":
            return rational(min(numbers) if name == "min" else max(numbers))
        case _:
            raise Beyond(name)
