"""Peak memory of training steps, each measured in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

STEP = """
import json, resource, sys
import numpy as np, torch
from soarctl.api import Completion, GradedSample, Optimizer
from soarctl.trainers.accelerate import AccelerateTrainer
from pathlib import Path
from tempfile import TemporaryDirectory
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class Source:
    revision, chat_template, trust_remote_code = None, False, False

asked = json.loads(sys.argv[1])
torch.set_num_threads(1)
model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=4, eos_token_id=1, bos_token_id=None,
    max_position_embeddings=512, tie_word_embeddings=True, **asked["model"]))
with TemporaryDirectory() as place:
    model.save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "b": 1}))).save_pretrained(place)
    Source.base = place
    del model
    engine = AccelerateTrainer(device="cpu", **asked["trainer"]).load(Source(), 0)
    adapter = sum(t.size for t in engine.start().tensors.values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = np.random.default_rng(0)
    def sample():
        ids = tuple(rng.integers(2, asked["model"]["vocab_size"], 256).tolist())
        return GradedSample(Completion("", ids[:16], ids[16:], (-1.0,) * 240, "eos"), float(rng.standard_normal()))
    fleet = engine.fleet([engine.start()] * asked["policies"], Optimizer(lr=1e-3, kl=0.1))
    stats = fleet.reinforce([[sample() for _ in range(asked["samples"])] for _ in range(asked["policies"])])
    assert all(s.stepped for s in stats)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak / 1024, "before": before / 1024, "adapter": adapter * 4 / 2**20}))
"""


def megabytes(model: dict[str, int], trainer: dict[str, object], policies: int, samples: int) -> dict[str, float]:
    """Peak resident memory of a process with one training step, that before the step, and one adapter's size."""
    asked = json.dumps({"model": model, "trainer": trainer, "policies": policies, "samples": samples})
    # Tensors go back to the system as soon as they are let go of, and what is resident is what is in use.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run([sys.executable, "-c", STEP, asked], stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(run.stdout)


def test_memory_grows_with_tokens_and_not_with_tokens_times_vocabulary() -> None:
    model = {"vocab_size": 128_000, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    few, many = (megabytes(model, {"rank": 4, "micro_batch_tokens": 2048}, 1, samples) for samples in (2, 8))
    logits = (8 - 2) * 256 * 128_000 * 4 / 2**20
    assert many["peak"] - few["peak"] < 0.1 * logits


def test_layers_that_are_recomputed_are_not_kept() -> None:
    model = {"vocab_size": 100, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    kept, recomputed = (
        megabytes(model, {"rank": 4, "micro_batch_tokens": 2048, "gradient_checkpointing": on}, 1, 8)
        for on in (False, True)
    )
    assert recomputed["peak"] - recomputed["before"] < 0.4 * (kept["peak"] - kept["before"])


def test_sixteen_policies_need_what_their_adapters_and_optimizers_need() -> None:
    model = {"vocab_size": 100, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    trainer = {"rank": 128, "micro_batch_tokens": 512}
    one, sixteen = (megabytes(model, trainer, policies, 2) for policies in (1, 16))
    # Weights, gradient and two moments in fp32. What a micro-batch keeps is the same for both: its tokens are.
    expected = 15 * 4 * one["adapter"]
    assert expected > 200
    assert sixteen["peak"] - one["peak"] < 1.2 * expected
