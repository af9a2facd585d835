"""Whole runs: a random model that writes whole phrases, killed and resumed; and a student that submits attacks."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from soarctl_code.domain import CodeDomain

from soarctl.api import (
    Completion,
    Engine,
    Fleet,
    GradedSample,
    ModelSource,
    Optimizer,
    Policy,
    Prompt,
    Reward,
    Sampling,
    StepStats,
    Tensors,
    Trainer,
)
from soarctl.plugins import load
from soarctl.spec import Spec
from soarctl.spec_reader import LoadedSpec

pytestmark = pytest.mark.slow

TEACHER = (
    "<question>Write f(x) that adds {n}.</question>"
    "<tests>assert f(0) == {n}\nassert f(1) == {m}\nassert f(2) == {n} + 2</tests>"
    "<solution>def f(x):\n    return x + {n}</solution>"
)
DEFECTS = ["no tags", TEACHER.format(n=1, m=2).replace("assert", "print"), TEACHER.format(n="(", m=1)]


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


def loaded(domain: CodeDomain, trainer: Trainer, **sections: Any) -> LoadedSpec:
    values: dict[str, Any] = {
        "name": "code",
        "model": {"base": "test"},
        "domain": {"plugin": "code", **domain.model_dump(mode="json")},
        "filter": {"samples": 2, "max_new_tokens": 1},
        "outer": {"steps": 2},
        "teacher": {"group_size": 2, "dataset_size": 2, "max_new_tokens": 1, "lr": 1e-3},
        "reward": {"plugin": "grounded", "questions": 4, "repeats": 2, "samples": 0},
        "inner": {"steps": 2, "batch_size": 2, "group_size": 4, "max_new_tokens": 1, "lr": 1e-2},
        "evaluation": {"samples": 2, "k": [1, 2]},
    }
    spec = Spec.model_validate(values | sections)
    reward = load(Reward, spec.reward.plugin, spec.reward.options)
    return LoadedSpec(spec, domain, reward, trainer, (), (), {})


def ledger_rows(directory: Path, query: str) -> Sequence[Any]:
    from soarctl.ledger import Ledger

    with Ledger.open(directory, read_only=True) as ledger:
        return list(ledger.rows(query))


# --- a tiny random model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights; its tokens are the characters of a prompt, and whole phrases."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    written = [TEACHER.format(n=n, m=n + 1 + n % 2) for n in range(40)]
    answers = [fenced(f"def f(x):\n    return x + {n}") for n in range(20)]
    answers += [fenced("while True: pass"), fenced("def f(x"), "no program", fenced("import os\nos._exit(0)")]
    tokens = ["<pad>", "<eos>", *map(chr, range(32, 127)), *written, *DEFECTS, *answers]
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    directory = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=8192, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


class Stop(BaseException):
    """Stands for a kill."""


def stop_at(event: str) -> Callable[..., None]:
    def tell(name: str, /, **facts: Any) -> None:
        if name == event:
            raise Stop

    return tell


def test_two_outer_steps_killed_and_resumed_end_as_two_that_were_not(model: Path, data: Path, tmp_path: Path) -> None:
    from soarctl.events import silent
    from soarctl.ledger import Ledger
    from soarctl.run import run

    path = data / "code" / "mbpp_sanitized_nontest.json"
    (tmp_path / "problems.json").write_text(json.dumps(json.loads(path.read_text())[:16]))
    domain = CodeDomain.model_validate(
        {
            "data": [{"path": str(tmp_path / "problems.json"), "format": "mbpp"}],
            "student_template": "{{ question[:40] }}", "teacher_template": "Write about {{ topics[0] }}.",
            "sandbox": {"wall_s": 0.5, "cpu_s": 0.5},
        }
    )  # fmt: skip
    trainer = load(Trainer, "accelerate", {"rank": 2, "width": 2, "device": "cpu"})
    asked = loaded(domain, trainer, model={"base": str(model)})
    run(asked, tmp_path / "whole", silent)
    with pytest.raises(Stop):
        run(asked, tmp_path / "killed", stop_at("step"))
    run(asked, tmp_path / "killed", silent, resume=True)
    contents: list[str] = []
    for name in ("whole", "killed"):
        with Ledger.open(tmp_path / name, read_only=True) as ledger:
            contents.append(ledger.content())
    assert contents[0] == contents[1]
    assert len(ledger_rows(tmp_path / "whole", "SELECT * FROM steps")) == 2
    rejections = str(ledger_rows(tmp_path / "whole", "SELECT * FROM rejections"))
    assert "no_question" in rejections or "tests_are_not_assertions" in rejections
    assert f"[{domain.sandbox.report().tier}]" in str(ledger_rows(tmp_path / "whole", "SELECT * FROM problems"))


# --- a student that submits attacks ------------------------------------------------------------------------------


class Attacker(Trainer):
    """Submits the attack that belongs to a problem, and one of them all to a practice question."""

    attacks: tuple[tuple[str, str], ...]
    """The name of a problem, and the program to submit."""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return AttackEngine(dict(self.attacks))


class AttackEngine(Engine):
    def __init__(self, attacks: Mapping[str, str]) -> None:
        self.attacks = attacks

    @property
    def width(self) -> int:
        return 2

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"base": "attacker", "weights_sha256": "attacker"}

    def start(self) -> Policy:
        return Policy({"none": np.zeros(1)})

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Fleet:
        return AttackFleet(self.attacks)

    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        (directory / "nothing").write_text("")


class AttackFleet(Fleet):
    def __init__(self, attacks: Mapping[str, str]) -> None:
        self.attacks = attacks
        self.names = list(attacks)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [[self.complete(p, place, u) for place, u in enumerate(p.stream.uniforms(p.samples))] for p in prompts]

    def complete(self, prompt: Prompt, place: int, uniform: float) -> Completion:
        at = int(uniform * len(self.names))
        if prompt.text == "write":
            text = TEACHER.format(n=at, m=at + 1)
        else:
            name = next((name for name in self.names if f"Task {name}." in prompt.text), self.names[at])
            text = f"I attack.\n{fenced(self.attacks[name])}"
        return Completion(text, (1,), (at,), (-1.0,), "eos")

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        return [StepStats(stepped=any(s.advantage for s in samples)) for samples in samples_S]

    def snapshot(self, policy: int) -> Policy:
        return Policy({"none": np.zeros(1)})

    def state(self) -> Tensors:
        return {"none": np.zeros(1)}

    def restore(self, state: Tensors) -> None:
        pass


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_student_that_submits_attacks_gains_nothing_and_the_run_ends_normally(
    data: Path, tmp_path: Path, bystander: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    from soarctl.events import silent
    from soarctl.run import run

    canary = tmp_path / "canary"
    (canary / "tree").mkdir(parents=True)
    for name in ("victim.txt", "victim2.txt", "secret.txt", "tree/leaf.txt"):
        (canary / name).write_text("FILE-SECRET-4711")
    monkeypatch.setenv("SOARCTL_ATTACK_SECRET", "ENV-SECRET-4711")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        listener.setblocking(False)
        port = str(listener.getsockname()[1])
        tokens = {
            "@CANARY@": str(canary), "@PROJECT@": str(Path(__file__).parents[3]), "@TOKEN@": "tok4711",
            "@BYSTANDER_PID@": str(bystander.pid), "@HARNESS_PID@": str(os.getpid()), "@TCP_PORT@": port,
            "@UDP_PORT@": port, "@TCP6_PORT@": port, "@UNIX_PATH@": str(canary / "none"), "@ABSTRACT@": "none",
        }  # fmt: skip
        text = (data / "sandbox_attacks.jsonl").read_text()
        for token, value in tokens.items():
            text = text.replace(token, value)
        rows = {row["id"]: row for row in map(json.loads, text.splitlines())}
        problems = [{"id": name, "question": f"Task {name}.", "tests": row["tests"]} for name, row in rows.items()]
        (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
        domain = CodeDomain.model_validate(
            {"data": [{"path": str(tmp_path / "problems.jsonl")}], "teacher_template": "write", "shown_tests": 0}
        )
        attacks = tuple((name, row["program"]) for name, row in rows.items())
        before = sorted(str(p) for p in canary.rglob("*"))
        run(loaded(domain, Attacker(attacks=attacks)), tmp_path / "run", silent)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert sorted(str(p) for p in canary.rglob("*")) == before
    assert all(p.read_text() == "FILE-SECRET-4711" for p in canary.rglob("*.txt"))
    assert bystander.poll() is None
    assert domain.sandbox.faults == {}
    ledger = (tmp_path / "run" / "ledger.sqlite").read_bytes()
    for secret in (b"FILE-SECRET-4711", b"ENV-SECRET-4711"):
        assert secret not in ledger
    verdicts = domain.grade([(problem, fenced(rows[problem.meta["row"]]["program"])) for problem in domain.load()])
    for problem, verdict in zip(domain.load(), verdicts, strict=True):
        expected = rows[problem.meta["row"]]["expected_verdict"]
        assert verdict.reason.split()[0] in expected, (problem.meta["row"], verdict)
        assert verdict.correct == (verdict.reward == 120.0)
        assert verdict.correct <= ("passed" in expected)
    steps = ledger_rows(tmp_path / "run", "SELECT * FROM steps")
    assert len(steps) == 2
