"""A tokenizer and a small Llama from texts, on CPU."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from soarctl.api import DataError, ModelError, Stream
from soarctl.trainers.model_source import quiet
from soarctl.trainers.tiny import TinyTrainer

PAD, EOS = "<pad>", "<eos>"
PAD_ID, EOS_ID = 0, 1
FACTS = "tiny.json"
_IGNORED = -100
_CONTEXT = 512
_WARM_UP = 50

Pair = tuple[list[int], list[int]]
"""Ids of a prompt and of its completion."""


def pretrain(options: TinyTrainer, directory: Path) -> None:
    """Trains the base model, unless it stands there already.

    Raises:
        DataError: the texts cannot be read.
        ModelError: something else stands there.
    """
    texts = read_texts(options.texts)
    facts = {
        "texts_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        **options.model_dump(include={"updates", "batch_size", "lr", "hidden", "layers", "vocabulary"}),
    }
    if directory.exists():
        _check(directory, facts)
        return
    # The thread count and other users of torch's generator stay as they were.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer(texts, options.vocabulary)
        model = _model(options, tokenizer)
        _train(model, [_encode(tokenizer, *text) for text in texts], options)
    _save(model, tokenizer, facts, directory)


def read_texts(path: Path) -> list[tuple[str, str]]:
    """Prompt and completion of each line.

    Raises:
        DataError: the file is missing, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read: {error}", at=str(path), hint="trainer.texts names JSON lines") from error
    texts: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row: Any = json.loads(line)
            texts.append((str(row["prompt"]), str(row["completion"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"not a text: {type(error).__name__}: {error}",
                at=f"{path}:{number}",
                hint='each line is {"prompt": "...", "completion": "..."}',
            ) from error
    if not texts:
        raise DataError("holds no texts", at=str(path))
    return texts


def _check(directory: Path, facts: dict[str, Any]) -> None:
    """That the model that stands there is the one that would be made."""
    path = directory / FACTS
    found = json.loads(path.read_text()) if path.is_file() else None
    if found == facts:
        return
    if found is None:
        said = f"{directory} is there and was not made by the tiny trainer"
    else:
        changed = ", ".join(sorted(key for key in facts if facts[key] != found.get(key)))
        said = f"{directory} holds a tiny model that was made with other {changed}"
    raise ModelError(
        said,
        at="model.base",
        hint="remove it, or name another directory; the accelerate trainer uses it as it is",
    )


def _tokenizer(texts: Sequence[tuple[str, str]], vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    # Bytes, so that no text is unknown; digits apart, so that numbers have places.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for text in texts for part in text), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _model(options: TinyTrainer, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    heads = max(1, options.hidden // 16)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 3,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=_CONTEXT,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def _encode(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> Pair:
    # Apart, as they are when the completion is sampled.
    asked, said = tokenizer([prompt, completion])["input_ids"]
    return asked[-_CONTEXT // 2 :], [*said, EOS_ID][: _CONTEXT // 2]


def _train(model: LlamaForCausalLM, pairs: Sequence[Pair], options: TinyTrainer) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options.updates))
    model.train()
    for _, batch in zip(range(options.updates), _batches(pairs, options.batch_size), strict=False):
        ids_B_T, labels_B_T = _padded(batch)
        # No attention mask: padding is on the right, where causal attention does not see it.
        logits_B_T_V = model(input_ids=ids_B_T, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits_B_T_V.flatten(0, 1), labels_B_T[:, 1:].flatten(), ignore_index=_IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _batches(pairs: Sequence[Pair], size: int) -> Iterator[list[Pair]]:
    """Shuffled epochs without end, cut into batches."""
    epoch, waiting = 0, list[Pair]()
    while True:
        while len(waiting) < size:
            waiting += [pairs[i] for i in Stream(("tiny", epoch)).order(len(pairs))]
            epoch += 1
        batch, waiting = waiting[:size], waiting[size:]
        yield batch


def _padded(pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids_B_T, padded on the right, and labels_B_T with all but the completions ignored."""
    longest = max(len(p) + len(c) for p, c in pairs)
    ids = [p + c + [PAD_ID] * (longest - len(p) - len(c)) for p, c in pairs]
    labels = [[_IGNORED] * len(p) + c + [_IGNORED] * (longest - len(p) - len(c)) for p, c in pairs]
    return torch.tensor(ids), torch.tensor(labels)


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm_up = min(_WARM_UP, max(1, steps // 4))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: dict[str, Any], directory: Path) -> None:
    """Written aside and renamed, so that an interrupted training leaves nothing that looks finished."""
    aside = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    model.generation_config = GenerationConfig(do_sample=True, top_k=0, eos_token_id=EOS_ID, pad_token_id=PAD_ID)
    try:
        with quiet():
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        (aside / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        aside.rename(directory)
    except OSError as error:
        raise ModelError(f"the tiny model cannot be written: {error}", at=str(directory)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
