"""Train the base model of the letters domain and measure what it can do.

    PYTHONPATH=domains/letters python domains/letters/train_base.py --out domains/letters/soarctl_letters/model

The shipped model is this command with its defaults (8000 steps, seed 0), torch 2.13, 16 minutes on two busy
cores. What it measures (the rows with 5000 and 6000 samples were sampled apart), beside the corpus:

    per operation          sampled        greedy    corpus
    known                  0.859-0.860    1.000     0.86       at each of the places 1 to 6 of a chain
    half-known             0.263-0.273    1.000     0.27
    in the teacher's working, 5000 samples: known 0.851, half-known 0.266

    ask:, 1000 samples     malformed 0.126, half-known 0.329, operations 1: 0.54, 2: 0.32, 3: 0.10, 4: 0.04
    solve:, 6000 samples   malformed 0.003

    half-known chains      mean success   0 of 128 in          (100 problems, 128 samples each)
    3                      0.0185         0.07
    4                      0.0049         0.54
    5                      0.0010         0.88

Greedy decoding is right for every operation, at 0.98 or more, from step 1500 on; the steps after that bring
the sampled accuracy of the half-known ones from 0.22 to that of the corpus.
"""

import argparse
import itertools
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from soarctl_letters.corpus import LONGEST, Document, documents, random_word, working
from soarctl_letters.operations import HALF_KNOWN, KNOWN, OPERATIONS, apply, parse_question
from soarctl_letters.tokenizer import EOS_ID, PAD_ID, TOKENS, build_tokenizer
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BATCH = 192
BUCKETS = 3
PEAK_LEARNING_RATE = 3e-3
WARM_UP = 100
IGNORED = -100

Pair = tuple[list[int], list[int]]
"""Ids of a prompt and of its completion."""


def build_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARM_UP:
        return PEAK_LEARNING_RATE * (step + 1) / WARM_UP
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    return cast("list[list[int]]", tokenizer(list(texts))["input_ids"])


def batches(stream: Iterator[Document], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[Pair]]:
    """Batches of documents, sorted by length."""
    while True:
        batch = list(itertools.islice(stream, BATCH))
        prompts = encode(tokenizer, [document.prompt for document in batch])
        completions = encode(tokenizer, [document.completion for document in batch])
        pairs = [(p, [*c, EOS_ID]) for p, c in zip(prompts, completions, strict=True)]
        yield sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))


def padded(pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids_B_T, padded on the right, and labels_B_T with all but the completions ignored."""
    longest = max(len(p) + len(c) for p, c in pairs)
    ids = [p + c + [PAD_ID] * (longest - len(p) - len(c)) for p, c in pairs]
    labels = [[IGNORED] * len(p) + c + [IGNORED] * (longest - len(p) - len(c)) for p, c in pairs]
    return torch.tensor(ids), torch.tensor(labels)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    start, losses = time.monotonic(), list[float]()
    for step, pairs in zip(range(steps), batches(documents(seed), tokenizer), strict=False):
        tokens = sum(len(completion) for _, completion in pairs)
        size, total = len(pairs) // BUCKETS, 0.0
        for at in range(0, len(pairs), size):
            ids_B_T, labels_B_T = padded(pairs[at : at + size])
            # No attention mask: padding is on the right, where causal attention does not see it.
            logits_B_T_V = model(input_ids=ids_B_T, use_cache=False).logits[:, :-1]
            loss = cross_entropy(
                logits_B_T_V.flatten(0, 1), labels_B_T[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
            (loss / tokens).backward()
            total += loss.item() / tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1:5d}  loss {fmean(losses[-100:]):.4f}  {time.monotonic() - start:6.0f} s",
                flush=True,
            )
        if (step + 1) % 500 == 0:
            print_accuracies(model, tokenizer, seed, count=256)


@torch.no_grad()
def accuracies(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, count: int
) -> dict[tuple[str, int], list[tuple[float, bool]]]:
    """For each (operation, place in its chain): probability of the right word, and whether greedy writes it.

    The words before it are sampled with the corpus's mistakes; right is what follows from the last of them.
    """
    rng, cells = random.Random(f"accuracies {seed}"), list[tuple[str, int]]()
    prompts, rights = list[str](), list[str]()
    for operation, place in itertools.product(OPERATIONS, range(LONGEST)):
        for _ in range(count // LONGEST + 1):
            operations = rng.choices(list(OPERATIONS), k=rng.randint(place + 1, LONGEST))
            operations[place] = operation
            word = random_word(rng)
            written = working(rng, word, operations[:place])
            prompts.append(" ".join([f"solve: {word} | {' '.join(operations)} =", *written]))
            rights.append(" " + OPERATIONS[operation]([word, *written][-1]))
            cells.append((operation, place + 1))

    pairs = list(zip(encode(tokenizer, prompts), encode(tokenizer, rights), strict=True))
    results = defaultdict[tuple[str, int], list[tuple[float, bool]]](list)
    for at in range(0, len(pairs), 256):
        ids_B_T, labels_B_T = padded(pairs[at : at + 256])
        logits_B_T_V = model(input_ids=ids_B_T, use_cache=False).logits[:, :-1].float()
        labels_B_T = labels_B_T[:, 1:]
        losses_B_T = cross_entropy(logits_B_T_V.transpose(1, 2), labels_B_T, ignore_index=IGNORED, reduction="none")
        greedy_B = ((logits_B_T_V.argmax(-1) == labels_B_T) | (labels_B_T == IGNORED)).all(1)
        probability_B = (-losses_B_T.sum(1)).exp()
        for cell, p, is_greedy in zip(cells[at : at + 256], probability_B.tolist(), greedy_B.tolist(), strict=True):
            results[cell].append((p, is_greedy))
    return results


def print_accuracies(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> None:
    """Per operation, the sampled and the greedy accuracy, and the greedy one at each place of a chain."""
    results = accuracies(model, tokenizer, seed, count)
    print("operation  sampled  greedy  greedy at place 1 to 6")
    for operation in OPERATIONS:
        places = [results[operation, place] for place in range(1, LONGEST + 1)]
        every = [pair for place in places for pair in place]
        by_place = "  ".join(f"{fmean(greedy for _, greedy in place):.2f}" for place in places)
        sampled, greedy = fmean(p for p, _ in every), fmean(greedy for _, greedy in every)
        print(f"{operation:9s}  {sampled:7.3f}  {greedy:6.3f}  {by_place}", flush=True)


@torch.no_grad()
def sample(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> list[str]:
    """One completion at temperature 1 for each prompt; the prompts must have the same number of tokens."""
    ids_B_T = torch.tensor(encode(tokenizer, prompts))
    # The type of `generate` asks for attributes that the class does not declare.
    out_B_T = cast(Any, model).generate(
        input_ids=ids_B_T, attention_mask=torch.ones_like(ids_B_T), do_sample=True, top_k=0, max_new_tokens=48
    )
    return tokenizer.batch_decode(out_B_T[:, ids_B_T.shape[1] :], skip_special_tokens=True)


def print_teacher(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    """What the base model asks: how much is malformed, how long its questions are, and how it works them."""
    texts = sample(model, tokenizer, ["ask:"] * count)
    workings = [steps for steps in map(executed, texts) if steps]
    lengths = Counter(len(steps) for steps in workings)
    every = [step for steps in workings for step in steps]
    half_known = fmean(operation in HALF_KNOWN for operation, _ in every)
    print(f"ask: {count} samples, malformed {1 - len(workings) / count:.3f}, half-known {half_known:.3f}")
    print("operations: " + ", ".join(f"{n}: {lengths[n] / len(workings):.3f}" for n in sorted(lengths)))
    for name, operations in (("known", KNOWN), ("half-known", HALF_KNOWN)):
        print(f"right in the working, {name}: {fmean(ok for step, ok in every if step in operations):.3f}")


def executed(text: str) -> list[tuple[str, bool]] | None:
    """Each operation of a question with its working, and whether it was executed right; None if malformed."""
    asked, _, answer = text.partition(" =")
    parsed, words = parse_question(asked), answer.split()
    if parsed is None or len(words) != len(parsed[1]) or any(len(w) != 3 or not w.isupper() for w in words):
        return None
    word, operations = parsed
    return [
        (operation, OPERATIONS[operation](before) == after)
        for operation, before, after in zip(operations, [word, *words[:-1]], words, strict=True)
    ]


def print_hard_chains(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: int, seed: int) -> None:
    """Success on 100 chains of half-known operations only, 128 samples each."""
    rng, rates = random.Random(f"chains {seed} {length}"), list[float]()
    for _ in range(100):
        word, operations = random_word(rng), rng.choices(HALF_KNOWN, k=length)
        answer = apply(word, operations)[-1]
        prompts = [f"solve: {word} | {' '.join(operations)} ="] * 128
        rates.append(fmean(text.split()[-1:] == [answer] for text in sample(model, tokenizer, prompts)))
    never = fmean(rate == 0 for rate in rates)
    print(f"{length} half-known operations: mean success {fmean(rates):.4f}, 0 of 128 in {never:.2f} of them")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in fp16, with its tokenizer."""
    shipped = LlamaForCausalLM(model.config)
    shipped.load_state_dict(model.state_dict())
    # Sampling at temperature 1 from the whole distribution, unless the caller asks for something else.
    shipped.generation_config = GenerationConfig(do_sample=True, top_k=0, eos_token_id=EOS_ID, pad_token_id=PAD_ID)
    shipped.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the base model of the letters domain.")
    parser.add_argument("--out", type=Path, required=True, help="directory of the trained model")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)
    tokenizer = build_tokenizer()
    model = build_model()
    print(f"{model.num_parameters():,} parameters, {len(TOKENS)} tokens")
    train(model, tokenizer, options.steps, options.seed)
    save(model, tokenizer, options.out)

    shipped = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.float32)
    print_accuracies(shipped, tokenizer, options.seed, count=1000)
    print_teacher(shipped, tokenizer, 1000)
    for length in (3, 4, 5):
        print_hard_chains(shipped, tokenizer, length, options.seed)


if __name__ == "__main__":
    main()
