"""Pairs whose verdicts are known, for a test of the grader before every run.

A grader that is broken as a whole looks like a model that learns nothing. These pairs would show swapped arguments, a
gold that is not read as mathematics, time limits that fire at once, and an answer taken from the wrong box.
"""

from typing import TYPE_CHECKING

from soarctl.api import Outcome, PluginError, Problem

if TYPE_CHECKING:
    from soarctl_math.domain import MathDomain

CORRECT = (
    ("42", r"so it is \boxed{42}."),
    (r"\frac{3}{4}", r"First \boxed{1}, no: \boxed{0.75}"),
    (r"$2\sqrt{3}$", r"$\boxed{\sqrt{12}}$"),
    ("10,000", r"\boxed{10000}"),
    ("(2,5)", r"\boxed{2<x<5}"),
    ("1,-2", r"\boxed{-2} and \boxed{1}"),
    (r"x^2+2x+1", r"\boxed{(x+1)^2}"),
    ("1011_2", r"\boxed{1011}"),
    (r"\text{Even}", r"\boxed{even}"),
    (r"2001^{2002^{2003}}", r"\boxed{2001^{2002^{2003}}}"),
)
"""(gold, completion) that is right. Some are wrong the other way round, so that swapped arguments are seen."""

WRONG = (
    ("42", r"so it is \boxed{43}."),
    ("1011", r"\boxed{1011_2}"),
    (r"\frac{1}{3}", r"\boxed{0.333}"),
    ("(1,2)", r"\boxed{(2,1)}"),
    ("5", r"\boxed{9^{9^{9^9}}}"),
    ("5", r"\boxed{6=5}"),
    ("1.6\\times10^{-19}", r"\boxed{1.7\times10^{-19}}"),
)

SYMBOLIC = (
    r"\begin{pmatrix}6&8\end{pmatrix}",
    r"\boxed{\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}5&6\end{pmatrix}}",
)
"""Right, and only Math-Verify can tell."""


def check_grader(domain: "MathDomain") -> None:
    """Grades the known pairs.

    Raises:
        PluginError: a pair is not judged as it should be.
    """
    expected = [(gold, text, Outcome.CORRECT, domain.tiers.correct) for gold, text in CORRECT]
    expected += [(gold, text, Outcome.WRONG, None) for gold, text in WRONG]
    expected.append(("5", r"\boxed{5, 6}", Outcome.WRONG, domain.tiers.contains))
    expected.append(("5", "It is 5.", Outcome.UNPARSED, domain.tiers.unboxed) if domain.require_box else expected[0])
    if domain.symbolic:
        expected.append((*SYMBOLIC, Outcome.CORRECT, domain.tiers.correct))
    verdicts = domain.grade([(Problem("?", gold), text) for gold, text, _, _ in expected])
    for (gold, text, outcome, reward), verdict in zip(expected, verdicts, strict=True):
        if verdict.outcome is not outcome or (reward is not None and verdict.reward != reward):
            raise PluginError(
                f"the grader judges {text!r} against {gold!r} as {verdict.outcome} ({verdict.reason}), reward "
                f"{verdict.reward:g}; it is {outcome}",
                at="domain",
                hint="nothing that this grader says can be trusted; `soarctl grade` explains a single verdict",
            )
