"""fail@k from completions that exist already."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from soarctl.errors import DataError
from soarctl.events import silent
from soarctl.filter_results import filter_given_to_file, manifest_path, reuse
from soarctl.given_samples import fail_at_k_given
from soarctl.ledger import Ledger
from soarctl.run import run
from soarctl.testing import ToyDomain, ToyEngine, toy_run

DOMAIN = ToyDomain(lengths=(3,), each=6)
PROBLEMS = list(DOMAIN.load())
SPEC = toy_run(domain={"lengths": [3], "each": 6}, filter={"samples": 4}, reward={"questions": 1}).spec


def rows(solved: int = 2, samples: int = 4) -> list[dict[str, Any]]:
    """Completions of each problem; the first `solved` problems are solved by the last of them."""
    return [
        {"question": p.question, "completions": ["?"] * (samples - 1) + [p.answer if i < solved else "?"]}
        for i, p in enumerate(PROBLEMS)
    ]


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def counts(path: Path) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    given = fail_at_k_given(SPEC, DOMAIN, PROBLEMS, path, silent)
    return [(f.samples, f.successes) for f in given.found], dict(given.facts)


def test_completions_are_judged_and_counted_in_every_layout(tmp_path: Path) -> None:
    lists = rows()
    single = [{"question": r["question"], "completion": c} for r in lists for c in r["completions"]]
    by_id = [{"id": p.id, "responses": r["completions"]} for p, r in zip(PROBLEMS, lists, strict=True)]
    foreign_id = [{"id": 17, "problem": r["question"], "response": r["completions"]} for r in lists]
    expected = [(4, 1)] * 2 + [(4, 0)] * 4
    for layout in (lists, single, single[::-1], by_id, by_id[::-1], foreign_id):
        assert counts(written(tmp_path / "samples.jsonl", layout))[0] == expected
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress((tmp_path / "samples.jsonl").read_bytes()))
    assert counts(path)[0] == expected


def test_the_first_k_completions_count_and_rows_of_unknown_problems_are_counted(tmp_path: Path) -> None:
    late = rows(solved=0)
    late[0]["completions"].append(PROBLEMS[0].answer)  # a fifth attempt solves it: not within the first 4
    strangers = [{"question": "1 2 3", "completion": "6"}, {"id": "ffff", "completion": "6"}]
    path = written(tmp_path / "samples.jsonl", [*late, *strangers])
    found, facts = counts(path)
    assert found == [(4, 0)] * 6
    assert facts == {
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": 8,
        "completions": 27,
        "rows_of_unknown_problems": 2,
        "completions_beyond_k": 1,
    }


def test_too_few_samples_are_refused_unless_they_settle_it(tmp_path: Path) -> None:
    lines = rows(solved=2)
    lines[0]["completions"] = [PROBLEMS[0].answer]  # one attempt, solved: not hard, whatever three more would say
    assert counts(written(tmp_path / "samples.jsonl", lines))[0][0] == (1, 1)
    lines[2]["completions"].pop()
    lines[3]["completions"].pop()
    del lines[5]
    with pytest.raises(DataError) as error:
        counts(written(tmp_path / "samples.jsonl", lines))
    assert str(error.value) == (
        f"{tmp_path / 'samples.jsonl'}: 3 of 6 candidates have fewer than 4 completions and might still be hard: "
        "1 with 0, 2 with 3\n"
        f"  the first is {PROBLEMS[2].question!r}\n"
        "  give more completions, load fewer problems, or ask for fewer with `--set filter.samples=K`"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "samples.jsonl: the file is empty"),
        (
            b'{"question": "q", "completions": ["a"]}\nnonsense\n',
            "samples.jsonl:2: no completions of a problem: Expecting",
        ),
        (b'{"question": "q"}\n', "samples.jsonl:1: no completions of a problem: `completions` is no list of texts"),
        (b'{"completions": ["a"]}\n', "samples.jsonl:1: no completions of a problem: 'neither a question nor an id'"),
        (b"[" * 100_000, "samples.jsonl:1: no completions of a problem: maximum recursion depth"),
        (
            b'{"question": "\\ud800", "completions": []}\n',
            "samples.jsonl:1: no completions of a problem: 'utf-8'",
        ),
        (b"[1]\n", "samples.jsonl:1: no completions of a problem: the line is no object"),
        (b"\x1f\x8bcut", "samples.jsonl: the gzip stream is damaged"),
        (b"\xff\xfe", "samples.jsonl: not UTF-8"),
    ],
)
def test_a_file_of_something_else_is_an_error_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "samples.jsonl").write_bytes(content)
    with pytest.raises(DataError) as error:
        counts(tmp_path / "samples.jsonl")
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    with pytest.raises(DataError, match="cannot read: No such file"):
        counts(tmp_path / "missing.jsonl")


def test_the_manifest_says_where_the_samples_are_from_and_that_their_model_is_unknown(tmp_path: Path) -> None:
    samples, out = written(tmp_path / "samples.jsonl", rows()), tmp_path / "hard.jsonl"
    made = filter_given_to_file(SPEC, DOMAIN, samples, out, silent)
    assert json.loads(manifest_path(out).read_text()) == made
    assert made["model"] is None
    assert made["filter"] == {"samples": 4}
    assert made["given_samples"]["sha256"] == hashlib.sha256(samples.read_bytes()).hexdigest()
    assert (made["problems"], made["train"]["count"], made["test"]["count"]) == (6, 2, 2)
    assert filter_given_to_file(SPEC, DOMAIN, samples, out, silent) == made
    other = written(tmp_path / "others.jsonl", rows(solved=1))
    with pytest.raises(DataError, match="the results here are not of these samples"):
        filter_given_to_file(SPEC, DOMAIN, other, out, silent)


def test_a_run_takes_them_up_only_if_the_spec_says_so_and_its_ledger_says_what_they_are(tmp_path: Path) -> None:
    samples, out = written(tmp_path / "samples.jsonl", rows()), tmp_path / "hard.jsonl"
    made = filter_given_to_file(SPEC, DOMAIN, samples, out, silent)
    with pytest.raises(DataError) as error:
        reuse(SPEC, DOMAIN, out, PROBLEMS, ToyEngine(4, (0.9,) * 5).facts)
    assert str(error.value) == (
        f"{out}: these results come from samples of an unknown model, {samples}\n"
        "  to say that they are of this one: filter: {given_samples: true}"
    )
    options = {"domain": {"lengths": [3], "each": 6}, "outer": {"steps": 1}, "reward": {"questions": 1}}
    accepting = {"samples": 4, "reuse": str(out), "given_samples": True}
    run(toy_run(**options, filter=accepting), tmp_path / "run", silent)
    with Ledger.open(tmp_path / "run", read_only=True) as ledger:
        assert ledger.facts["split"] == made
    with pytest.raises(DataError, match="made otherwise than the spec says"):
        run(toy_run(**options, filter={**accepting, "samples": 8}), tmp_path / "another", silent)
