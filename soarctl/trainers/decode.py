"""Sampling completions from all policies of a fleet together.

Every token calls the model's own forward, or `llama_step`. Quicker than `generate` because a prompt is read once for
all its samples, the cache is written in place, rows that have finished leave the batch, and masks are not built anew
for every token.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from soarctl.api import Completion, ModelError, Prompt, Sampling
from soarctl.trainers.decode_batch import DecodeBatch, Row, Sampled
from soarctl.trainers.encoding import encode
from soarctl.trainers.forward import Forward
from soarctl.trainers.stops import StopFinder

Serve = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Makes the model answer as these policies, each for an equal part of a batch's rows."""


class Decoder:
    """Samples from a model through its tokenizer."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: PreTrainedTokenizerBase,
        eos_ids: Sequence[int],
        *,
        max_sequences: int,
        chat_template: bool,
    ) -> None:
        self._forward = forward
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._max_sequences = max_sequences
        self._chat_template = chat_template

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, serve: Serve) -> list[list[Completion]]:
        """As `Fleet.sample`."""
        texts = {prompt.text: None for prompt in prompts}
        ids = {text: encode(self._tokenizer, text, chat_template=self._chat_template) for text in texts}
        finder = StopFinder(self._tokenizer, sampling.stop)
        sampled = self._run(self._rows(prompts, ids, sampling), sampling, finder, serve)
        # A prompt that fills the model has empty completions: wrong answers, not the end of a run.
        nothing = Sampled((), (), "length")
        text = cache(finder.text)  # short answers are often the same
        return [
            [_completion(ids[prompt.text], sampled.get((i, k), nothing), text) for k in range(prompt.samples)]
            for i, prompt in enumerate(prompts)
        ]

    def _rows(
        self, prompts: Sequence[Prompt], ids: Mapping[str, tuple[int, ...]], sampling: Sampling
    ) -> dict[int, list[Row]]:
        """By policy; prompts of similar length together, so that they need little padding."""
        rows_S = dict[int, list[Row]]()
        for i in sorted(range(len(prompts)), key=lambda i: (prompts[i].policy, len(ids[prompts[i].text]))):
            prompt, prompt_ids = prompts[i], ids[prompts[i].text]
            room = min(sampling.max_new_tokens, self._forward.max_length - len(prompt_ids))
            if room > 0:
                shape = (prompt.first + prompt.samples, sampling.max_new_tokens)
                uniforms_K_T = prompt.stream.uniforms(*shape) if sampling.temperature else np.zeros(shape)
                uniforms_K_T = uniforms_K_T[prompt.first :]
                rows_S.setdefault(prompt.policy, []).extend(
                    Row(i, k, prompt_ids, room, uniforms_K_T[k]) for k in range(prompt.samples)
                )
        return rows_S

    def _run(
        self, rows_S: Mapping[int, Sequence[Row]], sampling: Sampling, finder: StopFinder, serve: Serve
    ) -> dict[tuple[int, int], Sampled]:
        # Where memory runs out, the limit is halved for this call alone: the next one may have shorter prompts, or more
        # memory beside it.
        sampled, limit = dict[tuple[int, int], Sampled](), self._max_sequences
        batches = list(rectangles(rows_S, limit))
        while batches:
            rows = list(batches[0].values())
            try:
                with torch.inference_mode(), serve(list(batches[0])):
                    results = DecodeBatch(self._forward, rows, sampling, self._eos_ids, finder).run()
            except torch.OutOfMemoryError:
                limit = _half(limit)
                # Sampled tokens do not depend on the batch but for rounding: it is taken up again from its beginning.
                batches = [part for batch in batches for part in rectangles(batch, limit)]
            else:
                del batches[0]
                sampled |= {
                    (row.request, row.k): result for row, result in zip(chain.from_iterable(rows), results, strict=True)
                }
        return sampled


def _half(limit: int) -> int:
    if limit == 1:
        raise ModelError("out of memory while sampling a single sequence", hint="use a smaller model or dtype")
    warnings.warn(
        f"out of memory while sampling: {limit // 2} sequences at once for these prompts; "
        "trainer.max_sequences sets a limit from the beginning",
        stacklevel=3,
    )
    return limit // 2


def rectangles(rows_S: Mapping[int, Sequence[Row]], limit: int) -> Iterator[dict[int, Sequence[Row]]]:
    """All rows by policy, in batches of at most `limit` rows with each policy's part as large as the largest."""
    policies = list(rows_S)
    for first in range(0, len(policies), limit):
        some = policies[first : first + limit]
        each = limit // len(some)
        for at in range(0, max(len(rows_S[s]) for s in some), each):
            yield {s: rows_S[s][at : at + each] for s in some if len(rows_S[s]) > at}


def _completion(prompt_ids: tuple[int, ...], sampled: Sampled, text: Callable[[tuple[int, ...]], str]) -> Completion:
    written = sampled.token_ids[:-1] if sampled.finish == "eos" else sampled.token_ids
    return Completion(text(written), prompt_ids, sampled.token_ids, sampled.logprobs, sampled.finish)
