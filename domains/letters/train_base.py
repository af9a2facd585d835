"""Train the base model of the letters domain and measure what it can do."""

import argparse
import itertools
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from soarctl_letters.corpus import LONGEST, Document, documents, random_word, working
from soarctl_letters.operations import HALF_KNOWN, OPERATIONS, apply, parse_question
from soarctl_letters.tokenizer import build_tokenizer
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BATCH = 192
BUCKETS = 3
PEAK_LEARNING_RATE = 3e-3
WARM_UP = 100
IGNORED = -100


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARM_UP:
        return PEAK_LEARNING_RATE * (step + 1) / WARM_UP
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def batches(stream: Iterator[Document], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[list[list[int]]]]:
    """Batches of documents as [prompt ids, completion ids], sorted by length."""
    while True:
        batch = list(itertools.islice(stream, BATCH))
        prompts = tokenizer([document.prompt for document in batch])["input_ids"]
        completions = tokenizer([document.completion for document in batch])["input_ids"]
        pairs = [[p, [*c, tokenizer.eos_token_id]] for p, c in zip(prompts, completions, strict=True)]
        yield sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))


def padded(pairs: Sequence[Sequence[list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids_B_T, padded on the right, and labels_B_T with all but the completions ignored."""
    longest = max(len(p) + len(c) for p, c in pairs)
    ids = [p + c + [pad] * (longest - len(p) - len(c)) for p, c in pairs]
    labels = [[IGNORED] * len(p) + c + [IGNORED] * (longest - len(p) - len(c)) for p, c in pairs]
    return torch.tensor(ids), torch.tensor(labels)


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int, early: Path | None
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    pad: int = tokenizer.pad_token_id
    start, losses = time.monotonic(), list[float]()
    for step, pairs in zip(range(steps), batches(documents(seed), tokenizer), strict=False):
        tokens = sum(len(completion) for _, completion in pairs)
        size, total = len(pairs) // BUCKETS, 0.0
        for at in range(0, len(pairs), size):
            ids_B_T, labels_B_T = padded(pairs[at : at + size], pad)
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
            print(f"step {step + 1:5d}  loss {fmean(losses[-100:]):.4f}  {time.monotonic() - start:6.0f} s", flush=True)
        if (step + 1) % 500 == 0:
            print_accuracies(model, tokenizer, seed, count=256)
        if early and step + 1 == 1500:
            save(model, tokenizer, early)


@torch.no_grad()
def accuracies(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, count: int
) -> dict[tuple[str, int], list[tuple[float, bool]]]:
    """For each (operation, place in its chain): probability of the right word, and whether greedy writes it.

    The words before it are sampled with the corpus's mistakes; right is what follows from the last of them.
    """
    rng, cells = random.Random(f"accuracies {seed}"), list[tuple[str, int]]()
    pairs = list[list[list[int]]]()
    for operation, place in itertools.product(OPERATIONS, range(LONGEST)):
        for _ in range(count // LONGEST + 1):
            operations = rng.choices(list(OPERATIONS), k=rng.randint(place + 1, LONGEST))
            operations[place] = operation
            word = random_word(rng)
            written = working(rng, word, operations[:place])
            prompt = " ".join([f"solve: {word} | {' '.join(operations)} =", *written])
            right = OPERATIONS[operation]([word, *written][-1])
            pairs.append([tokenizer(prompt)["input_ids"], tokenizer(f" {right}")["input_ids"]])
            cells.append((operation, place + 1))

    results = defaultdict[tuple[str, int], list[tuple[float, bool]]](list)
    for at in range(0, len(pairs), 256):
        ids_B_T, labels_B_T = padded(pairs[at : at + 256], tokenizer.pad_token_id)
        logits_B_T_V = model(input_ids=ids_B_T, use_cache=False).logits[:, :-1].float()
        labels_B_T = labels_B_T[:, 1:]
        losses_B_T = cross_entropy(
            logits_B_T_V.transpose(1, 2), labels_B_T, ignore_index=IGNORED, reduction="none"
        )
        greedy_B = ((logits_B_T_V.argmax(-1) == labels_B_T) | (labels_B_T == IGNORED)).all(1)
        probability_B = (-losses_B_T.sum(1)).exp()
        for cell, p, is_greedy in zip(cells[at : at + 256], probability_B.tolist(), greedy_B.tolist(), strict=True):
            results[cell].append((p, is_greedy))
    return results


def print_accuracies(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> None:
    """A table: per operation, the sampled and greedy accuracy, and the greedy one at each place of a chain."""
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
    ids_B_T = torch.tensor(tokenizer(list(prompts))["input_ids"])
    out_B_T = model.generate(
        input_ids=ids_B_T, attention_mask=torch.ones_like(ids_B_T), do_sample=True, top_k=0, max_new_tokens=48
    )
    return tokenizer.batch_decode(out_B_T[:, ids_B_T.shape[1] :], skip_special_tokens=True)


def print_teacher(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    """What the base model asks: how much is malformed, how long its questions are and of what."""
    asked = [well_formed(text) for text in sample(model, tokenizer, ["ask:"] * count)]
    questions = [operations for operations in asked if operations]
    lengths = Counter(len(operations) for operations in questions)
    half_known = fmean(operation in HALF_KNOWN for operations in questions for operation in operations)
    print(f"ask: {count} samples, malformed {1 - len(questions) / count:.3f}, half-known {half_known:.3f}")
    print("operations: " + ", ".join(f"{n}: {share / len(questions):.3f}" for n, share in sorted(lengths.items())))


def well_formed(text: str) -> tuple[str, ...] | None:
    """The operations of a question that is followed by one three-letter word for each of them, or None."""
    asked, _, answer = text.partition(" =")
    parsed, words = parse_question(asked), answer.split()
    if parsed is None or len(words) != len(parsed[1]) or any(len(w) != 3 or not w.isupper() for w in words):
        return None
    return parsed[1]


def print_hard_chains(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: int, seed: int) -> None:
    """Success on 100 chains of half-known operations only, 128 samples each."""
    rng, rates = random.Random(f"chains {seed} {length}"), list[float]()
    for _ in range(100):
        word, operations = random_word(rng), rng.choices(HALF_KNOWN, k=length)
        answer = apply(word, operations)[-1]
        prompts = [f"solve: {word} | {' '.join(operations)} ="] * 128
        rates.append(fmean(text.split()[-1:] == [answer] for text in sample(model, tokenizer, prompts)))
    never = fmean(rate == 0 for rate in rates)
    print(f"{length} half-known operations: mean success {fmean(rates):.4f}, 0 of 128 in {never:.2f} of the problems")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in fp16, with its tokenizer."""
    shipped = LlamaForCausalLM(model.config)
    shipped.load_state_dict(model.state_dict())
    # Sampling at temperature 1 from the whole distribution, unless the caller asks for something else.
    shipped.generation_config = GenerationConfig(
        do_sample=True, top_k=0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    shipped.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the trained model")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--early", type=Path, help="also save the model after 1500 steps, here")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    train(model, tokenizer, options.steps, options.seed, options.early)
    save(model, tokenizer, options.out)

    shipped = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.float32)
    print_accuracies(shipped, tokenizer, options.seed, count=1000)
    print_teacher(shipped, tokenizer, 1000)
    for length in (3, 4, 5):
        print_hard_chains(shipped, tokenizer, length, options.seed)


if __name__ == "__main__":
    main()
