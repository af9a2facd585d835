"""The domain keeps the promises of api.py, on real problems."""

from pathlib import Path

import pytest
from soarctl_math import symbolic
from soarctl_math.domain import MathDomain

from soarctl.api import Problem
from soarctl.testing import check_domain

ASKED = "<question>What is $2+3$?</question> {} <answer>{}</answer>"


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("math/math500.jsonl.gz", "math"),
        ("harp/harp_short_dev.jsonl.gz", "harp"),
        ("olympiadbench/OE_TO_maths_en_COMP_dev.json.gz", "olympiadbench"),
    ],
)
def test_the_math_domain_keeps_the_promises(data: Path, file: str, layout: str) -> None:
    source = {"path": str(data / file), "format": layout}
    domain = MathDomain.model_validate({"data": [source], "symbolic": symbolic.available(), "workers": 1})
    check_domain(
        domain,
        accepted=[ASKED.format("Two and three make five.", r"\boxed{5}"), ASKED.format("", r"so \boxed{x = 5}.")],
        rejected={
            "I cannot think of one.": "no question tag",
            "<question>What is $2+3$?": "question not closed",
            "<question>What is $2+3$?</question>": "no answer tag",
            ASKED.format("", "5"): "no box",
            ASKED.format("", r"\boxed{5"): "box not closed",
            ASKED.format("", r"\boxed{kitten}"): "answer is not mathematics",
        },
        gold=boxed,
        wrong=lambda problem: f"\\boxed{{{problem.answer} + 1, {problem.answer}}}",
    )


def boxed(problem: Problem) -> str:
    return f"So the answer is \\boxed{{{problem.answer}}}."
