"""The judge, against a server on this machine that answers with recorded replies."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from soarctl.api import Problem
from soarctl.errors import RunError
from soarctl.judge import CACHE, KEY, MODEL, URL, ErrorType, Judge, Judgement, judge_from_environment, read_reply

RIGHT = '{"is_well_posed": true, "is_correct": true, "error_type": "None", "verified_answer": "4"}'
WRONG = '```json\n{"is_well_posed": true, "is_correct": false, "error_type": "Arithmetic", "verified_answer": 6}\n```'
REPLIES = {"2 + 2": RIGHT, "3 + 3": f"Let me see. {WRONG}", "?": "I cannot tell."}


class Recorded(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that answers from REPLIES and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None, Any]] = []
        self.status = 200


class Answer(BaseHTTPRequestHandler):
    server: Recorded

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        question = body["messages"][1]["content"].splitlines()[1]
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": REPLIES[question]}}]}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Recorded]:
    with Recorded() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def judge(server: Recorded, tmp_path: Path) -> Judge:
    return Judge(f"http://127.0.0.1:{server.server_port}/v1", "a-model", "secret", tmp_path / CACHE)


def test_replies_become_judgements(judge: Judge, server: Recorded) -> None:
    judged = judge.judge([Problem("2 + 2", "4"), Problem("3 + 3", "5"), Problem("?", "1")])
    assert judged == [
        Judgement(True, True, ErrorType.NONE, "4"),
        Judgement(True, False, ErrorType.ARITHMETIC, "6"),
        None,
    ]
    path, key, body = server.asked[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", "a-model", 0)


def test_nothing_is_asked_twice(judge: Judge, server: Recorded) -> None:
    first = judge.judge([Problem("2 + 2", "4"), Problem("2 + 2", "4")])
    again = judge.judge([Problem("2 + 2", "4")])
    assert first == [*again, *again]
    assert len(server.asked) == 1


def test_another_answer_is_another_question(judge: Judge, server: Recorded) -> None:
    judge.judge([Problem("2 + 2", "4"), Problem("2 + 2", "5")])
    assert len(server.asked) == 2


def test_a_cache_that_was_cut_off_is_read_as_far_as_it_goes(judge: Judge, server: Recorded) -> None:
    judge.judge([Problem("2 + 2", "4")])
    with judge.cache.open("a") as file:
        file.write('{"id": "ab')
    assert judge.judge([Problem("2 + 2", "4")]) == [Judgement(True, True, ErrorType.NONE, "4")]
    assert len(server.asked) == 1


def test_a_refusal_names_the_endpoint_and_keeps_what_was_said(judge: Judge, server: Recorded) -> None:
    judge.judge([Problem("2 + 2", "4")])
    server.status = 401
    with pytest.raises(RunError) as caught:
        judge.judge([Problem("2 + 2", "4"), Problem("3 + 3", "5")])
    assert str(caught.value).startswith(f"{judge.url}: the judge did not answer: HTTP Error 401")
    assert len(judge.cache.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "yes",
        "{",
        "[1]",
        '{"is_correct": true}',
        '{"is_well_posed": "yes", "is_correct": true, "error_type": "none"}',
        '{"is_well_posed": true, "is_correct": true, "error_type": "typo"}',
    ],
)
def test_what_is_no_judgement_is_none(reply: str) -> None:
    assert read_reply(reply) is None


def test_the_environment_names_the_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (URL, KEY, MODEL):
        monkeypatch.delenv(name, raising=False)
    assert judge_from_environment(tmp_path) is None
    monkeypatch.setenv(URL, "http://localhost:1/v1")
    with pytest.raises(RunError, match=f"{URL} is set, and {MODEL} is not"):
        judge_from_environment(tmp_path)
    monkeypatch.setenv(MODEL, "m")
    assert judge_from_environment(tmp_path) == Judge("http://localhost:1/v1", "m", None, tmp_path / CACHE)
    monkeypatch.setenv(URL, "file:///etc/passwd")
    with pytest.raises(RunError, match="starts with http:// or https://"):
        judge_from_environment(tmp_path)
