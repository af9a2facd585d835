"""Packed against padded training on completions of skewed lengths: the gradient of one step, on a CPU.

    python benchmarks/packing.py [--samples 96] [--rounds 3] [--json]

A small random Llama with LoRA adapters. The lengths are log-normal, as those of reasoning models are: median 60, some
ten times as long. *Padded* takes the samples eight at a time in the order given, padded to the longest of the eight,
through transformers' forward with all logits, as other trainers do. *Packed* is soarctl's own step. No sample shares
a token with another one, so trees save nothing here. Both gradients are compared before anything is timed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from soarctl import plugins
from soarctl.api import Completion, GradedSample, Optimizer, Trainer
from soarctl.spec import ModelSection
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.packing import micro_batches, tables
from soarctl.trainers.reinforce import loss_terms

ROWS = 8
LONGEST = 1024
VOCABULARY = 2048
OPTIONS = Optimizer(lr=1e-3)


def load() -> AccelerateEngine:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        LlamaForCausalLM(config).save_pretrained(place)
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "b": 1}))).save_pretrained(place)
        engine = plugins.load(Trainer, "accelerate", {"device": "cpu"}).load(ModelSection(base=place), 0)
    assert isinstance(engine, AccelerateEngine)
    return engine


def completions(count: int) -> list[GradedSample]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(60), 0.9, count).astype(int), 4, LONGEST - 4)
    samples = list[GradedSample]()
    for length in lengths.tolist():
        prompt, written = rng.integers(2, VOCABULARY, 4).tolist(), rng.integers(2, VOCABULARY, length).tolist()
        completion = Completion("", tuple(prompt), tuple(written), (-1.0,) * length, "eos")
        samples.append(GradedSample(completion, float(rng.standard_normal())))
    return samples


def padded(engine: AccelerateEngine, rows_S_P: torch.Tensor, samples: list[GradedSample]) -> torch.Tensor:
    """The gradient, as a plain loop of padded batches."""
    weights, model = engine.machinery.weights, engine.machinery.forward.model
    total = torch.zeros_like(rows_S_P)
    for at in range(0, len(samples), ROWS):
        batch = [(s.completion.prompt_ids + s.completion.token_ids, s) for s in samples[at : at + ROWS]]
        width = max(len(ids) for ids, _ in batch)
        ids_B_T = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in batch])
        mask_B_T = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
        weight_B_T = torch.zeros(len(batch), width - 1)
        for b, (ids, sample) in enumerate(batch):
            weight_B_T[b, len(sample.completion.prompt_ids) - 1 : len(ids) - 1] = -sample.advantage / len(samples)
        with weights.learning(rows_S_P) as leaves:
            logits_B_T_V = model(input_ids=ids_B_T, attention_mask=mask_B_T, use_cache=False).logits[:, :-1]
            logprobs_B_T = logits_B_T_V.log_softmax(2).gather(2, ids_B_T[:, 1:, None])[..., 0]
            gradients = torch.autograd.grad((weight_B_T * logprobs_B_T).sum(), list(leaves.values()))
        for view, gradient in zip(weights.views(total).values(), gradients, strict=True):
            view += gradient
    return total


def padding(samples: list[GradedSample], tokens: int) -> tuple[float, float]:
    """The share of padding, padded and packed."""
    lengths = [len(s.completion.prompt_ids) + len(s.completion.token_ids) for s in samples]
    filled = sum(ROWS * max(lengths[at : at + ROWS]) for at in range(0, len(lengths), ROWS))
    trees = loss_terms(samples, OPTIONS, 256)
    batches = micro_batches({0: trees}, tokens, packs=True)
    packed = sum(tables(each, True, torch.float32, torch.device("cpu")).ids_B_T.numel() for each in batches)
    return 1 - sum(lengths) / filled, 1 - sum(tree.length for tree in trees) / packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine, samples = load(), completions(options.samples - options.samples % ROWS)
    machinery = engine.machinery
    # B is zero at the start, and with it the gradient of A.
    rows_S_P = machinery.weights.rows([engine.start()]) + 0.02 * torch.randn(1, machinery.weights.size)
    limit = machinery.forward.tree_tokens
    arms: dict[str, Callable[[], torch.Tensor]] = {
        "padded": lambda: padded(engine, rows_S_P, samples),
        "packed": lambda: machinery.gradient(rows_S_P, [loss_terms(samples, OPTIONS, limit)], OPTIONS).gradients_S_P,
    }
    first, second = (arm() for arm in arms.values())
    assert torch.allclose(first, second, rtol=0, atol=1e-4 * first.abs().max().item())
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds):  # in turn, so that a disturbance hits both
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(values) for name, values in seconds.items()}
    shares = dict(zip(arms, padding(samples, 2048), strict=True))
    if options.json:
        print(json.dumps({"seconds": seconds, "padding": shares, "threads": options.threads}))
        return
    tokens = sum(len(s.completion.token_ids) for s in samples)
    print(f"{len(samples)} completions, {tokens} tokens, {options.threads} threads")
    for name, value in best.items():
        print(f"{name}: {value:6.2f} s, {shares[name]:6.1%} padding")
    print(f"packed is {best['padded'] / best['packed']:.2f} times as fast")


if __name__ == "__main__":
    main()
