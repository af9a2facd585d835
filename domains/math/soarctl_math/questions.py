"""What teacher and student are asked, in our own words, and how a question of the teacher is read."""

import re
from collections.abc import Sequence
from functools import cache

from soarctl.api import PluginError, Rejection
from soarctl_math.extract import boxed

TOPICS = (
    "Algebra",
    "Counting and Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
    "Precalculus",
)

TEACHER = """\
You write practice problems for an assistant that is learning mathematics. Write one new problem.

It may come from any of these topics:
{% for topic in topics -%}
- {{ topic }}
{% endfor %}
Format:
- The problem stands between <question> and </question>.
- Its final answer stands between <answer> and </answer>, as \\boxed{...} and nothing else.
- If you work anything out, do it outside of these tags.

Rules:
- The problem is your own, not a copy of a well-known one.
- It is challenging: solving it takes at least two or three steps of reasoning.
- It is complete: nothing that is needed is missing, and it has exactly one answer.
- Write exactly one problem, exactly in this format.

The new problem:
"""

STUDENT = """\
The following is a conversation between User and Assistant. User asks a question of mathematics. Assistant first \
writes down the complete reasoning, step by step, and then gives the final answer in \\boxed{}. The last line always \
reads: The final answer is \\boxed{answer}.

User: {{ question }}
Assistant:"""

_QUESTION = re.compile(r"<\s*question\s*>", re.IGNORECASE)
_QUESTION_END = re.compile(r"<\s*/\s*question\s*>", re.IGNORECASE)
_ANSWER = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_ANSWER_END = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)


@cache
def check_template(template: str) -> str:
    """The template itself, if it is one and uses no names but `question` and `topics`.

    Raises:
        ValueError: it does not compile, or asks for what it is not given.
    """
    from jinja2 import TemplateError, meta
    from jinja2.sandbox import SandboxedEnvironment

    known = "Jinja2, with question (student) and topics (teacher)"
    environment = SandboxedEnvironment()
    try:
        parsed = environment.parse(template)
    except TemplateError as error:
        raise ValueError(f"the template does not compile: {error} ({known})") from error
    unknown = meta.find_undeclared_variables(parsed) - {"question", "topics", *environment.globals}
    if unknown:
        raise ValueError(f"the template uses {', '.join(sorted(unknown))}, which there is not ({known})")
    return template


@cache
def rendered(template: str, question: str, topics: Sequence[str], option: str) -> str:
    """A prompt from its Jinja2 template.

    Raises:
        PluginError: the template is wrong, or uses a name that there is not.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    # The spec of a stranger may be run: its templates can compute text and nothing else.
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    try:
        return environment.from_string(template).render(question=question, topics=topics)
    except TemplateError as error:
        raise PluginError(
            f"the template does not work: {error}",
            at=f"domain.{option}",
            hint="Jinja2, with the names `question` (student) and `topics` (teacher)",
        ) from error


def read_question(completion: str, longest: int) -> tuple[str, str] | Rejection:
    """(question, boxed answer) of a teacher completion, or the rule by which it is none (section B.2).

    The paper's printed template closes the question with a second opening tag; that is accepted.
    """
    openings, closings = list(_QUESTION.finditer(completion)), list(_QUESTION_END.finditer(completion))
    if not openings:
        return Rejection("no question tag")
    if len(closings) > 1 or len(openings) > 2 or (len(openings) == 2 and closings):
        return Rejection("several questions")
    if len(openings) == 2:
        closings = openings[1:]
    if not closings or closings[0].start() < openings[0].end():
        return Rejection("question not closed")
    answers, answer_ends = list(_ANSWER.finditer(completion)), list(_ANSWER_END.finditer(completion))
    if not answers:
        return Rejection("no answer tag")
    if len(answers) > 1 or len(answer_ends) > 1:
        return Rejection("several answers")
    if not answer_ends or answer_ends[0].start() < answers[0].end():
        return Rejection("answer not closed")
    question = completion[openings[0].end() : closings[0].start()].strip()
    answer = completion[answers[0].end() : answer_ends[0].start()]
    if not question:
        return Rejection("empty question")
    if len(question) > longest:
        return Rejection("question too long", f"{len(question)} characters")
    if _ANSWER.search(question):
        return Rejection("answer inside the question")
    if "\\boxed" not in answer:
        return Rejection("no box")
    content = boxed(answer)
    if content is None:
        return Rejection("box not closed")
    if not content.strip():
        return Rejection("empty box")
    return question, content.strip()
