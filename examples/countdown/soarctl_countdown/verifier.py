"""The verifier: a program that reads attempts as JSON lines and answers each with one.

    $ echo '{"numbers": [2, 3, 4], "target": 14, "expression": "2 + 3 * 4"}' | python -m soarctl_countdown.verifier
    {"outcome": "correct", "reason": ""}

It stands for what such a verifier is in earnest: a theorem prover, a simulator, a database, in any language.
"""

import ast
import json
import operator
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction

LONGEST = 200
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def judge(numbers: list[int], target: int, expression: str) -> tuple[str, str]:
    """Outcome and reason."""
    if len(expression) > LONGEST:
        return "unparsed", "too long"
    used: list[int] = []
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, used)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "unparsed", "not an expression"
    except ZeroDivisionError:
        return "wrong", "division by zero"
    if Counter(used) - Counter(numbers):
        return "wrong", "other numbers"
    return ("correct", "") if value == target else ("wrong", "another value")


def _value(node: ast.expr, used: list[int]) -> Fraction:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, used), _value(right, used))
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            used.append(number)
            return Fraction(number)
        case _:
            raise ValueError("something else than numbers and + - * /")


def main() -> None:
    for line in sys.stdin:
        attempt = json.loads(line)
        outcome, reason = judge(attempt["numbers"], attempt["target"], attempt["expression"])
        print(json.dumps({"outcome": outcome, "reason": reason}), flush=True)


if __name__ == "__main__":
    main()
