"""Tokens per second of the decoder against transformers.generate: same model, prompts and sampling, in one process.

    python benchmarks/decode.py [--json]

The model is the letters domain's; prompts are chains of 1 to 5 operations, 32 samples each, so lengths differ as they
do in a run. Rounds alternate between the two, and the best round of each counts.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from importlib.resources import files

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from soarctl import plugins
from soarctl.api import Fleet, Optimizer, Prompt, Sampling, Stream, Trainer
from soarctl.spec import ModelSection

OPERATIONS = ("reverse", "left", "right", "swap", "up", "down", "flip", "bump")
SAMPLES = 32
NEW_TOKENS = 24


def texts(count: int) -> list[str]:
    """Prompts as the letters domain asks them."""
    rng = random.Random(0)
    words = ("".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3)) for _ in range(count))
    return [f"solve: {word} | {' '.join(rng.choices(OPERATIONS, k=1 + i % 5))} =" for i, word in enumerate(words)]


def with_fleet(fleet: Fleet, count: int) -> int:
    """Samples `count` sequences; returns their tokens."""
    prompts = [Prompt(0, text, SAMPLES, Stream((text,))) for text in texts(count // SAMPLES)]
    return sum(len(c.token_ids) for group in fleet.sample(prompts, Sampling(NEW_TOKENS)) for c in group)


def with_generate(model: AutoModelForCausalLM, tokenizer: AutoTokenizer, count: int) -> int:
    """The same with transformers."""
    repeated = [text for text in texts(count // SAMPLES) for _ in range(SAMPLES)]
    batch = tokenizer(repeated, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        found = model.generate(**batch, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=NEW_TOKENS)
    written = found[:, batch["input_ids"].shape[1] :]
    tokenizer.batch_decode(written, skip_special_tokens=True)
    # Up to and with the first end of sequence.
    ended = written == tokenizer.eos_token_id
    return int((ended.cumsum(1) - ended.int() == 0).sum())


def speeds(rivals: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Tokens per second of each in its best round."""
    best = dict.fromkeys(rivals, 0.0)
    for _ in range(rounds):
        for name, run in rivals.items():
            start = time.perf_counter()
            tokens = run()
            best[name] = max(best[name], tokens / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = str(files("soarctl_letters") / "model")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    engine = plugins.load(Trainer, "accelerate", {"device": "cpu"}).load(ModelSection(base=path), 0)
    fleet = engine.fleet([engine.start()], Optimizer(lr=1e-3))
    rows = list[dict[str, float]]()
    for count in options.sequences:
        rivals = {
            "fleet": lambda count=count: with_fleet(fleet, count),
            "generate": lambda count=count: with_generate(model, tokenizer, count),
        }
        best = speeds(rivals, options.rounds)
        rows.append({"sequences": count, **best, "ratio": best["fleet"] / best["generate"]})
    if options.json:
        print(json.dumps({"threads": options.threads, "rows": rows}))
        return
    print(f"{'sequences':>9}  {'fleet':>10}  {'generate':>10}  ratio    (tokens/s, {options.threads} threads)")
    for row in rows:
        print(f"{row['sequences']:9.0f}  {row['fleet']:10,.0f}  {row['generate']:10,.0f}  {row['ratio']:5.2f}")


if __name__ == "__main__":
    main()
