"""Sampling from a fleet through an inference engine that holds the base model too and is sent the policies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from transformers import PreTrainedTokenizerBase

from soarctl.api import (
    Completion,
    Continuation,
    InferenceEngine,
    Policy,
    Prompt,
    Request,
    SamplerError,
    Sampling,
    Stream,
)
from soarctl.trainers.encoding import encode
from soarctl.trainers.stops import StopFinder

# What a canary is: this many samples of a policy, this long.
CANARY_SAMPLES, CANARY_TOKENS = 2, 16

_held = WeakKeyDictionary[InferenceEngine, dict[str, tuple[str, int]]]()
"""Fleet and policy of each name that an engine knows. Several runs of a process may find the same engine."""


class ShippedFleet(Protocol):
    """What a fleet lets be known of its policies."""

    @property
    def name(self) -> str:
        """No other fleet of this process has it."""
        ...

    @property
    def versions_S(self) -> Sequence[int]:
        """A number for each policy that changes with its weights and never comes back."""
        ...

    def lent(self, policy: int) -> Policy:
        """One policy's weights as they are now. They change when it learns."""
        ...

    def logprob_gaps(self, completions_S: Mapping[int, Sequence[Completion]], temperature: float) -> dict[int, float]:
        """Mean |sampler - trainer| log-prob per token, as training would compute it, by policy."""
        ...


@dataclass(slots=True)
class _Sample:
    """A completion while it grows."""

    policy: str
    prompt_ids: tuple[int, ...]
    room: int
    """Most tokens that it may get."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["eos", "stop", "length"] | None = None

    def request(self, samples: int, stream: Stream) -> Request:
        """For what it lacks."""
        seed = int(stream.uniforms(1)[0] * 2**53)
        return Request(self.policy, self.prompt_ids + self.token_ids, samples, self.room - len(self.token_ids), seed)


class Shipped:
    """Sends an engine the policies that it lacks, makes sure that it answers with those, and samples.

    A name stands for the same weights for ever: another version of a policy has another name. So neither an adapter
    that is loaded already nor the cache of a prompt can be taken for a newer one.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        tokenizer: PreTrainedTokenizerBase,
        eos_ids: Sequence[int],
        *,
        max_length: int,
        chat_template: bool,
        max_gap: float,
    ) -> None:
        self._engine = engine
        self._tokenizer, self._eos_ids = tokenizer, frozenset(eos_ids)
        self._max_length, self._chat_template, self._max_gap = max_length, chat_template, max_gap
        self._held = _held.setdefault(engine, {})

    def sample(self, fleet: ShippedFleet, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """As `Fleet.sample`, but that a sample may depend on those that are drawn beside it.

        Raises:
            SamplerError: the engine failed, or serves other weights than the fleet's.
        """
        texts = {prompt.text: None for prompt in prompts}
        ids = {text: encode(self._tokenizer, text, chat_template=self._chat_template) for text in texts}
        first_S = {prompt.policy: ids[prompt.text] for prompt in reversed(prompts)}
        names = {s: f"{fleet.name}.policy{s}.version{fleet.versions_S[s]}" for s in sorted(first_S)}
        if self._sync(fleet, names):
            self._canary(fleet, names, first_S, sampling.temperature or 1.0)
        samples = [[self._begin(names[p.policy], ids[p.text], sampling) for _ in range(p.samples)] for p in prompts]
        finder = StopFinder(self._tokenizer, sampling.stop)
        # An engine that is asked for later samples only would begin with the first ones again.
        streams = [p.stream.child("from", p.first) if p.first else p.stream for p in prompts]
        asked = [
            (group, stream) for group, stream in zip(samples, streams, strict=True) if group and not group[0].finish
        ]
        while asked:
            self._grow(asked, sampling, finder)
            # An engine may see a stop string where there is none in the text as we decode it. What it left unfinished
            # is continued, one by one, until it ends for a reason of ours.
            unfinished = [
                (sample, stream.child("continued", k))
                for group, stream in asked
                for k, sample in enumerate(group)
                if sample.finish is None
            ]
            asked = [([sample], stream) for sample, stream in unfinished]
            sampling = replace(sampling, stop=())
        text = cache(finder.text)
        return [[_completion(sample, text) for sample in group] for group in samples]

    def _sync(self, fleet: ShippedFleet, names: Mapping[int, str]) -> bool:
        """Sends what the engine lacks; False where that is nothing."""
        added = {name: fleet.lent(s) for s, name in names.items() if name not in self._held}
        if added:
            old = [held for held, (of, s) in self._held.items() if of != fleet.name or names.get(s, held) != held]
            self._engine.update(added, old)
            for name in old:
                del self._held[name]
            self._held.update({name: (fleet.name, s) for s, name in names.items()})
        return bool(added)

    def _canary(
        self, fleet: ShippedFleet, names: Mapping[int, str], first_S: Mapping[int, tuple[int, ...]], temperature: float
    ) -> None:
        """Compares log-probs where each policy continues its first prompt, all in one batch, as they will stand."""
        room = min(CANARY_TOKENS, self._max_length - 1)
        prompts_S = {s: ids[: self._max_length - room] for s, ids in first_S.items()}
        requests = [Request(name, prompts_S[s], CANARY_SAMPLES, room, seed=s) for s, name in names.items()]
        groups = self._engine.generate(requests, Sampling(room, temperature))
        completions_S = {
            s: [Completion("", prompts_S[s], c.token_ids, c.logprobs, "length") for c in group]
            for s, group in zip(names, groups, strict=True)
        }
        gaps_S = fleet.logprob_gaps(completions_S, temperature)
        # Not "above": a gap that is not a number is none that may pass.
        stale = [f"{names[s]} ({gap:.3g})" for s, gap in gaps_S.items() if not gap <= self._max_gap]
        if stale:
            raise SamplerError(
                f"the sampler answers with other weights than the trainer's for {', '.join(stale)}: in brackets the "
                f"mean difference of log-probs per token, which may be {self._max_gap:g}",
                at="trainer.sampler",
                hint="stale or wrong weights; resume the run to start the sampler anew. If sampler and trainer only "
                "round differently, raise trainer.max_logprob_gap",
            )

    def _begin(self, policy: str, prompt_ids: tuple[int, ...], sampling: Sampling) -> _Sample:
        room = min(sampling.max_new_tokens, self._max_length - len(prompt_ids))
        # A prompt that fills the model has empty completions: wrong answers, not the end of a run.
        return _Sample(policy, prompt_ids, room, finish=None if room > 0 else "length")

    def _grow(self, asked: Sequence[tuple[list[_Sample], Stream]], sampling: Sampling, finder: StopFinder) -> None:
        """Continues groups of equal samples, each group by one request."""
        # Greedy samples of a prompt are all the same, so one is enough.
        requests = [group[0].request(len(group) if sampling.temperature else 1, stream) for group, stream in asked]
        for (group, _), found in zip(asked, self._engine.generate(requests, sampling), strict=True):
            repeated = found if sampling.temperature else found * len(group)
            for sample, continuation in zip(group, repeated, strict=True):
                self._extend(sample, continuation, finder)

    def _extend(self, sample: _Sample, found: Continuation, finder: StopFinder) -> None:
        if not found.token_ids:
            raise SamplerError("the sampler gave an empty continuation", at="trainer.sampler")
        ids = sample.token_ids + found.token_ids
        suspects = finder.suspects(np.array([found.token_ids]))[0]
        for suspect, end in zip(suspects, range(len(sample.token_ids) + 1, len(ids) + 1), strict=True):
            if ids[end - 1] in self._eos_ids:
                sample.finish = "eos"
            elif suspect and finder.contains(ids[:end]):
                sample.finish = "stop"
            elif end == sample.room:
                sample.finish = "length"
            if sample.finish:
                ids = ids[:end]
                break
        sample.token_ids, sample.logprobs = ids, (sample.logprobs + found.logprobs)[: len(ids)]


def _completion(sample: _Sample, text: Callable[[tuple[int, ...]], str]) -> Completion:
    assert sample.finish is not None
    written = sample.token_ids[:-1] if sample.finish == "eos" else sample.token_ids
    return Completion(text(written), sample.prompt_ids, sample.token_ids, sample.logprobs, sample.finish)
