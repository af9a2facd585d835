"""What a judge says about practice questions: a chat model behind an OpenAI-compatible address, asked once for each.

For domains that cannot compute true answers. For people only: nothing in a run asks this.
"""

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from soarctl.api import Problem
from soarctl.errors import RunError, disk_errors

URL, KEY, MODEL = "SOARCTL_JUDGE_URL", "SOARCTL_JUDGE_KEY", "SOARCTL_JUDGE_MODEL"
CACHE = "judgements.jsonl"
_SECONDS = 120
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)

INSTRUCTION = """\
You check practice questions that a student model was trained on. Solve the question yourself. Do not assume anything \
that it does not say: if something that is needed is missing, it is not well-posed. Then compare the proposed answer \
with yours.

Reply with one JSON object and nothing else:
{"is_well_posed": true or false, "is_correct": true or false, "error_type": one of "none", "arithmetic", "logic", \
"impossible", "ambiguous", "verified_answer": your answer as text, or null if there is none}"""


class ErrorType(StrEnum):
    """What is wrong with a question or its answer; one of them, as in the paper's table (section C.4)."""

    NONE = "none"
    ARITHMETIC = "arithmetic"
    LOGIC = "logic"
    IMPOSSIBLE = "impossible"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one question with the teacher's answer."""

    well_posed: bool
    correct: bool
    error: ErrorType | None
    """None where nobody says what kind of error it is."""
    answer: str | None
    """The true answer."""


@dataclass(frozen=True)
class Judge:
    """A chat model that judges, with what it said before."""

    url: str
    """Up to and with `/v1`."""
    model: str
    key: str | None
    cache: Path
    """JSON lines; one for each question that was answered."""

    def judge(self, problems: Sequence[Problem]) -> list[Judgement | None]:
        """One judgement per question, in order; None where the reply was none.

        Raises:
            RunError: the endpoint refuses, or cannot be reached.
        """
        known = _read_cache(self.cache)
        judged: list[Judgement | None] = []
        for problem in problems:
            name = _name(self.model, problem)
            if name not in known:
                known[name] = self._ask(problem)
                with disk_errors(self.cache), self.cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": name, "reply": known[name]}, ensure_ascii=False) + "\n")
            judged.append(read_reply(known[name]))
        return judged

    def _ask(self, problem: Problem) -> str:
        asked = f"Question:\n{problem.question}\n\nProposed answer:\n{problem.answer}"
        messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": asked}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as response:
                reply: Any = json.load(response)
            return str(reply["choices"][0]["message"]["content"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise RunError(
                f"the judge did not answer: {error}",
                at=self.url,
                hint=f"{URL}, {KEY} and {MODEL} say which it is; what it said already is kept in {self.cache}",
            ) from error


def judge_from_environment(directory: Path) -> Judge | None:
    """The judge that the environment names, with its cache in the run directory; None where it names none.

    Raises:
        RunError: an address without the name of a model, or one that is not http.
    """
    url = os.environ.get(URL)
    if not url:
        return None
    model = os.environ.get(MODEL)
    if not model:
        raise RunError(f"{URL} is set, and {MODEL} is not", at=URL, hint="name the model that is to judge")
    if not url.startswith(("http://", "https://")):
        raise RunError(f"expected an address that starts with http:// or https://, found {url!r}", at=URL)
    return Judge(url, model, os.environ.get(KEY), directory / CACHE)


def read_reply(reply: str) -> Judgement | None:
    """The judgement in a reply, which may stand in other words or a code block; None where there is none."""
    match = _OBJECT.search(reply)
    try:
        said: Any = json.loads(match[0]) if match else None
        error = ErrorType(str(said["error_type"]).lower())
        answer = said.get("verified_answer")
        if not isinstance(said["is_well_posed"], bool) or not isinstance(said["is_correct"], bool):
            return None
        return Judgement(said["is_well_posed"], said["is_correct"], error, None if answer is None else str(answer))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _name(model: str, problem: Problem) -> str:
    said = json.dumps([model, INSTRUCTION, problem.question, problem.answer])
    return hashlib.sha256(said.encode()).hexdigest()


def _read_cache(path: Path) -> dict[str, str]:
    known: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        try:
            row = json.loads(line)
            known[row["id"]] = row["reply"]
        except (ValueError, KeyError, TypeError):  # cut off in the middle, by a kill
            continue
    return known
