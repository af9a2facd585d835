"""The whole loop on real problems with a random model that writes whole phrases, so that every part has work to do."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from soarctl_math import symbolic

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

# Math-Verify is asked about these: a sum takes it 0.02 s, and a power more than 5 s.
SUMS = [rf"\boxed{{\begin{{pmatrix}}{n}\end{{pmatrix}}+\begin{{pmatrix}}1\end{{pmatrix}}}}" for n in range(20, 30)]
POWERS = [rf"\boxed{{e^{{\begin{{pmatrix}}1&2&3\\4&5&6\\7&8&{n}\end{{pmatrix}}}}}}" for n in (10, 11, 14, 15, 19)]
SPEC = """
name: phrases
model: {base: MODEL}
domain:
  plugin: math
  data: [{path: PROBLEMS}]
  student_template: "{{ question }}"
  teacher_template: "Write about {{ topics[0] }}."
  symbolic: SYMBOLIC
  workers: 1
  timeout: 1.0
filter: {samples: 2, max_new_tokens: 1}
outer: {steps: 2}
teacher: {group_size: 2, dataset_size: 4, max_new_tokens: 1, lr: 1.0e-3}
reward: {plugin: grounded, questions: 4, repeats: 2, samples: 0}
inner: {steps: 2, batch_size: 2, group_size: 4, max_new_tokens: 1, lr: 1.0e-2}
trainer: {plugin: accelerate, rank: 2, width: 2, device: cpu}
evaluation: {samples: 2, k: [1, 2]}
"""


def phrases() -> list[str]:
    """Practice questions right and wrong, their defects, and answers."""
    asked = [
        f"<question>What is ${a}+{b}$?</question><answer>\\boxed{{{a + b + (a == b)}}}</answer>"
        for a in range(8)
        for b in range(8)
    ]
    defects = [
        text.format(n)
        for n in range(12)
        for text in (
            "<question>What is {}?</question>",
            "<question>Who is {}?</question><answer>\\boxed{{\\text{{cat}}}}</answer>",
            "no idea {}",
        )
    ]
    answers = [f"\\boxed{{{n}}}" for n in range(16)] + [
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{(10^9)!}",
        "\\boxed{",
        *SUMS,
        *POWERS,
    ]
    return asked + defects + answers


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights; its tokens are the characters of a prompt, and whole phrases."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<pad>", "<eos>", *map(chr, range(32, 127)), *phrases()]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    directory = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def spec(model: Path, data: Path, tmp_path: Path) -> Path:
    from soarctl_math.files import Report, rows

    if "math" not in entry_points(group="soarctl.domains").names:
        pytest.skip("the math domain is not installed as a plug-in")
    real = [row for _, row in rows(str(data / "math" / "math500.jsonl.gz"), Report(""))]
    short = [row for row in real if len(row["problem"]) < 80][:16]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    text = SPEC.replace("MODEL", str(model)).replace("PROBLEMS", str(tmp_path / "problems.jsonl"))
    (tmp_path / "spec.yaml").write_text(text.replace("SYMBOLIC", str(symbolic.available()).lower()))
    return tmp_path / "spec.yaml"


def run_until(event: str | None, spec: Path, directory: Path, *options: str) -> None:
    """Runs a spec in a process of its own, which is killed when it tells of the event."""
    command = [sys.executable, "-m", "soarctl", "run", str(spec), "--out", str(directory), "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == event:
                process.kill()
                break
    assert process.returncode == (0 if event is None else -signal.SIGKILL)


def ledger_rows(directory: Path, query: str) -> Sequence[Any]:
    from soarctl.ledger import Ledger

    with Ledger.open(directory, read_only=True) as ledger:
        return list(ledger.rows(query))


def test_two_outer_steps_killed_and_resumed_twice_end_as_two_that_were_not(spec: Path, tmp_path: Path) -> None:
    from soarctl.events import silent
    from soarctl.ledger import Ledger
    from soarctl.run import run
    from soarctl.spec_reader import load_spec

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(load_spec(spec), whole, silent)
    run_until("filter", spec, killed)
    run_until("step", spec, killed, "--resume")
    run_until(None, spec, killed, "--resume")
    contents: list[str] = []
    for directory in (whole, killed):
        with Ledger.open(directory, read_only=True) as ledger:
            contents.append(ledger.content())
    assert contents[0] == contents[1]

    # Every part had work to do. Of the teacher's texts some were no questions,
    assert len(ledger_rows(whole, "SELECT * FROM steps")) == 2
    assert len(ledger_rows(whole, "SELECT DISTINCT rule FROM rejections")) > 1
    # of the students' some were wrong, some held no answer, and at some Math-Verify was killed,
    verdicts: Counter[str] = Counter()
    for (counted,) in ledger_rows(whole, "SELECT verdicts FROM problems UNION ALL SELECT verdicts FROM students"):
        verdicts.update(json.loads(counted))
    assert verdicts["wrong/exact"] > 0
    assert verdicts["unparsed/no answer"] > 0
    if symbolic.available():
        assert any(verdict.startswith("wrong/symbolic") for verdict in verdicts)
        assert any(verdict.startswith("timeout/timeout") for verdict in verdicts)
    # and for some updates no completion earned anything.
    rewards = [json.loads(each) for (each,) in ledger_rows(whole, "SELECT rewards FROM students")]
    assert any(0.0 in rewards_T for rewards_T in rewards)
