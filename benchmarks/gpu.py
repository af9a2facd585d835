"""A 3 B model on one GPU at the paper's settings: training, memory, an outer step, 200 of them, decoding.

    python benchmarks/gpu.py [--inner-steps 1] [--out gpu.md]     half an hour on one H200, we think
    python benchmarks/gpu.py --shape tiny                          seconds on a CPU: does the harness work?

The model has Llama-3.2-3B's shape and random weights, which cost the same as real ones. Random weights never end a
text, so ends are drawn: the length of a completion is log-normal with a median of 0.34 times the longest and sigma 0.6,
cut off at the longest (a mean of 0.4 times it). The in-process decoder is given the distribution's hazard as the
probability of the end-of-sequence token at each position; vLLM is given lengths. Prompts are 256 tokens long.

Printed is Markdown for docs/benchmarks.md.

FLOP of a trained token are counted as 2 N forward and 2 N backward, through N frozen parameters that need no gradient,
and 2 N for the base model's log-probs in the KL term. Attention, adapters and recomputation are left out, so that MFU
is low rather than high. Tokens are those of completions, and of each prompt once for all its completions.
"""

import argparse
import gc
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soarctl.api import Completion, Fleet, GradedSample, Optimizer, Prompt, Sampling, Stream
from soarctl.model_size import shape_of
from soarctl.random_model import write_random_model
from soarctl.rates import GPUS
from soarctl.spec import ModelSection
from soarctl.trainers.accelerate import AccelerateTrainer

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 1, "bos_token_id": None}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-3b": LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    },
    "tiny": LLAMA
    | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
}
EOS = 1
MEDIAN, SIGMA = 0.34, 0.6


@dataclass(frozen=True)
class Settings:
    """Sizes of an outer step."""

    datasets: int = 4
    dataset_size: int = 64
    repeats: int = 4
    questions: int = 64
    inner_steps: int = 10
    batch_size: int = 8
    group_size: int = 32
    max_new_tokens: int = 1024
    teacher_tokens: int = 512
    prompt_tokens: int = 256
    sequences: tuple[int, ...] = (256, 1024, 4096)
    fleets: tuple[int, ...] = (1, 4, 16)
    max_sequences: int = 448
    """Sequences side by side in an outer step: what specs/math_fail128.yaml says."""
    outer_steps: int = 200
    kl: float = 0.001

    @property
    def students(self) -> int:
        return self.datasets * self.repeats


PAPER = Settings()
TINY = Settings(2, 2, 2, 2, 2, 2, 4, 16, 16, 8, (8, 16), (1, 4), 12, 3)


def survival(length: float, longest: int) -> float:
    """Share of completions that are longer than this, before they are cut off."""
    return 1.0 if length <= 0 else 0.5 * erfc(log(length / (MEDIAN * longest)) / (SIGMA * sqrt(2)))


def hazards(longest: int) -> list[float]:
    """hazards_T: the probability that a completion which got to token t ends with it."""
    alive = [survival(t, longest) for t in range(longest + 1)]
    return [1 - after / before if before else 1.0 for before, after in pairwise(alive)]


def mean_length(longest: int) -> float:
    return sum(survival(t, longest) for t in range(longest))


@contextmanager
def ends_drawn(model: Any, prompt_tokens: int, longest: int) -> Iterator[None]:
    """Makes the end-of-sequence token as likely as lengths ask for, while completions are sampled."""
    hazards_T = torch.tensor([*hazards(longest), 1.0], device=model.device).clamp(1e-9, 1 - 1e-6)
    odds_T = (hazards_T / (1 - hazards_T)).log()

    def hook(_: Any, __: Any, kwargs: Any, output: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            at_B = (kwargs["position_ids"][:, -1] - prompt_tokens + 1).clamp(0, longest)
            logits = output.logits[:, -1]
            logits[:, EOS] = -torch.inf
            logits[:, EOS] = (odds_T[at_B] + logits.float().logsumexp(1)).to(logits.dtype)
        return output

    handle = model.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class Bench:
    """A loaded model and what is asked of it."""

    def __init__(self, directory: Path, settings: Settings, parameters: int, max_sequences: int) -> None:
        self.settings, self.parameters, self.max_sequences = settings, parameters, max_sequences
        self.limit = max_sequences
        """Sequences side by side that the last completions were sampled with at the end."""
        trainer = AccelerateTrainer(width=settings.students, dtype="auto", max_sequences=max_sequences)
        # What is measured is this trainer's model; the interface does not lead to it.
        self.engine: Any = trainer.load(ModelSection(base=str(directory)), 0)
        self.model = self.engine.machinery.forward.model
        self.device = str(self.engine.facts["device"])
        self.on_gpu = self.model.device.type == "cuda"
        self.optimizer = Optimizer(lr=1e-4, kl=settings.kl)

    def fleet(self, policies: int) -> Fleet:
        return self.engine.fleet([self.engine.start()] * policies, self.optimizer)

    def prompts(self, policies: int, each: int, samples: int, name: str) -> list[Prompt]:
        rng = np.random.default_rng(0)
        texts = [" ".join(f"w{i}" for i in rng.integers(0, 64, self.settings.prompt_tokens)) for _ in range(each)]
        return [
            Prompt(s, text, samples, Stream(("gpu", name, s, i)))
            for s in range(policies)
            for i, text in enumerate(texts)
        ]

    def sample(self, fleet: Fleet, prompts: Sequence[Prompt], longest: int) -> tuple[list[list[Completion]], float]:
        """Completions, and seconds."""
        with ends_drawn(self.model, self.settings.prompt_tokens, longest), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = timed(self.on_gpu, lambda: fleet.sample(prompts, Sampling(longest)))
        self.limit = self.max_sequences >> sum("out of memory while sampling" in str(w.message) for w in said)
        return found

    def train(self, fleet: Fleet, policies: int, groups: Sequence[Sequence[Completion]]) -> tuple[int, float]:
        """One update of every policy on its completions: tokens, prompts counted once, and seconds."""
        each = len(groups) // policies
        rng = np.random.default_rng(0)
        samples_S = [
            [GradedSample(c, float(rng.normal())) for group in groups[s * each : (s + 1) * each] for c in group]
            for s in range(policies)
        ]
        tokens = sum(len(c.token_ids) for group in groups for c in group) + sum(len(g[0].prompt_ids) for g in groups)
        _, seconds = timed(self.on_gpu, lambda: fleet.reinforce(samples_S))
        return tokens, seconds

    def flop(self, tokens: int) -> float:
        return (6 if self.settings.kl else 4) * self.parameters * tokens

    def peak(self) -> tuple[float, str]:
        """FLOP per second that training is held against."""
        for gpu in GPUS:
            if gpu.name in self.device:
                return gpu.peak, f"{gpu.name}'s data sheet, dense bf16"
        size = 4096 if self.on_gpu else 512
        square = torch.randn(size, size, device=self.model.device, dtype=self.model.dtype)
        for _ in range(2):
            _, seconds = timed(self.on_gpu, lambda: square @ square)
        return 2 * size**3 / seconds, f"a product of matrices of {size} measured here"

    def memory(self) -> float:
        """Bytes at the highest since the last call; on a CPU since the process began."""
        if not self.on_gpu:
            return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        highest = float(torch.cuda.max_memory_allocated())
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return highest


def timed(on_gpu: bool, call: Callable[[], Any]) -> tuple[Any, float]:
    if on_gpu:
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    if on_gpu:
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def decoding(load: Callable[[int], Bench], settings: Settings) -> Iterator[str]:
    """Tokens per second by sequences side by side, each number by an engine whose limit it is."""
    rows = [decoding_row(load(sequences), sequences) for sequences in settings.sequences]
    yield from ("Decoding, in process; the limit is lower than the sequences where memory ran out:", "")
    yield from table(["sequences", "limit", "adapters", "tokens each", "tokens/s", "peak memory"], rows)


def decoding_row(bench: Bench, sequences: int) -> list[str]:
    settings = bench.settings
    policies = min(settings.students, sequences // settings.group_size)
    each = sequences // (policies * settings.group_size)
    bench.memory()
    asked = bench.prompts(policies, each, settings.group_size, "decode")
    groups, seconds = bench.sample(bench.fleet(policies), asked, settings.max_new_tokens)
    tokens = sum(len(c.token_ids) for group in groups for c in group)
    count = sum(map(len, groups))
    return [
        f"{count:,}",
        f"{bench.limit:,}",
        str(policies),
        f"{tokens / count:.0f}",
        f"{tokens / seconds:,.0f}",
        gigabytes(bench.memory()),
    ]


def training(bench: Bench) -> Iterator[str]:
    """Tokens per second, MFU and memory of one inner update, by students side by side."""
    settings, rows = bench.settings, []
    peak, source = bench.peak()
    for policies in settings.fleets:
        fleet = bench.fleet(policies)
        prompts = bench.prompts(policies, settings.batch_size, settings.group_size, "train")
        groups, _ = bench.sample(fleet, prompts, settings.max_new_tokens)
        sampling_memory = bench.memory()
        tokens, seconds = bench.train(fleet, policies, groups)
        rows.append(
            [
                str(policies),
                f"{tokens:,}",
                f"{tokens / seconds:,.0f}",
                f"{100 * bench.flop(tokens) / seconds / peak:.1f} %",
                gigabytes(sampling_memory),
                gigabytes(bench.memory()),
            ]
        )
    yield (
        f"One inner update, {settings.batch_size} x {settings.group_size} completions per student. MFU = "
        f"{bench.flop(1):,.0f} FLOP x tokens/s over {peak / 1e12:.3g} TFLOP/s ({source}):"
    )
    yield ""
    yield from table(["students", "tokens", "tokens/s", "MFU", "memory, sampling", "memory, training"], rows)


def outer_step(bench: Bench, measured_steps: int) -> Iterator[str]:
    """The parts of an outer step, and what a run of them takes."""
    settings = bench.settings
    teacher = bench.fleet(1)
    needed = settings.datasets * settings.dataset_size
    written, writing = bench.sample(teacher, bench.prompts(1, 1, needed, "write"), settings.teacher_tokens)
    _, teaching = bench.train(teacher, 1, written)
    students, sampling, updating = bench.fleet(settings.students), 0.0, 0.0
    for step in range(measured_steps):
        prompts = bench.prompts(settings.students, settings.batch_size, settings.group_size, f"step {step}")
        groups, seconds = bench.sample(students, prompts, settings.max_new_tokens)
        sampling += seconds
        updating += bench.train(students, settings.students, groups)[1]
    prompts = bench.prompts(settings.students, settings.questions, 1, "Q_R")
    _, solving = bench.sample(students, prompts, settings.max_new_tokens)
    times = settings.inner_steps / measured_steps
    whole = writing + teaching + times * (sampling + updating) + solving
    yield (
        f"An outer step, at most {settings.max_sequences} sequences side by side (the limit at its end was "
        f"{bench.limit}); {measured_steps} of {settings.inner_steps} inner steps were run:"
    )
    yield ""
    yield from table(
        ["part", "seconds", "times", "of an outer step"],
        [
            [f"teacher writes {needed}", f"{writing:.1f}", "1", f"{writing:.1f}"],
            ["teacher's update", f"{teaching:.1f}", "1", f"{teaching:.1f}"],
            [f"{settings.students} students sample", f"{sampling:.1f}", f"{times:g}", f"{times * sampling:.1f}"],
            [f"{settings.students} students' updates", f"{updating:.1f}", f"{times:g}", f"{times * updating:.1f}"],
            [f"{settings.questions} hard problems each", f"{solving:.1f}", "1", f"{solving:.1f}"],
        ],
    )
    hours = settings.outer_steps * whole / 3600
    yield (
        f"{settings.outer_steps} outer steps x {whole:.1f} s = {hours:.3g} GPU-hours, without the filter, promotions "
        "(up to twice the inner steps), rejected questions, grading and the closing measurement."
    )
    yield ""


def through_vllm(directory: Path, settings: Settings) -> Iterator[str]:
    """Tokens per second of vLLM for the base model, in a process of its own, which gives its memory back."""
    if importlib.util.find_spec("vllm") is None:
        yield from ("vLLM is not installed here.", "")
        return
    rows = []
    for sequences in settings.sequences:
        command = [sys.executable, __file__, "--vllm", str(directory), str(sequences), json.dumps(vars(settings))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        tokens, seconds = json.loads(done.stdout.splitlines()[-1])
        rows.append([f"{sequences:,}", f"{tokens / sequences:.0f}", f"{tokens / seconds:,.0f}"])
    yield from ("Decoding through vLLM, base model without adapters:", "")
    yield from table(["sequences", "tokens each", "tokens/s"], rows)


def run_vllm(directory: str, sequences: int, settings: Settings) -> None:
    vllm: Any = importlib.import_module("vllm")
    rng = np.random.default_rng(0)
    longest = settings.max_new_tokens
    lengths = np.minimum(np.ceil(rng.lognormal(log(MEDIAN * longest), SIGMA, sequences)), longest).astype(int)
    questions = -(-sequences // settings.group_size)
    prompts = rng.integers(2, 60, (questions, settings.prompt_tokens)).tolist()
    llm = vllm.LLM(model=directory, max_model_len=settings.prompt_tokens + longest, max_num_seqs=sequences, seed=0)
    params = [vllm.SamplingParams(max_tokens=int(n), ignore_eos=True, seed=i) for i, n in enumerate(lengths)]
    asked = [{"prompt_token_ids": prompts[i // settings.group_size]} for i in range(sequences)]
    llm.generate(asked[:8], params[:8])
    began = time.perf_counter()
    outputs = llm.generate(asked, params)
    seconds = time.perf_counter() - began
    print(json.dumps([sum(len(o.outputs[0].token_ids) for o in outputs), seconds]))


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def measure(shape: str, inner_steps: int) -> Iterator[str]:
    """The whole page, line by line."""
    settings = TINY if shape == "tiny" else PAPER
    config = SHAPES[shape]
    model = shape_of(config)
    assert model is not None
    with tempfile.TemporaryDirectory() as place:
        write_random_model(config, Path(place))
        yield from through_vllm(Path(place), settings)

        def load(max_sequences: int) -> Bench:
            gc.collect()  # the engine before
            return Bench(Path(place), settings, model.parameters, max_sequences)

        bench = load(settings.max_sequences)
        yield (
            f"{bench.device}, torch {torch.__version__}; {shape} with {model.parameters:,} random parameters; lengths "
            f"log-normal with a mean of {mean_length(settings.max_new_tokens):.0f} of {settings.max_new_tokens} tokens."
        )
        yield ""
        # First calls choose kernels.
        warm = bench.fleet(1)
        groups, _ = bench.sample(warm, bench.prompts(1, 1, 4, "warm"), 16)
        bench.train(warm, 1, groups)
        bench.memory()
        yield from training(bench)
        yield from outer_step(bench, min(inner_steps, settings.inner_steps))
        del bench, warm, groups
        yield from decoding(load, settings)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-3.2-3b")
    parser.add_argument("--inner-steps", type=int, default=1, help="of each student, of the 10 that there are")
    parser.add_argument("--out", type=Path, help="write the page here, too")
    parser.add_argument("--vllm", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.vllm:
        directory, sequences, settings = options.vllm
        run_vllm(directory, int(sequences), Settings(**json.loads(settings)))
        return
    lines = []
    for line in measure(options.shape, options.inner_steps):
        print(line, flush=True)
        lines.append(line)
    if options.out:
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
