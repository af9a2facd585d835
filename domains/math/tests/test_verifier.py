"""Pairs by rule. `test_real_pairs.py` measures on real and hostile ones."""

import pytest
from soarctl_math import numeric
from soarctl_math.symbolic import Workers
from soarctl_math.verifier import Judgement, Reason, Verifier

ALONE = Verifier(None)

SAME = {
    "integers and decimals": [("5", "5.0"), ("1,000", "1000"), ("10{,}000", "10000"), ("-0", "0"), ("007", "7")],
    "fractions": [(r"\frac12", "1/2"), (r"\dfrac{3}{-6}", "-0.5"), (r"1\frac12", "3/2"), ("1 1/2", r"\frac{6}{4}")],
    "repeating decimals": [(r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", "1/6")],
    "radicals": [
        (r"2\sqrt3", r"\sqrt{12}"),
        (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
        (r"\sqrt[3]{16}", r"2\sqrt[3]2"),
    ],
    "Unicode": [(r"\sqrt{2}", "√2"), (r"x^2", "x²"), (r"\frac12", "½"), ("-5", "−5"), (r"90^\circ", "90°")],
    "polynomials": [("(x+1)^2", "x^2+2x+1"), ("48g", "48*g"), (r"\frac{x^2-1}{x-1}", "x+1")],
    "lists and sets": [("1,-2", r"\{-2, 1\}"), (r"\pm 3", "3, -3"), (r"1 \text{ or } 2", "2,1"), ("1,2", "x=2, x=1")],
    "tuples": [("(1,2)", r"\left(1, \frac42\right)"), ("(1,2)", "y=2, x=1"), (r"\langle 1,2\rangle", "(1,2)")],
    "bases": [("1011_2", r"1011_{2}"), (r"204_5", r"204_{\text{five}}"), ("1011_2", "1011")],
    "words and choices": [
        (r"\text{Navin}", "navin"),
        (r"\text{(C)}", "C."),
        ("B", r"\textbf{(B)}\ 5"),
        (r"\text{five}", "5"),
    ],
    "units": [
        (r"5\text{ cm}", "5"),
        (r"5\text{ m}", "5"),
        (r"60\text{ mph}", r"60\text{ miles per hour}"),
        (r"\$10", "10"),
    ],
    "percents": [(r"50\%", "50"), (r"50\%", r"\frac12"), (r"50\%", r"50\text{ percent}")],
    "assignments": [("x=5", "5"), ("AB = 10", "10"), ("f(x)=2x+1", "1+2x"), ("|AB|=1", "1")],
    "equations": [("y=2x+1", "2x-y+1=0"), (r"x^2/4+y^2/3=1", "3x^2+4y^2=12")],
    "ratios and times": [("2:4", "1:2"), (r"4:30\text{ p.m.}", "4:30 PM")],
    "inverses": [("f^{-1}(x)=x-1", "x-1")],
    "ellipses": [(r"\{1, 2, \ldots, 9\}", r"\{1,2,\dots,9\}")],
    "matrices": [(r"\begin{pmatrix}1/2\\0\end{pmatrix}", r"\begin{bmatrix} 0.5 \\ 0 \end{bmatrix}")],
    "huge powers": [(r"2^{10^9}", r"4^{5\cdot10^8}"), (r"1", r"1^{10^{10^{10}}}"), (r"(x+y)^{2000}", r"(y+x)^{2000}")],
}

BY_VALUE = {
    "nested radicals": [(r"\sqrt6+\sqrt2", r"\sqrt{8+4\sqrt3}")],
    "trigonometry": [
        (r"-\sqrt3", r"-\tan80^\circ+4\sin80^\circ"),
        (r"\sin^2x", r"1-\cos^2x"),
        (r"\sec x", r"\frac1{\cos x}"),
    ],
    "logarithms": [(r"\log_28", "3"), (r"\ln8", r"3\ln2"), (r"e^{2\ln3}", "9")],
    "counting": [(r"\frac{n!}{(n-2)!}", "n(n-1)"), ("(-1)^n", "(-1)^{n+2}"), (r"\binom n2", r"\frac{n(n-1)}2")],
    "intervals": [("(2,5)", "2<x<5"), (r"[-2,2]", r"|x|\le2"), (r"(1,2)\cup(2,3)", r"(1,3)\setminus\{2\}")],
    "inequalities": [
        (r"x>2, x\ne3", r"(2,3)\cup(3,\infty)"),
        ("x<1", "-x>-1"),
        (r"(-\infty,-1)\cup(1,\infty)", r"x<-1\text{ or }x>1"),
    ],
}

DIFFERENT = {
    "rounding": [
        (r"\frac13", "0.3333"),
        (r"\pi", "3.14159265358979"),
        ("1", "0.9999999999999"),
        (r"\sqrt2", "1.41421356"),
    ],
    "small numbers": [
        (r"1.6\times10^{-19}", r"1.7\times10^{-19}"),
        (r"\frac1{100!}", r"\frac1{101!}"),
        ("10^{-20}", "0"),
    ],
    "brackets": [("(0,1]", "(0,1)"), ("(1,2)", "[1,2]"), (r"\{1,2\}", "(1,2)"), (r"\{0,1\}", "[0,1]")],
    "order": [
        ("(1,2)", "(2,1)"),
        ("3:1", "1:3"),
        ("x=1,y=2", "x=2,y=1"),
        (r"\text{Ann, Bob, Eve}", r"\text{Bob, Ann, Eve}"),
    ],
    "bases": [("1011_2", "1011_3"), ("40", "40_9"), ("1_6", "1_7")],
    "false chains": [("5", "6=5"), ("5", "1=2=3=4=5"), ("5", "x=6=5"), ("5", "0=0")],
    "several values": [
        ("5", "5,6"),
        ("5", r"x=5\text{ or }x=6"),
        ("-2,1", "-2,1,0"),
        (r"1\pm\sqrt{19}", r"1+\sqrt{19}"),
    ],
    "names": [("x=5", "y=5"), ("2x+1", "2t+1"), ("x_1", "x_2"), ("A", "B"), (r"\text{yes}", "No"), ("E", "2.71828")],
    "equations": [("y=2x+1", "y=2x-1"), ("2x+z=1", "1"), ("x-3z=0", "0"), ("x<1", "x>1"), (r"x\ne3", "x=3")],
    "units": [
        (r"5\text{ cm}", r"5\text{ m}"),
        (r"5\text{ m}", r"5\text{ m}^2"),
        (r"4:30\text{ pm}", r"4:30\text{ am}"),
    ],
    "nothing": [
        ("0", "None"),
        ("0", r"\text{False}"),
        ("5", "?"),
        ("5", r"\infty-\infty"),
        ("5", r"\frac00"),
        ("", ""),
    ],
    "parity": [("(-1)^n", "1"), (r"\lfloor n/2\rfloor", "n/2"), (r"\sqrt{x^2}", "x")],
    "mistakes": [("5", "5!"), ("5", r"\neg5"), (r"2007+\frac\pi2", r"2007+\frac2"), ("3", "3)"), ("f(x)=1", "f[x)=1")],
}


@pytest.mark.parametrize(("gold", "answer"), [pair for pairs in SAME.values() for pair in pairs])
def test_the_same_value_in_another_form_is_right(gold: str, answer: str) -> None:
    assert ALONE.judge(gold, answer).equal


@pytest.mark.skipif(not numeric.available(), reason="mpmath is not installed: pip install 'soarctl[math]'")
@pytest.mark.parametrize(("gold", "answer"), [pair for pairs in BY_VALUE.values() for pair in pairs])
def test_what_exact_arithmetic_cannot_hold_is_compared_by_value(gold: str, answer: str) -> None:
    assert ALONE.judge(gold, answer).equal


@pytest.mark.parametrize(("gold", "answer"), [pair for pairs in DIFFERENT.values() for pair in pairs])
def test_another_value_is_wrong(gold: str, answer: str) -> None:
    assert not ALONE.judge(gold, answer).equal


@pytest.mark.parametrize(("gold", "answer"), [(r"\text{None}", "None"), (r"\text{undefined}", "Undefined")])
def test_a_word_that_says_there_is_nothing_is_right_where_it_is_the_answer(gold: str, answer: str) -> None:
    assert ALONE.judge(gold, answer).equal
    assert not ALONE.judge("5", answer).equal


@pytest.mark.parametrize(
    "bomb", ["9^{9^{9^9}}", "(10^9)!", r"(2^{2^{4^{8^{16}}}}, \infty)", "(" * 5000, r"\frac" * 3000]
)
def test_what_nothing_could_evaluate_equals_itself_and_nothing_else(bomb: str) -> None:
    assert ALONE.judge(bomb, bomb) == Judgement(True, Reason.EXACT)
    assert not ALONE.judge("5", bomb).equal


def test_a_verdict_says_by_which_rule_it_was_reached() -> None:
    assert ALONE.judge("5", "5.0").reason is Reason.EXACT
    assert ALONE.judge(r"\text{Navin}", "navin").reason is Reason.NORMALISED
    assert ALONE.judge("5", " ").reason is Reason.NO_ANSWER
    assert ALONE.judge("5", "9" * 700).reason is Reason.REFUSED
    assert ALONE.judge("5", "5 5 @").reason is Reason.REFUSED
    assert ALONE.judge("5", "(5").reason is Reason.PARSE_ERROR


def test_math_verify_is_asked_about_what_the_own_path_cannot_read(workers: Workers) -> None:
    gold, answer = (
        r"\begin{pmatrix}6&8\end{pmatrix}",
        r"\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}5&6\end{pmatrix}",
    )
    assert Verifier(workers).judge(gold, answer) == Judgement(True, Reason.SYMBOLIC)
    assert Verifier(workers).judge(gold, answer.replace("5", "4")) == Judgement(False, Reason.SYMBOLIC)
    assert ALONE.judge(gold, answer) == Judgement(False, Reason.PARSE_ERROR)


def test_only_mathematics_can_be_the_answer_to_a_practice_question() -> None:
    readable = [r"\frac12", "(1,2)", "x=5", r"1011_2", r"5\text{ cm}", r"\{1,2\}"]
    unreadable = ["", "kitten", r"\text{yes}", "C", "((", "os.system('ls')", "9" * 700]
    assert ALONE.readable(readable) == [True] * len(readable)
    assert ALONE.readable(unreadable) == [False] * len(unreadable)


def test_repeated_pairs_are_judged_once() -> None:
    verifier = Verifier(None)
    first = verifier.judge_all([("1/2", "0.5")] * 1000 + [("1/2", "0.6")] * 1000)
    assert [verdict.equal for verdict in first] == [True] * 1000 + [False] * 1000
    assert verifier.judge("1/2", "0.5") is first[0]
