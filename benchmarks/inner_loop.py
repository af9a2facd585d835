"""One inner loop, 10 steps of 8 questions x 32 completions, against TRL's RLOOTrainer: same model, data and budget.

Both start from the letters model with a LoRA adapter of rank 16 on all linear layers, practise the same 16 questions
with the same answers, sample at temperature 1 up to the same length, and take 10 optimizer steps of 256 completions
without a KL term. What is timed is the loop: construction and imports are reported beside it.

    pip install -e . 'trl==1.16.0'
    python benchmarks/inner_loop.py [--repeats 3] [--students 8] [--json]

TRL is a dependency of this benchmark only. It samples with transformers' generate, its default without vLLM.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from soarctl_letters.operations import HALF_KNOWN, KNOWN, apply

from soarctl import plugins
from soarctl.api import Domain, Problem, Stream, Trainer
from soarctl.events import silent
from soarctl.inner_loop import inner_loop
from soarctl.spec import Inner, ModelSection

MODEL = ModelSection(base="package:soarctl_letters/model")
INNER = Inner(steps=10, batch_size=8, group_size=32, lr=3e-3, kl=0.0, max_new_tokens=24)


def questions(count: int) -> list[Problem]:
    """Short questions such as a teacher writes, one or two operations each, with right answers."""
    rng = random.Random(0)
    found: list[Problem] = []
    for _ in range(count):
        word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3))
        operations = rng.choices(KNOWN + HALF_KNOWN, k=rng.choice((1, 1, 2)))
        found.append(Problem(f"{word} | {' '.join(operations)}", apply(word, operations)[-1]))
    return found


class Ours:
    """`students` copies in one fleet; the time is per student."""

    def __init__(self, dataset: Sequence[Problem], students: int) -> None:
        self.dataset, self.students = dataset, students
        self.domain = plugins.load(Domain, "letters", {})
        self.engine = plugins.load(Trainer, "accelerate", {"rank": 16, "width": students}).load(MODEL, 0)

    def run(self) -> float:
        """Seconds per student."""
        from soarctl.api import Optimizer

        optimizer = Optimizer(lr=INNER.lr)
        began = time.perf_counter()
        fleet = self.engine.fleet([self.engine.start()] * self.students, optimizer)
        streams = [Stream(("benchmark", s)) for s in range(self.students)]
        logs = inner_loop(fleet, self.domain, INNER, [self.dataset] * self.students, streams, INNER.steps, silent)
        seconds = time.perf_counter() - began
        assert all(sum(log.verdicts.values()) == 10 * 8 * 32 for log in logs)
        return seconds / self.students


class Trl:
    """TRL's trainer on the same questions."""

    def __init__(self, dataset: Sequence[Problem]) -> None:
        self.domain = plugins.load(Domain, "letters", {})
        self.dataset = dataset

    def run(self) -> float:
        """Seconds in `train`, construction left out."""
        from importlib.resources import files

        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import RLOOConfig, RLOOTrainer

        path = str(files("soarctl_letters") / "model")
        tokenizer = AutoTokenizer.from_pretrained(path)
        rows = [
            {"prompt": self.domain.student_prompt(p.question), "question": p.question, "answer": p.answer}
            for p in self.dataset
        ]
        graded = 0

        def reward(completions: list[str], question: list[str], answer: list[str], **_: Any) -> list[float]:
            nonlocal graded
            graded += len(completions)
            attempts = [(Problem(q, a), c) for q, a, c in zip(question, answer, completions, strict=True)]
            return [verdict.reward for verdict in self.domain.grade(attempts)]

        with tempfile.TemporaryDirectory() as directory:
            trainer = RLOOTrainer(
                model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
                reward_funcs=reward,
                args=RLOOConfig(
                    output_dir=directory,
                    max_steps=INNER.steps,
                    per_device_train_batch_size=INNER.batch_size * INNER.group_size,
                    num_generations=INNER.group_size,
                    max_completion_length=INNER.max_new_tokens,
                    temperature=1.0,
                    beta=0.0,
                    learning_rate=INNER.lr,
                    lr_scheduler_type="constant",
                    normalize_advantages=False,
                    max_grad_norm=1.0,
                    bf16=False,
                    fp16=False,
                    use_cpu=True,
                    gradient_checkpointing=False,
                    report_to=[],
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                    dataloader_pin_memory=False,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                peft_config=LoraConfig(
                    r=16,
                    lora_alpha=32,
                    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                ),
            )
            began = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - began
        assert graded == 10 * 8 * 32, graded
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dataset = questions(16)
    arms: dict[str, Any] = {
        "soarctl, 1 student": Ours(dataset, 1),
        f"soarctl, fleet of {options.students}": Ours(dataset, options.students),
        "TRL RLOOTrainer": Trl(dataset),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.repeats):  # in turn, so that a disturbance hits all of them
        for name, arm in arms.items():
            seconds[name].append(arm.run())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slowest = medians["TRL RLOOTrainer"]
    if options.json:
        print(json.dumps({"seconds_per_student": seconds, "threads": torch.get_num_threads()}))
        return
    print(f"{'':24}{'s per student':>14}{'times faster':>14}   ({torch.get_num_threads()} threads)")
    for name, value in medians.items():
        print(f"{name:24}{value:14.2f}{slowest / value:14.1f}")


if __name__ == "__main__":
    main()
