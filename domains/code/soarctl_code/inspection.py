"""Looks at a teacher's tests and solution without running them, inside the jail: hostile text can crash a parser."""

from collections.abc import Generator
from dataclasses import dataclass

from soarctl_code.jail import wire
from soarctl_code.jail.jobs import Job, Limits, Ran

LOOK = """
import ast

def look(solution, tests):
    try:
        program = ast.parse(solution)
        compile(solution, 'solution', 'exec', dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 'solution_does_not_compile'
    try:
        suite = ast.parse(tests)
        compile(tests, 'tests', 'exec', dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 'tests_do_not_compile'
    defined = [n.name for n in program.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    classes = [n.name for n in program.body if isinstance(n, ast.ClassDef)]
    used = {n.id for n in ast.walk(suite) if isinstance(n, ast.Name)}
    if used & set(classes):
        return 'tests_use_a_class'
    names = [name for name in dict.fromkeys(defined) if name in used]
    setup, found = [], []
    for statement in suite.body:
        text = ast.get_source_segment(tests, statement) or ast.unparse(statement)
        if isinstance(statement, ast.Assert):
            found.append(text)
        elif found:
            return 'tests_are_not_assertions'
        else:
            setup.append(text)
    asking = [t for t in found if any(
        isinstance(n, ast.Name) and n.id in names for n in ast.walk(ast.parse(t)))]
    if len(asking) < len(found) or not names:
        return 'tests_do_not_call_the_solution'
    return [names, '\\n'.join(setup), found]
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A teacher's tests, taken apart."""

    names: list[str]
    setup: str
    asserts: list[str]


def inspect_suite(solution: str, tests: str, limits: Limits) -> Generator[Job, Ran, Suite | str]:
    """The assertions and the functions they call, or the name of the rule that they break."""
    ran = yield Job(LOOK, "call", calls=[("look", [solution, tests])], limits=limits)
    answer = ran.answers[0] if ran.answers else None
    if not isinstance(answer, list) or answer[0] != "value":
        return "cannot_be_read"
    found = wire.decode(answer[1])
    return found if isinstance(found, str) else Suite(*found)


READ_LITERAL = """
import ast

def read(text):
    return ast.literal_eval(text.strip())
"""
