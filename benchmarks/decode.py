"""Tokens per second of the decoder against transformers.generate: same model, prompts and sampling, in one process.

    python benchmarks/decode.py [--json]

The model is a random Llama of the letters domain's size (0.3 M parameters); a text ends by chance after about 25 tokens
and after 40 at the latest. Rounds alternate between the two, and the best round of each counts, so that the ratio
holds on a busy machine too.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from soarctl.api import Engine, Fleet, Optimizer, Prompt, Sampling, Stream
from soarctl.trainers.accelerate import AccelerateTrainer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV"
SAMPLES = 32
NEW_TOKENS = 40
EOS = 1


@dataclass(frozen=True)
class Source:
    """A spec's `model` section."""

    base: str
    revision: str | None = None
    chat_template: bool = False
    trust_remote_code: bool = False


def save_model(directory: Path) -> None:
    """A random model with a tokenizer of single letters."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *LETTERS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def texts(count: int) -> list[str]:
    """Prompts of 10 to 14 tokens."""
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(LETTERS), rng.integers(10, 15))) for _ in range(count)]


def with_fleet(fleet: Fleet, count: int) -> int:
    """Samples `count` sequences; returns their tokens."""
    prompts = [Prompt(0, text, SAMPLES, Stream((text,))) for text in texts(count // SAMPLES)]
    return sum(len(c.token_ids) for group in fleet.sample(prompts, Sampling(NEW_TOKENS)) for c in group)


def with_generate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> int:
    """The same with transformers."""
    repeated = [text for text in texts(count // SAMPLES) for _ in range(SAMPLES)]
    batch = tokenizer(repeated, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        found = model.generate(**batch, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=NEW_TOKENS)
    written = found[:, batch["input_ids"].shape[1] :]
    tokenizer.batch_decode(written, skip_special_tokens=True)
    # Up to and with the first end of sequence.
    return int(((written == EOS).cumsum(1) - (written == EOS).int() == 0).sum())


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
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory))
        model = AutoModelForCausalLM.from_pretrained(directory)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        engine: Engine = AccelerateTrainer(device="cpu").load(Source(directory), seed=0)
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
