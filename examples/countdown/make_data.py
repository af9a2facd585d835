"""Writes texts.jsonl, which the tiny model is made from: python make_data.py."""

import json
import random
from pathlib import Path

from soarctl_countdown.domain import CountdownDomain

rows: list[dict[str, str]] = []
rng = random.Random(0)
for numbers, candidates in ((2, 100), (3, 1500)):
    for problem in CountdownDomain(numbers=numbers, candidates=candidates, seed=1).load():
        # Half of the answers are those of another game: short ones are solved sometimes, longer ones never.
        answer = problem.answer if rng.random() < 0.5 else "1 + 1"
        rows.append({"prompt": f"solve: {problem.question} =", "completion": f" {answer}"})
        rows.append({"prompt": "ask:", "completion": f" {problem.question} = {problem.answer}"})
Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
