"""What teacher and student are asked, and how programs are found in what they say."""

import re
from collections.abc import Sequence
from functools import cache

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from soarctl.api import PluginError

TOPICS = (
    "lists and arrays", "strings and text", "dictionaries and sets", "sorting and searching", "recursion",
    "dynamic programming", "number theory", "combinatorics", "graphs and trees", "simulation of a process",
)  # fmt: skip

TEACHER = """\
You invent programming problems that help a student get better at Python. Write one new problem about one of these \
topics: {{ topics | join(", ") }}.

Give exactly three parts, each between its tags:

<question>
The task in plain words. Name the function to write, its arguments and what it returns, and settle the unusual cases. \
The student sees only this part and one of the tests.
</question>
<tests>
{{ tests_wanted }} or more lines of Python, each of the form: assert name(arguments) == value
</tests>
<solution>
A complete Python program that defines the function and passes every test. Standard library only, no input, no output.
</solution>

The problem must be your own, must take at least two or three steps of thought, and must have one clear right answer \
for every input. Think before you write if that helps, outside the tags. Write exactly one problem.

Problem:
"""

STUDENT = """\
The following is a conversation between a User and an Assistant. The User poses a programming task. The Assistant \
first thinks the task through in full and then gives one complete Python program in a code block that starts with \
```python and ends with ```. Nothing follows the block.

User: {{ question }}

Assistant:"""

STUDENT_OUTPUT = """\
The following is a conversation between a User and an Assistant. The User asks what a piece of Python code returns. \
The Assistant first follows the code step by step and then gives the value as a Python literal in a code block that \
starts with ```python and ends with ```. Nothing follows the block.

User: {{ question }}

Assistant:"""

_TAGS = ("question", "tests", "solution")
_FENCE = re.compile(r"([ \t]*)```[ \t]*([A-Za-z0-9_+.-]*)[ \t]*")


@cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def render(template: str, at: str, **values: object) -> str:
    """A prompt from its template.

    Raises:
        PluginError: the template is broken or uses a name that it is not given.
    """
    try:
        return _environment().from_string(template).render(**values)
    except TemplateError as error:
        raise PluginError(
            f"the prompt template cannot be used: {error}", at=at, hint=f"it may use: {', '.join(sorted(values))}"
        ) from error


def check_template(template: str, *names: str) -> str:
    """The template itself, if it is one and uses no other names.

    Raises:
        ValueError: it does not compile, or asks for what it is not given.
    """
    known = f"Jinja2, with {' and '.join(names)}"
    try:
        parsed = _environment().parse(template)
    except TemplateError as error:
        raise ValueError(f"the template does not compile: {error} ({known})") from error
    unknown = meta.find_undeclared_variables(parsed) - {*names, *_environment().globals}
    if unknown:
        raise ValueError(f"the template uses {', '.join(sorted(unknown))}, which there is not ({known})")
    return template


def sections(text: str) -> dict[str, str] | str:
    """The three parts of a teacher completion, or the name of the rule by which it has none.

    A second opening tag in the place of the closing one is accepted, as the paper's own template writes it.
    """
    found: dict[str, str] = {}
    for tag in _TAGS:
        parts = re.split(rf"</?{tag}>", text)
        if len(parts) < 3:
            return f"no_{tag}"
        if len(parts) > 3:
            return f"several_{tag}"
        if not text[: len(parts[0]) + len(tag) + 2].endswith(f"<{tag}>"):
            return f"no_{tag}"
        found[tag] = parts[1].strip("\n")
        if not found[tag].strip():
            return f"empty_{tag}"
        if any(f"<{other}>" in parts[1] for other in _TAGS):
            return "nested_tags"
    return found


def unfenced(text: str) -> str:
    """Python between tags, without the code fence that models like to put around it."""
    block = fenced_block(text)
    return text if block is None else block


def fenced_block(text: str) -> str | None:
    """The content of the last closed code block that says it is Python, or of the last that says nothing, or None.

    A block ends at a fence with the indentation of its first one, which is taken off its lines: blocks stand in lists,
    and docstrings hold fences.
    """
    found: dict[bool, str] = {}
    opened: list[str] | None = None
    indent = language = ""
    for line in text.splitlines():
        fence = _FENCE.fullmatch(line)
        if opened is None:
            if fence is not None:
                opened, indent, language = [], fence[1], fence[2].lower()
        elif fence is None or fence[1] != indent:
            opened.append(line.removeprefix(indent))
        else:
            if language in ("python", "py", "python3", ""):
                found[language != ""] = "\n".join(opened) + "\n"
            opened = None
    return found.get(True, found.get(False))


def task(statement: str, shown: Sequence[str], *, stdin: bool) -> str:
    """A question: the statement, how the program is used, and the tests that a student may see."""
    parts = [statement.strip()]
    if stdin:
        parts.append("The program reads standard input and writes to standard output.")
    if shown:
        parts.append(("For example:\n" if stdin else "It must pass this test:\n") + "\n".join(shown))
    return "\n\n".join(parts)
