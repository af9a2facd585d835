"""From data files to problems. A row that cannot be used is reported with its line; the others are taken."""

import ast
import base64
import binascii
import gzip
import json
import pickletools
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from soarctl.api import DataError, Problem
from soarctl_code.jail import wire
from soarctl_code.prompts import task
from soarctl_code.verdicts import read_tests

Format = Literal[
    "humaneval", "mbpp", "stdin", "code_contests", "apps", "livecodebench", "cruxeval", "p3", "jsonl",
]  # fmt: skip
Row = Mapping[str, Any]


class BadRow(Exception):
    """A row cannot be made into a problem; the message says why."""


@dataclass(slots=True)
class Loaded:
    """Problems of some files, and the rows that gave none."""

    problems: list[Problem] = field(default_factory=list[Problem])
    bad: list[str] = field(default_factory=list[str])
    """`file:line: reason`, in order."""

    def summary(self) -> str:
        """The bad rows in a few lines."""
        shown = self.bad[:10] + (["..."] if len(self.bad) > 10 else [])
        return f"{len(self.bad)} of {len(self.problems) + len(self.bad)} rows are unusable: " + "; ".join(shown)


def load_files(files: Sequence[tuple[Path, Format]], shown: int, most_tests: int | None = None) -> Loaded:
    """All problems of some files.

    Args:
        files: JSONL or JSON, either with .gz, or for `apps` also folders as they are distributed; with their layouts.
        shown: how many tests the question shows.
        most_tests: keep this many tests of a problem; None keeps all.

    Raises:
        DataError: a file is missing or unreadable, or no row is usable.
    """
    loaded = Loaded()
    seen: dict[str, str] = {}
    for path, layout in files:
        for place, row in read_rows(path):
            try:
                if isinstance(row, str):
                    raise BadRow(row)
                problem = READERS[layout](row, shown, most_tests)
                check_tests(*read_tests(problem.answer), str(problem.meta.get("reference", "")))
            except BadRow as error:
                loaded.bad.append(f"{place}: {error}")
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, SyntaxError) as error:
                loaded.bad.append(f"{place}: {type(error).__name__}: {str(error)[:100]}")
            else:
                if problem.id in seen:
                    loaded.bad.append(f"{place}: the same question as {seen[problem.id]}")
                    continue
                seen[problem.id] = place
                loaded.problems.append(problem)
    if not loaded.problems:
        raise DataError(
            "no problem can be used",
            at=", ".join(str(path) for path, _ in files) or "domain.data",
            hint=loaded.summary() if loaded.bad else "the files are empty, or domain.data names none",
        )
    return loaded


def check_tests(tests: Sequence[Mapping[str, Any]], setup: str, reference: str) -> None:
    """Looks for faults of tests that no program could pass, without running anything.

    Raises:
        BadRow: there is one.
    """
    if len({test["kind"] for test in tests}) > 1:
        raise BadRow("its tests are of several kinds")
    for number, test in enumerate(tests, 1):
        try:
            CHECKS[test["kind"]](test, setup, reference)
        except KeyError as error:
            raise BadRow(f"test {number} has no {error}") from error
        except (BadRow, SyntaxError, ValueError, RecursionError, MemoryError, wire.Undecodable) as error:
            raise BadRow(f"test {number}: {str(error)[:100]}") from error


def check_call(test: Mapping[str, Any], _setup: str, _reference: str) -> None:
    expected, arguments = test["expected"], test["args"]
    if not isinstance(test["fn"], str) or not isinstance(arguments, list):
        raise BadRow("fn is a name, and args a list of arguments")
    if test.get("tagged"):
        for tree in [expected, *arguments]:
            wire.decode(tree)


def check_literal(test: Mapping[str, Any], _setup: str, _reference: str) -> None:
    if test.get("tagged"):
        wire.decode(test["expected"])


def check_stdin(test: Mapping[str, Any], _setup: str, _reference: str) -> None:
    if not (isinstance(test["stdin"], str) and isinstance(test["stdout"], str)):
        raise BadRow("stdin and stdout are texts")


def check_assert(test: Mapping[str, Any], setup: str, reference: str) -> None:
    statements = [*parsed(setup), *parsed(test["code"])]
    used = {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)}
    if not used & set(test["names"]):
        raise BadRow(f"it calls none of the functions {', '.join(map(str, test['names']))}")
    own = {n.name for statement in statements for n in ast.walk(statement) if isinstance(n, ast.ClassDef)}
    classes = {n.name for n in parsed(reference) if isinstance(n, ast.ClassDef)} & used - own
    if classes:
        raise BadRow(f"it uses {', '.join(sorted(classes))}, a class of the solution, and objects of such do not cross")


CHECKS: dict[str, Callable[[Mapping[str, Any], str, str], None]] = {
    "call": check_call, "literal": check_literal, "stdin": check_stdin, "assert": check_assert,
}  # fmt: skip


def read_rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    """Rows with their place; text in the place of a row says why it cannot be read.

    Raises:
        DataError: the file cannot be read at all.
    """
    if path.is_dir():
        yield from read_apps_folders(path)
        return
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", at=str(path)) from error
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise DataError(f"is no JSON list: {error}", at=str(path)) from error
        for index, row in enumerate(rows, 1):
            yield f"{path.name}:row {index}", row if isinstance(row, dict) else "is no object"
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path.name}:{number}", parse_line(line)


def parse_line(line: str) -> Row | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is no JSON: {error}"
    return row if isinstance(row, dict) else "is no object"


def read_apps_folders(path: Path) -> Iterator[tuple[str, Row | str]]:
    """APPS as it is distributed: a folder per problem."""
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        row: dict[str, Any] = {"problem_id": folder.name}
        for key, name in (
            ("question", "question.txt"), ("input_output", "input_output.json"), ("solutions", "solutions.json"),
            ("starter_code", "starter_code.py"),
        ):  # fmt: skip
            if (folder / name).exists():
                row[key] = (folder / name).read_text(encoding="utf-8", errors="replace")
        yield str(folder.name), row


def make_problem(
    statement: str, tests: Sequence[Mapping[str, Any]], *, source: str, row: object, shown: Sequence[str],
    setup: str = "", preamble: str = "", reference: str = "", group: str = "", stdin: bool = False,
) -> Problem:  # fmt: skip
    """A problem whose answer is its tests, as JSON.

    Args:
        statement: the task in words.
        tests: as `verdicts.py` describes them.
        row: the row's own name.
        shown: texts of the tests that the question shows.
        setup: code of the tests that comes before them.
        preamble: code that is put before the student's program: imports and helpers that the task gives.
        reference: a right program, or the right answer.
        group: problems of one group stay in one half of a split.
    """
    if not statement.strip():
        raise BadRow("the task is empty")
    if not tests:
        raise BadRow("there are no tests")
    answer: dict[str, Any] = {"tests": list(tests)}
    answer |= {"setup": setup} if setup else {}
    answer |= {"preamble": preamble} if preamble else {}
    meta = {"source": source, "row": str(row)}
    meta |= {"reference": reference} if reference else {}
    meta |= {"group": group} if group else {}
    question = task(statement, shown, stdin=stdin)
    return Problem(question, json.dumps(answer, ensure_ascii=False), meta)


# The runners of APPS and LiveCodeBench put such imports before every program, and their starter code needs them. The
# builtins stand last but one, since open and pow have other meanings in the modules before them.
RUNNERS_IMPORTS = (
    "".join(
        f"from {name} import *\n"
        for name in (
            "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
            "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
        )
    )
    + "import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, random, re\n"
    + "import statistics, string, sys\nsys.setrecursionlimit(50_000)\n"
)  # fmt: skip


# --- one layout each ---------------------------------------------------------------------------------------------


def humaneval(row: Row, shown: int, most_tests: int | None) -> Problem:
    prompt, entry = row["prompt"], row["entry_point"]
    reference = prompt + row["canonical_solution"]
    names = [entry, *(name for name in functions(reference) if name != entry)]
    test = {"kind": "assert", "code": f"{row['test']}\n\ncheck({entry})\n", "names": names}
    return make_problem(
        f"Complete this Python function and give the whole program:\n\n{prompt.strip()}", [test], source="humaneval",
        row=row["task_id"], shown=[], preamble=without_function(prompt, entry), reference=reference,
    )  # fmt: skip


def parsed(source: str) -> list[ast.stmt]:
    """The statements of a program, without the warnings that old escapes in it call forth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source).body


def functions(source: str) -> list[str]:
    return [n.name for n in parsed(source) if isinstance(n, ast.FunctionDef)]


def imports(source: str) -> list[str]:
    return [ast.unparse(n) for n in parsed(source) if isinstance(n, (ast.Import, ast.ImportFrom))]


def without_function(prompt: str, entry: str) -> str:
    """The imports and helpers that a prompt gives before the function to complete."""
    kept = [ast.get_source_segment(prompt, n) or "" for n in parsed(prompt) if getattr(n, "name", None) != entry]
    return "\n".join(kept) + "\n" if kept else ""


def mbpp(row: Row, shown: int, most_tests: int | None) -> Problem:
    code = row["code"]
    names = functions(code)
    # The tests were written to run after the program, and some use what it imports.
    setup = "\n".join([*imports(code), *row.get("test_imports", []), row.get("test_setup_code") or ""]).strip()
    asserts = [*row["test_list"]]
    tests = [{"kind": "assert", "code": text, "names": names} for text in asserts[:most_tests]]
    return make_problem(
        row.get("prompt") or row["text"], tests, source="mbpp", row=row["task_id"], shown=asserts[:shown], setup=setup,
        reference=code,
    )  # fmt: skip


def stdin_problem(row: Row, shown: int, most_tests: int | None) -> Problem:
    statement = next(row[key] for key in ("prompt", "content", "description", "question") if row.get(key))
    pairs = list(stdin_pairs(row))
    return make_problem(
        statement, stdin_tests(pairs, most_tests), source="stdin", row=row.get("id", row.get("name", "")),
        shown=stdin_samples(pairs[:shown]), reference=str(row.get("solution") or ""), stdin=True,
    )  # fmt: skip


def stdin_pairs(row: Row) -> Iterator[tuple[str, str]]:
    """Inputs and outputs, from any of the layouts in use."""
    tests = row.get("tests", row.get("test"))
    for test in json.loads(tests) if isinstance(tests, str) else tests or []:
        if "input" in test:
            yield str(test["input"]["stdin"]), str(test["output"]["stdout"])
        else:
            yield test["stdin"], test["stdout"]
    for key in ("public_tests", "private_tests", "generated_tests"):
        block = row.get(key) or {"input": [], "output": []}
        yield from zip(block["input"], block["output"], strict=True)


def stdin_tests(pairs: Sequence[tuple[str, str]], most_tests: int | None) -> list[dict[str, Any]]:
    return [{"kind": "stdin", "stdin": given, "stdout": wanted} for given, wanted in pairs[:most_tests]]


def stdin_samples(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"Input:\n{given.strip()[:500]}\nOutput:\n{wanted.strip()[:500]}" for given, wanted in pairs]


def apps(row: Row, shown: int, most_tests: int | None) -> Problem:
    data = json.loads(row["input_output"]) if isinstance(row["input_output"], str) else row["input_output"]
    inputs, outputs, name = data["inputs"], data["outputs"], data.get("fn_name")
    solutions = row.get("solutions") or "[]"
    solutions = json.loads(solutions) if isinstance(solutions, str) else solutions
    starter = row.get("starter_code") or ""
    statement = row["question"] + (f"\n\nStart from this code:\n{starter}" if starter.strip() else "")
    common: dict[str, Any] = {
        "preamble": RUNNERS_IMPORTS,
        "source": "apps",
        "row": row.get("problem_id", row.get("id", "")),
        "reference": "".join(solutions[:1]),
    }
    if name:
        tests = [apps_call(name, given, wanted) for given, wanted in zip(inputs, outputs, strict=True)]
        return make_problem(statement, tests[:most_tests], shown=[], **common)
    pairs = [(as_text(given), as_text(wanted)) for given, wanted in zip(inputs, outputs, strict=True)]
    samples = stdin_samples(pairs[:shown])
    return make_problem(statement, stdin_tests(pairs, most_tests), shown=samples, stdin=True, **common)


def apps_call(name: str, given: list[Any], wanted: Any) -> dict[str, Any]:
    """A call; keys of dictionaries that were numbers before they became JSON are numbers again."""
    test: dict[str, Any] = {"kind": "call", "fn": name, "sequences_alike": True, "wrapped": True}
    arguments = list(map(number_keys, given))
    expected = list(map(number_keys, wanted)) if isinstance(wanted, list) else number_keys(wanted)
    if (arguments, expected) == (given, wanted):
        return {**test, "args": given, "expected": wanted}
    trees = [wire.encode(value, items=sys.maxsize) for value in arguments]
    return {**test, "tagged": True, "args": trees, "expected": wire.encode(expected, items=sys.maxsize)}


def number_keys(value: Any) -> Any:
    try:
        return {int(key): item for key, item in value.items()} if isinstance(value, dict) else value
    except ValueError:
        return value


def as_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))


def livecodebench(row: Row, shown: int, most_tests: int | None) -> Problem:
    public = json.loads(row["public_test_cases"])
    cases = [*public, *private_cases(row.get("private_test_cases") or "[]")]
    starter = row.get("starter_code") or ""
    statement = row["question_content"] + (f"\n\nStart from this code:\n{starter}" if starter.strip() else "")
    common: dict[str, Any] = {
        "preamble": RUNNERS_IMPORTS, "source": "livecodebench", "row": row.get("question_id", ""),
    }  # fmt: skip
    if cases and cases[0]["testtype"] == "functional":
        metadata = json.loads(row["metadata"]) if isinstance(row["metadata"], str) else row["metadata"]
        tests = [
            {
                "kind": "call", "fn": metadata["func_name"], "sequences_alike": True,
                "args": [json.loads(line) for line in case["input"].split("\n") if line.strip()],
                "expected": json.loads(case["output"]),
            }
            for case in cases
        ]  # fmt: skip
        return make_problem(statement, tests[:most_tests], shown=[], **common)
    pairs = [(case["input"], case["output"]) for case in cases]
    samples = stdin_samples(pairs[: min(shown, len(public))])
    tests = [{**test, "loose": True} for test in stdin_tests(pairs, most_tests)]
    return make_problem(statement, tests, shown=samples, stdin=True, **common)


def private_cases(text: str) -> list[dict[str, str]]:
    """The hidden tests: JSON, or JSON inside a pickled string inside zlib inside base64. Nothing is unpickled."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        packed = zlib.decompress(base64.b64decode(text))
    except (binascii.Error, zlib.error) as error:
        raise BadRow(f"private_test_cases is neither JSON nor packed JSON: {error}") from error
    for operation, value, _ in pickletools.genops(packed):
        if "UNICODE" in operation.name and isinstance(value, str):
            return json.loads(value)
    raise BadRow("private_test_cases holds no text")


def cruxeval(row: Row, shown: int, most_tests: int | None) -> Problem:
    expected = wire.encode(ast.literal_eval(row["output"]))
    question = f"What does f({row['input']}) return?\n\n{row['code'].strip()}"
    test = {"kind": "literal", "expected": expected, "tagged": True}
    return make_problem(question, [test], source="cruxeval", row=row["id"], shown=[], reference=row["output"])


WITNESS = """
def is_of(value, kind):
    if kind.startswith("List["):
        return type(value) is list and all(is_of(item, kind[5:-1]) for item in value)
    return type(value).__name__ == kind
"""


def p3(row: Row, shown: int, most_tests: int | None) -> Problem:
    header = row["sol_header"].replace("def sol", "def solution", 1)
    words = str(row.get("sol_docstring", "")).strip().strip('"').strip()
    question = (
        f"Find a value that makes this function return True, with its other arguments at their defaults:\n\n"
        f"{row['sat'].strip()}\n\n{words}\n\nWrite `{header.removesuffix(':')}` so that it returns such a value."
    )
    defaults, names = sat_defaults(row["sat"])
    given = [name for name in header_names(row["sol_header"]) if name in names]
    call = f"solution({', '.join(f'{name}={defaults[name]}' for name in given)})"
    code = f"from typing import *\n{row['sat']}\n{WITNESS}witness = {call}\n"
    # Without this the list ['foobar'] is a text that holds "foobar".
    code += f"assert is_of(witness, {row['ans_type']!r})\n" if row.get("ans_type") else ""
    code += "assert sat(witness) is True\n"
    bodies = row.get("sol_bodies") or []
    bodies = ast.literal_eval(bodies) if isinstance(bodies, str) else bodies
    reference = (
        f"from typing import *\n{row['sol_header'].replace('def sol', 'def solution', 1)}\n{bodies[0]}\n"
        if bodies
        else ""
    )
    return make_problem(
        question, [{"kind": "assert", "code": code, "names": ["solution"]}], source="p3", row=row["name"], shown=[],
        reference=reference, group=row["name"].rpartition(":")[0], preamble="from typing import *\n",
    )  # fmt: skip


def sat_defaults(source: str) -> tuple[dict[str, str], list[str]]:
    """The default of each argument of a puzzle's checker, as source text."""
    function = next(n for n in parsed(source) if isinstance(n, ast.FunctionDef))
    names = [argument.arg for argument in function.args.args]
    defaults = function.args.defaults
    values = {
        name: ast.unparse(value) for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True)
    }
    return values, list(values)


def header_names(header: str) -> list[str]:
    function = parsed(f"{header}\n    pass")[0]
    assert isinstance(function, ast.FunctionDef)
    return [argument.arg for argument in function.args.args]


def generic(row: Row, shown: int, most_tests: int | None) -> Problem:
    """Our own layout: question, tests, and if wanted setup, preamble, solution, id."""
    tests = row["tests"]
    if isinstance(tests, str) or not all(isinstance(t, str) or t["kind"] in ("call", "stdin", "assert") for t in tests):
        raise BadRow("tests is a list of assertions, or of objects of kind call, stdin or assert")
    solution = str(row.get("solution") or "")
    names = list(row.get("names") or (functions(solution) if solution else []))
    made = [{"kind": "assert", "code": t, "names": names} if isinstance(t, str) else dict(t) for t in tests]
    if any(t["kind"] == "assert" and not t.get("names") for t in made):
        raise BadRow("assertions need the names of the functions that they call, in names or from solution")
    stdin = bool(made) and made[0]["kind"] == "stdin"
    if stdin:
        samples = stdin_samples([(str(t["stdin"]), str(t["stdout"])) for t in made[:shown]])
    else:
        samples = [str(t["code"]) for t in made[:shown] if t["kind"] == "assert"]
    return make_problem(
        row["question"], made[:most_tests], source="jsonl", row=row.get("id", ""), shown=samples,
        setup=row.get("setup", ""), preamble=row.get("preamble", ""), reference=solution, stdin=stdin,
        group=str(row.get("group", "")),
    )  # fmt: skip


READERS: dict[Format, Callable[[Row, int, int | None], Problem]] = {
    "humaneval": humaneval, "mbpp": mbpp, "stdin": stdin_problem, "code_contests": stdin_problem, "apps": apps,
    "livecodebench": livecodebench, "cruxeval": cruxeval, "p3": p3, "jsonl": generic,
}  # fmt: skip
