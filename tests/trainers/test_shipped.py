"""Sampling through an inference engine: what is sent, what is checked, and where completions end.

The engine here is a second copy of the model with the decoder, which is real and needs nothing. vLLM's own tests are in
tests/vllm.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from soarctl.api import (
    AdapterShape,
    Completion,
    Continuation,
    Fleet,
    GradedSample,
    InferenceEngine,
    Optimizer,
    Policy,
    Prompt,
    Request,
    Sampler,
    SamplerError,
    Sampling,
    Served,
    Stream,
)
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.full import FullTrainer
from soarctl.trainers.full_engine import FullEngine

Load = Callable[..., AccelerateEngine]
LoadFull = Callable[..., FullEngine]
PROMPTS = ("soar", "a few words:", "x")
GREEDY = Sampling(20, temperature=0.0)


class SecondCopy(InferenceEngine):
    """The same model loaded again, which samples each policy for itself."""

    def __init__(self, model: Served, *, stale: bool, stops: bool, early: int | None) -> None:
        self._model, self._stale, self._stops, self._early = model, stale, stops, early
        self.fleets: dict[str, Fleet] = {}
        self.updates: list[tuple[list[str], list[str]]] = []

    @cached_property
    def engine(self) -> AccelerateEngine | FullEngine:
        class Source:
            base, revision = str(self._model.directory), None
            chat_template = trust_remote_code = False

        shape = self._model.adapter
        if shape is None:
            engine = FullTrainer(device="cpu").load(Source(), seed=0)
        else:
            engine = AccelerateTrainer(device="cpu", rank=shape.rank, alpha=shape.alpha).load(Source(), seed=0)
        assert isinstance(engine, AccelerateEngine | FullEngine)
        return engine

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        self.updates.append((list(added), list(removed)))
        for name, policy in added.items():
            before = name.rpartition(".version")[0]
            old = next((fleet for held, fleet in self.fleets.items() if held.startswith(before)), None)
            fresh = self.engine.fleet([policy], Optimizer(lr=1.0))
            self.fleets[name] = old if self._stale and old else fresh
        for name in removed:
            del self.fleets[name]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        return [[self._continuation(c) for c in self._sample(request, sampling)] for request in requests]

    def _sample(self, request: Request, sampling: Sampling) -> list[Completion]:
        room = min(request.max_new_tokens, self._early or request.max_new_tokens)
        text = self.engine._loaded.base.tokenizer.decode(request.prompt_ids)
        prompt = Prompt(0, text, request.samples, Stream(("engine", request.seed)))
        asked = replace(sampling, max_new_tokens=room, stop=sampling.stop if self._stops else ())
        return self.fleets[request.policy].sample([prompt], asked)[0]

    def _continuation(self, completion: Completion) -> Continuation:
        return Continuation(completion.token_ids, completion.logprobs)


class CopySampler(Sampler):
    """Serves `SecondCopy`, with a defect on request."""

    stale: bool = False
    """Goes on with the first weights that a policy had."""
    stops: bool = True
    """Stops at stop strings."""
    early: int | None = None
    """Ends continuations after this many tokens for no reason."""
    shared: bool = False
    """Finds the engine that was attached last."""

    @property
    def takes_all_weights(self) -> bool:
        return True

    def attach(self, model: Served) -> InferenceEngine:
        if self.shared:
            return attached[-1]
        attached.append(SecondCopy(model, stale=self.stale, stops=self.stops, early=self.early))
        return attached[-1]


attached: list[SecondCopy] = []


@pytest.fixture
def shipping(load: Load) -> Callable[..., AccelerateEngine]:
    """An engine with adapters of rank 4 that samples through a second copy of its model."""
    return lambda trainer=None, **options: load(rank=4, alpha=8, sampler=CopySampler(**options), **trainer or {})


@pytest.fixture
def shipping_all(load_full: LoadFull) -> Callable[..., FullEngine]:
    """The same for all weights."""
    return lambda trainer=None, **options: load_full(sampler=CopySampler(**options), **trainer or {})


def noisy(policy: Policy, seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy({k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def two(engine: AccelerateEngine | FullEngine, lr: float = 0.01) -> Fleet:
    return engine.fleet([engine.start(), noisy(engine.start(), 1)], Optimizer(lr=lr))


def asked(samples: int = 3, policies: Sequence[int] = (0, 1)) -> list[Prompt]:
    return [Prompt(s, text, samples, Stream(("asked", s, text))) for s in policies for text in PROMPTS]


def graded(groups: Sequence[Sequence[Completion]]) -> list[GradedSample]:
    return [GradedSample(c, 1.0 if c.token_ids[0] % 2 else -1.0) for group in groups for c in group]


@pytest.mark.parametrize("options", [{}, {"stops": False}, {"early": 3}, {"early": 1, "stops": False}])
@pytest.mark.parametrize("stop", [(), (" ", "e"), ("ab", "n.")])
def test_completions_are_those_of_the_decoder_wherever_the_engine_stops(
    adapters: AccelerateEngine, shipping: Load, options: dict[str, Any], stop: tuple[str, ...]
) -> None:
    sampling = replace(GREEDY, stop=stop)
    ours, theirs = two(adapters).sample(asked(), sampling), two(shipping(**options)).sample(asked(), sampling)
    for one, other in zip((c for g in ours for c in g), (c for g in theirs for c in g), strict=True):
        assert replace(other, logprobs=one.logprobs) == one
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-5)


def test_a_prompt_that_fills_the_model_has_empty_completions(shipping: Load) -> None:
    fleet = two(shipping())
    full = Prompt(0, "a" * 64, 2, Stream(("full",)))
    [empty, _] = fleet.sample([full, asked()[0]], GREEDY)
    assert [(c.text, c.token_ids, c.finish) for c in empty] == [("", (), "length")] * 2


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_gap_of_what_was_sampled_is_rounding(shipping: Load, temperature: float) -> None:
    fleet = shipping().fleet([shipping().start()] * 2, Optimizer(lr=0.01, temperature=temperature))
    for _ in range(2):
        groups = fleet.sample(asked(), Sampling(20, temperature))
        assert all(s.logprob_gap < 1e-5 for s in fleet.reinforce([graded(groups[:3]), graded(groups[3:])]))


def test_a_version_is_sent_once_and_its_predecessor_forgotten(shipping: Load) -> None:
    engine = shipping()
    fleet = two(engine)
    groups = fleet.sample(asked(), GREEDY)
    fleet.sample(asked(), GREEDY)
    fleet.reinforce([[], graded(groups[3:])])
    fleet.sample(asked(policies=[1]), GREEDY)
    fleet.sample(asked(policies=[0]), GREEDY)
    other = two(engine)
    other.sample(asked(policies=[0]), GREEDY)
    one, two_ = fleet.name, other.name
    assert attached[-1].updates == [
        ([f"{one}.policy0.version0", f"{one}.policy1.version0"], []),
        ([f"{one}.policy1.version1"], [f"{one}.policy1.version0"]),
        ([f"{two_}.policy0.version0"], [f"{one}.policy0.version0", f"{one}.policy1.version1"]),
    ]


def test_runs_that_find_the_same_engine_send_it_what_the_other_one_replaced(shipping: Load) -> None:
    one, other = (two(shipping(shared=shared)) for shared in (False, True))
    for fleet in (one, other, one):
        fleet.sample(asked(policies=[0]), GREEDY)
    of_one, of_other = (f"{fleet.name}.policy0.version0" for fleet in (one, other))
    assert attached[-1].updates == [([of_one], []), ([of_other], [of_one]), ([of_one], [of_other])]


def test_all_weights_are_sent_of_one_policy_at_a_time(shipping_all: LoadFull) -> None:
    engine = shipping_all()
    fleet = two(engine, lr=1e-3)
    groups = fleet.sample(asked(), Sampling(20))
    stats_S = fleet.reinforce([[], graded(groups[3:])])
    assert 0 < stats_S[1].logprob_gap < 1e-5
    fleet.sample(asked(policies=[1]), GREEDY)
    fleet.sample(asked(policies=[1]), GREEDY)
    one, other = (policy.name for policy in fleet._policies_S)
    assert attached[-1].updates == [
        ([f"{one}.policy0.version0"], []),
        ([f"{other}.policy0.version0"], [f"{one}.policy0.version0"]),
        ([f"{other}.policy0.version1"], [f"{other}.policy0.version0"]),
    ]
    assert engine.facts["sampler"] == {}
    assert not engine.repeats


def test_all_weights_through_an_engine_are_sampled_from_as_by_the_decoder(
    full: FullEngine, shipping_all: LoadFull
) -> None:
    ours, theirs = two(full).sample(asked(), GREEDY), two(shipping_all()).sample(asked(), GREEDY)
    for one, other in zip((c for g in ours for c in g), (c for g in theirs for c in g), strict=True):
        assert replace(other, logprobs=one.logprobs) == one
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-5)


def test_all_weights_that_stayed_behind_stop_the_run_and_are_named(shipping_all: LoadFull) -> None:
    fleet = two(shipping_all(stale=True), lr=1e-3)
    groups = fleet.sample(asked(policies=[1]), Sampling(20))
    fleet.reinforce([[], graded(groups)])
    with pytest.raises(SamplerError) as caught:
        fleet.sample(asked(policies=[1]), Sampling(20))
    assert f"other weights than the trainer's for {fleet._policies_S[1].name}.policy0.version1 (" in str(caught.value)


def test_a_server_refuses_all_weights(tmp_path: Path) -> None:
    from soarctl.trainers.vllm_sampler import VllmSampler

    served = Served(
        directory=tmp_path,
        trust_remote_code=False,
        dtype="float32",
        device="cpu",
        max_length=64,
        eos_ids=(1,),
        adapter=None,
        width=1,
    )
    with pytest.raises(SamplerError) as caught:
        VllmSampler(url="http://127.0.0.1:9").attach(served)
    assert str(caught.value) == (
        "trainer.sampler.url: a vLLM server takes adapters only, and the trainer's policies are all weights of the "
        "model\n  leave it out: vLLM in this process takes all weights"
    )


def test_shares_of_a_request_are_other_samples(shipping: Load) -> None:
    fleet = two(shipping())
    [first], [second], [again] = (
        fleet.sample([Prompt(0, PROMPTS[1], 4, Stream(("shared",)), first=at)], Sampling(20)) for at in (0, 4, 0)
    )
    assert [c.text for c in first] == [c.text for c in again]
    assert not {c.text for c in first} & {c.text for c in second}


def test_restored_weights_are_sent_anew(shipping: Load) -> None:
    engine = shipping()
    fleet = two(engine)
    before = fleet.state()
    fleet.reinforce([graded(two(engine).sample(asked(), Sampling(20))), []])
    learned = [c.text for group in fleet.sample(asked(), GREEDY) for c in group]
    fleet.restore(before)
    assert [c.text for group in fleet.sample(asked(), GREEDY) for c in group] != learned


def test_an_adapter_that_stayed_behind_stops_the_run_and_is_named(shipping: Load) -> None:
    fleet = two(shipping(stale=True))
    groups = fleet.sample(asked(), Sampling(20))
    fleet.reinforce([[], graded(groups[3:])])
    with pytest.raises(SamplerError) as caught:
        fleet.sample(asked(), Sampling(20))
    assert f"other weights than the trainer's for {fleet.name}.policy1.version1 (" in str(caught.value)
    assert "policy0" not in str(caught.value)


def test_the_limit_of_the_canary_is_an_option(shipping: Load) -> None:
    fleet = two(shipping({"max_logprob_gap": 10.0}, stale=True))
    groups = fleet.sample(asked(), Sampling(20))
    fleet.reinforce([[], graded(groups[3:])])
    stale = fleet.sample(asked(), Sampling(20))
    assert fleet.reinforce([[], graded(stale[3:])])[1].logprob_gap > 0.05


def test_nothing_is_attached_before_something_is_sampled(shipping: Load, tmp_path: Path) -> None:
    count = len(attached)
    engine = shipping()
    engine.export(engine.start(), tmp_path, merge=False)
    assert engine.facts["sampler"] == {}
    assert len(attached) == count


def test_a_server_that_is_not_there_is_an_error_that_says_how_to_start_it(load: Load) -> None:
    from soarctl.trainers.vllm_sampler import VllmSampler

    engine = load(rank=4, alpha=8, width=3, sampler=VllmSampler(url="http://127.0.0.1:9"))
    with pytest.raises(SamplerError) as caught:
        two(engine).sample(asked(), GREEDY)
    first, start = str(caught.value).split("\n")
    assert first.startswith("http://127.0.0.1:9: the server cannot be reached: ")
    assert "vllm serve MODEL --enable-lora --max-loras 3 --max-lora-rank 8 --dtype float32" in start


def test_vllm_that_is_not_installed_is_an_error_that_says_what_to_install(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soarctl.trainers.vllm_sampler import VllmSampler

    monkeypatch.setitem(sys.modules, "vllm", None)
    engine = load(rank=4, alpha=8, sampler=VllmSampler())
    with pytest.raises(SamplerError) as caught:
        two(engine).sample(asked(), GREEDY)
    assert str(caught.value).startswith("trainer.sampler.plugin: vLLM cannot be imported: ")
    assert str(caught.value).endswith('\n  pip install "soarctl[vllm]", or give the url of a server')


def test_adapters_are_gone_from_the_disk_when_they_are_forgotten(load: Load, tmp_path: Path) -> None:
    from soarctl.trainers.shipped_adapters import AdapterFolder

    start = load(rank=4, alpha=8).start()
    served = Served(
        directory=tmp_path,
        trust_remote_code=False,
        dtype="bfloat16",
        device="cpu",
        max_length=64,
        eos_ids=(1,),
        adapter=AdapterShape(4, 8.0, tuple({name.rpartition(".")[0] for name in start.tensors})),
        width=1,
    )
    assert served.adapter
    folder = AdapterFolder(tmp_path, served, served.adapter)
    at = folder.write("one", start)
    with safe_open(at / "adapter_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    folder.forget("one")
    assert not at.exists()
    with pytest.raises(SamplerError, match="cannot make a folder for adapters in /nowhere: No such file"):
        AdapterFolder(Path("/nowhere"), served, served.adapter)
