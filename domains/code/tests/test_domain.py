"""The domain as a run uses it."""

import json
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.domain import CodeDomain
from soarctl_code.prompts import fenced_block

from soarctl.api import Outcome, PluginError, Problem, Rejection
from soarctl.testing import check_domain

TESTS = "assert double(0) == 0\nassert double(2) == 4\nassert double(-3) == -6"
SOLUTION = "def double(x):\n    return 2 * x"


def written(question: str = "Write double(x).", tests: str = TESTS, solution: str = SOLUTION) -> str:
    return f"<question>{question}</question>\n<tests>\n{tests}\n</tests>\n<solution>\n{solution}\n</solution>"


def fenced(program: str) -> str:
    return f"Let me think.\n```python\n{program}\n```"


ACCEPTED = [
    written(),
    f"Thinking first.\n{written()}\nDone.",
    written(tests=f"```python\n{TESTS}\n```", solution=f"```python\n{SOLUTION}\n```"),
    written().replace("</question>", "<question>"),
    written(tests=f"import math\n{TESTS}"),
]
REJECTED = {
    "just text": "no_question",
    written().replace("<tests>", "").replace("</tests>", ""): "no_tests",
    written().replace("<solution>", "").replace("</solution>", ""): "no_solution",
    written() + written(): "several_question",
    written(question=" "): "empty_question",
    written(tests="assert double(1) == ("): "tests_do_not_compile",
    written(solution="def double(x:"): "solution_does_not_compile",
    written(tests="assert 1\nassert 2\nassert 3"): "tests_do_not_call_the_solution",
    written(tests=TESTS + "\nprint(1)"): "tests_are_not_assertions",
    written(tests="assert double(1) == 2"): "number_of_tests",
    written(tests="assert Double() == 2", solution="class Double: pass"): "tests_use_a_class",
    written(tests="assert double(" + "(" * 5000 + ") == 1"): "tests_do_not_compile",
    written(solution="x = " + "-" * 15000 + "1"): "solution_does_not_compile",
    written(question="\0", tests="\0"): "null_bytes",
    "x" * 30000: "too_long",
}


@pytest.mark.parametrize(("completion", "rule"), REJECTED.items(), ids=REJECTED.values())
def test_a_rejection_names_its_rule(completion: str, rule: str) -> None:
    found = CodeDomain().parse(completion)
    assert isinstance(found, Rejection)
    assert found.rule == rule


@pytest.mark.parametrize("completion", ACCEPTED)
def test_a_practice_question_keeps_its_tests_as_the_answer(completion: str) -> None:
    problem = CodeDomain().parse(completion)
    assert isinstance(problem, Problem)
    assert problem.question == "Write double(x).\n\nIt must pass this test:\nassert double(0) == 0"
    tests = json.loads(problem.answer)["tests"]
    assert [test["code"] for test in tests] == TESTS.split("\n")
    assert {name for test in tests for name in test["names"]} == {"double"}
    assert CodeDomain().measure(problem) == {"tests": 3.0, "reference_passes": 1.0}


def test_the_validity_gate_counts_by_default_and_rejects_when_asked() -> None:
    wrong = written(solution="def double(x):\n    return x")
    counted = CodeDomain().parse(wrong)
    assert isinstance(counted, Problem)
    assert CodeDomain().measure(counted)["reference_passes"] == 0.0
    assert "reference_passes" not in CodeDomain(validity="off").measure(CodeDomain(validity="off").parse(wrong))  # type: ignore[arg-type]
    for validity in ("require", "strict"):
        found = CodeDomain.model_validate({"validity": validity}).parse(wrong)
        assert isinstance(found, Rejection)
        assert found.rule == "reference_fails"
        assert isinstance(CodeDomain.model_validate({"validity": validity}).parse(written()), Problem)


def test_the_strict_gate_rejects_tests_that_a_trivial_program_passes() -> None:
    same = "def same(x):\n    return x"
    weak = written(tests="assert same(0) == 0\nassert same(2) == 2\nassert same('a') == 'a'", solution=same)
    assert isinstance(CodeDomain(validity="require").parse(weak), Problem)
    found = CodeDomain(validity="strict").parse(weak)
    assert isinstance(found, Rejection)
    assert found.rule == "tests_too_weak"


def test_the_students_reward_is_paid_in_tiers() -> None:
    problem = CodeDomain().parse(written())
    assert isinstance(problem, Problem)
    programs = {
        SOLUTION: (120.0, Outcome.CORRECT),
        "def double(x):\n    return x * x": (20.0, Outcome.WRONG),
        "def double(x):\n    return 7": (10.0, Outcome.WRONG),
        "def double(x):\n    raise KeyError": (0.0, Outcome.CRASHED),
        "def double(x:": (0.0, Outcome.CRASHED),
        "import time\ntime.sleep(9)": (0.0, Outcome.TIMEOUT),
    }
    domain = CodeDomain.model_validate({"sandbox": {"wall_s": 0.5}})
    verdicts = domain.grade([(problem, fenced(program)) for program in programs])
    assert [(v.reward, v.outcome) for v in verdicts] == list(programs.values())
    (unparsed,) = domain.grade([(problem, SOLUTION)])
    assert (unparsed.reward, unparsed.outcome) == (0.0, Outcome.UNPARSED)


def test_every_verdict_and_the_facts_of_a_run_name_the_tier() -> None:
    problem = CodeDomain().parse(written())
    assert isinstance(problem, Problem)
    domain = CodeDomain.model_validate({"sandbox": {"tier": "landlock"}})
    (verdict,) = domain.grade([(problem, fenced(SOLUTION))])
    assert verdict.reason == "passed [landlock]"
    assert domain.facts()["sandbox"] == "landlock"
    assert domain.sandbox.faults == {}


@pytest.mark.parametrize(
    "answer", ["", "[]", "{}", '{"tests": 3}', '{"tests": [1]}', '{"tests": [{"kind": []}]}', "[" * 9999]
)
def test_an_answer_that_is_no_tests_is_a_wrong_verdict_and_no_error(answer: str) -> None:
    (verdict,) = CodeDomain().grade([(Problem("?", answer), fenced(SOLUTION))])
    assert (verdict.outcome, verdict.reward) == (Outcome.INVALID, 0.0)
    assert verdict.reason.startswith("invalid_test")


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\na\n```\nIt prints\n```\n3\n```", "a\n"),
        ("```\na\n```\nor\n```\nb\n```", "b\n"),
        ("1. So:\n   ```python\n   if a:\n       b\n   ```", "if a:\n    b\n"),
        ('```python\n"""\n    ```\n    b\n    ```\n"""\n```', '"""\n    ```\n    b\n    ```\n"""\n'),
        ("```python\na\n   ```", None),
        ("```python\na", None),
        ("a", None),
    ],
)
def test_the_program_is_the_last_block_that_says_it_is_python(completion: str, program: str | None) -> None:
    assert fenced_block(completion) == program


def test_predicted_outputs_are_compared_as_values() -> None:
    tests = [{"kind": "literal", "expected": ["d", "a", ["t", ["i", "0x1"], ["f", "0x1.8p+0"]]], "tagged": True}]
    problem = Problem("What does f() return?", json.dumps({"tests": tests}))
    texts = ["{'a': (1, 1.5)}", '{"a": (1,\n 1.5)}', "{'a': [1, 1.5]}", "open('/etc/passwd')", "(" * 9999]
    verdicts = CodeDomain().grade([(problem, fenced(text)) for text in texts])
    assert [v.correct for v in verdicts] == [True, True, False, False, False]


def test_prompts_are_replaceable_and_a_broken_template_is_an_error() -> None:
    assert CodeDomain(student_template="Q: {{ question }}").student_prompt("{{ 7 * 7 }}") == "Q: {{ 7 * 7 }}"
    assert "graphs" in CodeDomain(topics=("graphs",)).teacher_prompt()
    for template, said in (
        ("{{ answer }}", r"the template uses answer, which there is not \(Jinja2, with question\)"),
        ("{{ question", "the template does not compile: "),
    ):
        with pytest.raises(ValueError, match=said):
            CodeDomain(student_template=template)
    with pytest.raises(ValueError, match=r"uses question, which there is not \(Jinja2, with topics and tests_wanted\)"):
        CodeDomain(teacher_template="{{ question }}")
    with pytest.raises(PluginError, match=r"domain\.student_template: the prompt template cannot be used"):
        CodeDomain(student_template="{{ question.__class__.__mro__ }}").student_prompt("?")


def test_it_keeps_the_promises_of_a_domain(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "question": f"Write f(x) that adds {n}.", "tests": [f"assert f({m}) == {n + m}" for m in range(3)],
            "solution": f"def f(x):\n    return x + {n}\n",
        }
        for n in range(1, 13)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    check_domain(
        CodeDomain.model_validate({"data": [{"path": str(path)}]}),
        accepted=ACCEPTED,
        rejected=REJECTED,
        sample=4,
        batch=60,
        examples=2,
        gold=lambda problem: fenced(problem.meta["reference"]),
        wrong=lambda _: fenced("def f(x):\n    return x\n"),
    )
