"""What the teacher writes, and by which rule it is rejected."""

import pytest
from soarctl_math import questions
from soarctl_math.domain import MathDomain

from soarctl.api import PluginError, Problem, Rejection

DOMAIN = MathDomain(symbolic=False)
QUESTION, ANSWER = "<question>What is $1+1$?</question>", r"<answer>\boxed{2}</answer>"

REJECTED = {
    "no question tag": f"What is 1+1? {ANSWER}",
    "question not closed": f"<question>What is 1+1? {ANSWER}",
    "several questions": f"{QUESTION} {QUESTION} {ANSWER}",
    "no answer tag": QUESTION,
    "answer not closed": rf"{QUESTION} <answer>\boxed{{2}}",
    "several answers": f"{QUESTION} {ANSWER} {ANSWER}",
    "empty question": f"<question> </question>{ANSWER}",
    "answer inside the question": "<question>Is it <answer></question>2</answer>",
    "no box": f"{QUESTION}<answer>2</answer>",
    "box not closed": rf"{QUESTION}<answer>\boxed{{2</answer>",
    "empty box": rf"{QUESTION}<answer>\boxed{{ }}</answer>",
    "answer is not mathematics": rf"{QUESTION}<answer>\boxed{{\text{{a cat}}}}</answer>",
    "question too long": f"<question>{'x' * 4001}</question>{ANSWER}",
}


def test_a_question_and_its_boxed_answer_are_read_from_their_tags() -> None:
    text = f"Let me think.\n{QUESTION}\nIt is 1+1=2.\n{ANSWER}\nDone."
    assert DOMAIN.parse(text) == Problem("What is $1+1$?", "2")


def test_the_defect_of_the_printed_template_is_accepted() -> None:
    assert DOMAIN.parse(f"<question>What is $1+1$?<question>{ANSWER}") == Problem("What is $1+1$?", "2")


@pytest.mark.parametrize("rule", REJECTED)
def test_every_rejection_names_its_rule(rule: str) -> None:
    rejection = DOMAIN.parse(REJECTED[rule])
    assert isinstance(rejection, Rejection)
    assert rejection.rule == rule


@pytest.mark.parametrize("text", ["", "<question>" * 20_000, "<answer>" * 20_000, "\0", r"\boxed{" * 20_000])
def test_whatever_the_text_it_is_read_or_rejected(text: str) -> None:
    assert isinstance(DOMAIN.parse(text), Rejection)


def test_prompts_are_templates_that_a_spec_can_replace() -> None:
    domain = MathDomain(
        teacher_template="Topics: {{ topics | join(', ') }}", student_template="Q: {{ question }}", topics=("Knots",)
    )
    assert domain.teacher_prompt() == "Topics: Knots"
    assert domain.student_prompt("{{ 7 * 7 }}") == "Q: {{ 7 * 7 }}"  # a question is never a template


def test_the_default_prompts_hold_what_the_paper_says_they_hold() -> None:
    teacher, student = DOMAIN.teacher_prompt(), DOMAIN.student_prompt("What is 1+1?")
    for part in (*questions.TOPICS, "<question>", "</question>", "<answer>", "</answer>", r"\boxed{"):
        assert part in teacher
    assert student.endswith("User: What is 1+1?\nAssistant:")
    assert "The final answer is" in student


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ subject }}", r"the template uses subject, which there is not \(Jinja2, with question"),
        ("{% for %}", "the template does not compile: "),
        ("{{ question", "the template does not compile: "),
    ],
)
def test_a_template_that_is_wrong_is_refused_with_the_options(template: str, said: str) -> None:
    for option in ("student_template", "teacher_template"):
        with pytest.raises(ValueError, match=said):
            MathDomain.model_validate({option: template})


def test_a_template_that_reaches_for_more_than_text_is_an_error() -> None:
    with pytest.raises(PluginError, match="the template does not work"):
        MathDomain(student_template="{{ question.__class__.__mro__ }}").student_prompt("?")
