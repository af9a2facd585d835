"""Every layout gives problems, and rows that give none are reported with their line."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.domain import CodeDomain
from soarctl_code.loaders import Format, load_files

from soarctl.api import DataError, Problem


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def load_one(source: Format, tmp_path: Path, row: dict[str, Any], shown: int = 1) -> Problem:
    return load_files([(write(tmp_path / "rows.jsonl", [row]), source)], shown).problems[0]


@pytest.mark.parametrize(
    ("source", "name", "count"),
    [
        ("humaneval", "HumanEval.jsonl.gz", 164),
        ("mbpp", "mbpp_sanitized_nontest.json", 170),
        ("code_contests", "code_contests_sample.jsonl.gz", 20),
        ("cruxeval", "cruxeval.jsonl", 800),
        ("stdin", "stdin_problems.jsonl", 10),
    ],
)
def test_every_row_of_the_real_files_is_a_problem(data: Path, source: Format, name: str, count: int) -> None:
    loaded = load_files([(data / "code" / name, source)], 1)
    assert (len(loaded.problems), loaded.bad) == (count, [])
    assert len({problem.id for problem in loaded.problems}) == count


def test_problems_whose_tests_build_objects_of_the_solution_are_reported(data: Path) -> None:
    loaded = load_files([(data / "code" / "mbpp_full_nontest.jsonl", "mbpp")], 1)
    assert len(loaded.problems) == 472
    assert [reason.partition(": ")[2] for reason in loaded.bad] == [
        f"test 1: it uses {name}, a class of the solution, and objects of such do not cross"
        for name in ("Pair", "Node")
    ]


CALL = {"kind": "call", "fn": "f", "args": [1], "expected": 1}
FAULTY = [
    (["assert f(1) == "], "test 1: invalid syntax"),
    (["assert f(1) == 1", "assert g(1) == 1"], "test 2: it calls none of the functions f"),
    (["assert f(1) == 1", CALL], "its tests are of several kinds"),
    ([{"kind": "call", "fn": "f", "args": [1]}], "test 1 has no 'expected'"),
    ([{**CALL, "args": 1}], "test 1: fn is a name, and args a list of arguments"),
    ([CALL, {**CALL, "tagged": True}], "test 2: not a tagged value"),
    ([{"kind": "stdin", "stdin": "", "stdout": 3}], "test 1: stdin and stdout are texts"),
]


@pytest.mark.parametrize(("tests", "reason"), FAULTY)
def test_a_row_that_no_program_can_pass_is_reported(tmp_path: Path, tests: list[Any], reason: str) -> None:
    good = {"question": "good", "tests": [CALL]}
    path = write(tmp_path / "rows.jsonl", [good, {"question": "?", "tests": tests, "names": ["f"]}])
    loaded = load_files([(path, "jsonl")], 1)
    assert (len(loaded.problems), len(loaded.bad)) == (1, 1)
    assert loaded.bad[0].startswith(f"rows.jsonl:2: {reason}")


def test_variants_of_a_puzzle_stay_in_one_half(data: Path) -> None:
    domain = CodeDomain.model_validate({"data": [{"path": str(data / "code" / "p3_puzzles.json.gz"), "format": "p3"}]})
    problems = domain.load()
    halves = domain.split(problems, 0.5, 0)
    train, test = ({p.meta["group"] for p in half} for half in (halves.train, halves.test))
    assert train.isdisjoint(test)
    assert len(halves.train) + len(halves.test) == len(problems) == 1714
    assert abs(len(train) - len(test)) <= 1


def test_a_witness_of_another_type_solves_no_puzzle(tmp_path: Path) -> None:
    row = {
        "name": "Foobar:0", "sat": "def sat(s: str, word='foobar'):\n    return word in s", "ans_type": "str",
        "sol_header": "def sol(word='foobar'):", "sol_docstring": "", "sol_bodies": "[]",
    }  # fmt: skip
    puzzles = tmp_path / "puzzles.json"
    puzzles.write_text(json.dumps([row, {**row, "name": "Other:0", "sat": row["sat"] + "  # another"}]))
    domain = CodeDomain.model_validate({"data": [{"path": str(puzzles), "format": "p3"}]})
    problem = domain.load()[0]
    answers = ("'a foobar'", "['foobar']", "{'foobar': 1}")
    attempts = [(problem, f"```python\ndef solution(word='foobar'):\n    return {answer}\n```") for answer in answers]
    assert [verdict.outcome for verdict in domain.grade(attempts)] == ["correct", "wrong", "wrong"]


def test_bad_rows_are_reported_with_their_lines_and_the_others_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"question": "Square it", "tests": ["assert f(2) == 4"], "names": ["f"]}
    rows = [good, "{not json", {"question": "no tests"}, "[]", "", good, {**good, "question": " "}]
    domain = CodeDomain.model_validate({"data": [{"path": str(write(tmp_path / "rows.jsonl", rows))}]})
    assert len(domain.load()) == 1
    (message,) = caplog.messages
    assert message == (
        "5 of 6 rows are unusable: rows.jsonl:2: is no JSON: Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1); rows.jsonl:3: KeyError: 'tests'; rows.jsonl:4: is no object; rows.jsonl:6: the same "
        "question as rows.jsonl:1; rows.jsonl:7: the task is empty"
    )


def test_files_without_a_usable_row_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no problem can be used"):
        load_files([(write(tmp_path / "rows.jsonl", ["{}"]), "jsonl")], 1)
    with pytest.raises(DataError, match="cannot be read"):
        load_files([(tmp_path / "absent.jsonl", "jsonl")], 1)
    with pytest.raises(DataError, match="no problem can be used"):
        CodeDomain().load()


def test_the_student_sees_the_first_test_and_no_other(tmp_path: Path) -> None:
    row = {
        "task_id": 1,
        "text": "Square it.",
        "code": "def f(x): return x*x",
        "test_list": ["assert f(2)==4", "assert f(3)==9"],
    }
    problem = load_one("mbpp", tmp_path, row)
    assert problem.question == "Square it.\n\nIt must pass this test:\nassert f(2)==4"


def test_apps_rows_give_calls_or_stdin_tests(tmp_path: Path) -> None:
    calls = {"inputs": [[2, 3]], "outputs": [[5]], "fn_name": "add"}
    problem = load_one("apps", tmp_path, {"question": "Add.", "input_output": json.dumps(calls), "solutions": "[]"})
    (test,) = json.loads(problem.answer)["tests"]
    assert (test["fn"], test["args"], test["expected"]) == ("add", [2, 3], [5])
    program = "```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```"
    (verdict,) = CodeDomain().grade([(problem, program)])
    assert verdict.correct
    lines = {"inputs": [["2", "3"]], "outputs": ["5\n"]}
    problem = load_one("apps", tmp_path, {"question": "Add.", "input_output": lines})
    assert json.loads(problem.answer)["tests"] == [{"kind": "stdin", "stdin": "2\n3", "stdout": "5\n"}]


def test_apps_folders_are_read_as_they_are_distributed(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "0001"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text("Echo.")
    (folder / "input_output.json").write_text(json.dumps({"inputs": ["a\n"], "outputs": ["a\n"]}))
    (folder / "solutions.json").write_text(json.dumps(["print(input())"]))
    (tmp_path / "train" / "0002").mkdir()
    loaded = load_files([(tmp_path / "train", "apps")], 1)
    assert [problem.meta["reference"] for problem in loaded.problems] == ["print(input())"]
    assert loaded.bad == ["0002: KeyError: 'input_output'"]


def test_livecodebenchs_private_tests_are_read_without_unpickling(tmp_path: Path) -> None:
    cases = [{"input": "[1, 2]\n3", "output": "[3]", "testtype": "functional"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()
    row = {
        "question_content": "?", "starter_code": "class Solution: ...", "public_test_cases": "[]",
        "private_test_cases": packed, "metadata": json.dumps({"func_name": "f"}), "question_id": "1",
    }  # fmt: skip
    (test,) = json.loads(load_one("livecodebench", tmp_path, row).answer)["tests"]
    assert (test["args"], test["expected"]) == ([[1, 2], 3], [3])
    # os.system as a pickle: read as text it is no JSON, so the row is bad and nothing has run.
    row["private_test_cases"] = base64.b64encode(zlib.compress(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")).decode()
    with pytest.raises(DataError, match="holds no text"):
        load_one("livecodebench", tmp_path, row)


STARTER = "class Solution:\n    def total(self, counts: Dict[int, int]) -> List[int]:\n"


def test_starter_code_finds_the_imports_that_the_runners_of_its_set_make(tmp_path: Path) -> None:
    cases = [{"input": "[[1, 2]]", "output": "[2, 1]", "testtype": "functional"}]
    live = {
        "question_content": "?", "starter_code": STARTER, "public_test_cases": json.dumps(cases), "question_id": "1",
        "metadata": json.dumps({"func_name": "total"}),
    }  # fmt: skip
    calls = {"inputs": [[[[1, 2]]]], "outputs": [[2, 1]], "fn_name": "total"}
    apps = {"question": "?", "starter_code": STARTER, "input_output": json.dumps(calls)}
    program = f"```python\n{STARTER}        return list(chain.from_iterable(map(reversed, counts)))\n```"
    for problem in (load_one("livecodebench", tmp_path, live), load_one("apps", tmp_path, apps)):
        (verdict,) = CodeDomain().grade([(problem, program)])
        assert verdict.correct, verdict.reason


def test_keys_that_apps_lost_to_json_are_numbers_again(tmp_path: Path) -> None:
    calls = {"inputs": [[{"1": 2, "2": 3}], [{"a": 1}]], "outputs": [[{"2": 1, "3": 2}], {"b": 1}], "fn_name": "f"}
    problem = load_one("apps", tmp_path, {"question": "?", "input_output": calls})
    program = "def f(d):\n    return {v: k for k, v in d.items()} if 1 in d else {'b': d['a']}"
    (verdict,) = CodeDomain().grade([(problem, f"```python\n{program}\n```")])
    assert verdict.correct, verdict.reason


def test_livecodebench_compares_output_as_its_own_runner_does(tmp_path: Path) -> None:
    cases = [{"input": "", "output": "0.50 1\nyes\n", "testtype": "stdin"}]
    row = {"question_content": "?", "public_test_cases": json.dumps(cases), "question_id": "1"}
    problem = load_one("livecodebench", tmp_path, row)
    right = ["0.5 1.0\nyes", " 0.50 1\n  yes "]
    wrong = ["0.5 1 1\nyes", "0.5 1\n\nyes", "sNaN 1\nyes"]
    verdicts = CodeDomain().grade([(problem, f"```python\nprint({text!r})\n```") for text in right + wrong])
    assert [v.correct for v in verdicts] == [True, True, False, False, False]


def test_humanevals_helpers_stand_before_the_students_program(data: Path) -> None:
    problems = load_files([(data / "code" / "HumanEval.jsonl.gz", "humaneval")], 1).problems
    problem = next(p for p in problems if p.meta["row"] == "HumanEval/32")
    assert "def poly(" in json.loads(problem.answer)["preamble"]
    assert "def find_zero(" not in json.loads(problem.answer)["preamble"]
