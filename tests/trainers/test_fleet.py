import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from soarctl.api import (
    Completion,
    Engine,
    Fleet,
    GradedSample,
    ModelError,
    Optimizer,
    Policy,
    Prompt,
    Sampling,
    Stream,
)
from soarctl.trainers import head
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.full_engine import FullEngine

Load = Callable[..., AccelerateEngine]
LoadFull = Callable[..., FullEngine]
KL = Optimizer(lr=1e-3, kl=0.05, temperature=0.8)


def noisy(policy: Policy, seed: int, size: float = 0.1) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy({k: (v + size * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def graded(rng: np.random.Generator, count: int, zeros: int = 1) -> list[GradedSample]:
    """Random completions of 1 to 12 tokens; the first `zeros` of them without advantage."""
    samples = list[GradedSample]()
    for i in range(count):
        prompt, written = rng.integers(2, 31, rng.integers(1, 9)), rng.integers(1, 31, rng.integers(1, 13))
        completion = Completion("", tuple(prompt.tolist()), tuple(written.tolist()), (-1.0,) * len(written), "eos")
        samples.append(GradedSample(completion, 0.0 if i < zeros else float(rng.standard_normal())))
    return samples


def related(rng: np.random.Generator, count: int) -> list[GradedSample]:
    """Completions of two prompts over three tokens: many are equal, or begin alike."""
    prompts = ((5, 6, 7), (8, 9))
    samples = list[GradedSample]()
    for i in range(count):
        written = tuple(rng.integers(2, 5, rng.integers(1, 6)).tolist())
        completion = Completion("", prompts[i % 2], written, (-1.0,) * len(written), "eos")
        samples.append(GradedSample(completion, float(rng.standard_normal())))
    return samples


def numbers(fleet: Fleet, name: str) -> np.ndarray:
    """What the fleet's state says by this name, of all policies."""
    return np.concatenate([array for key, array in fleet.state().items() if key.rpartition(".")[2] == name])


def reference_gradient(
    directory: str, policy: Policy, samples: Sequence[GradedSample], options: Optimizer, cap: float | None = None
) -> dict[str, np.ndarray]:
    """The gradient of the loss by its definition: fp64, one sequence at a time, all weights replaced, or adapters of
    scale 2 added to them."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    leaves = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in policy.tensors.items()}
    weights = dict(model.named_parameters())
    adapted = {key.removesuffix(".lora_A") for key in leaves if key.endswith(".lora_A")}
    for name in adapted:
        weights[f"{name}.weight"] = (
            weights[f"{name}.weight"] + 2.0 * leaves[f"{name}.lora_B"] @ leaves[f"{name}.lora_A"]
        )
    if not adapted:
        assert weights.keys() == leaves.keys()
        weights = leaves

    def logprobs(logits: torch.Tensor, c: Completion) -> torch.Tensor:
        steps = (logits[0, len(c.prompt_ids) - 1 : -1] / options.temperature).log_softmax(1)
        return torch.stack([step[token] for step, token in zip(steps, c.token_ids, strict=True)])

    loss = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        c = sample.completion
        ids = torch.tensor([c.prompt_ids + c.token_ids])
        logp = logprobs(torch.func.functional_call(model, weights, (ids,), {"use_cache": False}).logits, c)
        ref = logprobs(base(ids, use_cache=False).logits, c).detach()
        k3 = (ref - logp).exp() - (ref - logp) - 1
        length = len(c.token_ids) if options.aggregation == "seq_mean" else 1
        weight = (logp.detach() - torch.tensor(c.logprobs)).exp().clamp(max=cap) if cap else torch.ones_like(logp)
        loss = loss + (-sample.advantage * (weight @ logp) + options.kl * k3.sum()) / length / len(samples)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {name: g.numpy() for name, g in zip(leaves, gradients, strict=True)}


def compare_with_the_definition(
    engine: AccelerateEngine | FullEngine,
    directory: str,
    samples_S: Sequence[list[GradedSample]],
    options: Optimizer,
    cap: float | None = None,
) -> None:
    policies = [noisy(engine.start(), s) for s in range(len(samples_S))]
    # One step of gradient descent by way of the moments: after it, mean = 0.1 x gradient.
    fleet = engine.fleet(policies, replace(options, max_grad_norm=1e9))
    stats = fleet.reinforce(samples_S)
    found = engine.machinery.weights.views(torch.from_numpy(numbers(fleet, "mean")))
    for s, samples in enumerate(samples_S):
        trained = [g for g in samples if g.advantage or options.kl]
        assert stats[s].stepped == bool(trained)
        if not trained:
            continue
        expected = reference_gradient(directory, policies[s], samples, options, cap)
        scale = max(abs(g).max() for g in expected.values())
        for name, gradient in expected.items():
            assert np.allclose(found[name][s].numpy() / 0.1, gradient, rtol=0, atol=1e-5 * scale), name
        norm = np.sqrt(sum((g**2).sum() for g in expected.values()))
        assert stats[s].grad_norm == pytest.approx(norm, rel=1e-4)
        assert stats[s].tokens == sum(len(g.completion.token_ids) for g in trained)


OPTIONS = [KL, Optimizer(lr=1e-3, aggregation="seq_mean"), Optimizer(lr=1e-3)]


@pytest.mark.parametrize("tokens", [16384, 60, 1])
@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_those_of_the_definition(
    tokens: int, options: Optimizer, load: Load, models: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    samples_S = [graded(rng, 5), related(rng, 16), graded(rng, 2, zeros=2)]
    engine = load(rank=4, alpha=8, micro_batch_tokens=tokens)
    compare_with_the_definition(engine, models["llama"], samples_S, options)


@pytest.mark.parametrize(
    ("base", "tokens", "options"),
    [("tied", 60, KL), ("llama", 1, KL), ("llama", 16384, OPTIONS[1]), ("gpt_neox", 60, OPTIONS[2])],
)
def test_gradients_of_all_weights_are_those_of_the_definition(
    base: str, tokens: int, options: Optimizer, load_full: LoadFull, models: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    samples_S = [graded(rng, 5), related(rng, 16), graded(rng, 2, zeros=2)]
    compare_with_the_definition(load_full(base, micro_batch_tokens=tokens), models[base], samples_S, options)


@pytest.mark.parametrize("cap", [0.5, 2.0, 1e9])
def test_truncated_importance_weights_are_those_of_the_definition(
    cap: float, load: Load, models: dict[str, str]
) -> None:
    engine = load(rank=4, alpha=8, importance_cap=cap)
    rng = np.random.default_rng(0)
    # Each sample says that all its tokens had the log-prob -1, so the ratios are on both sides of the caps.
    compare_with_the_definition(engine, models["llama"], [[*graded(rng, 5), *related(rng, 16)]], KL, cap)


def test_all_weights_have_truncated_importance_weights_too(load_full: LoadFull, models: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    engine = load_full(importance_cap=0.5)
    compare_with_the_definition(engine, models["llama"], [[*graded(rng, 5), *related(rng, 16)]], KL, 0.5)


@pytest.mark.parametrize(("architecture", "packs"), [("mistral", True), ("gemma2", False)])
def test_models_with_attention_windows_get_the_same_gradient(
    architecture: str, packs: bool, load: Load, models: dict[str, str]
) -> None:
    engine = load(architecture, rank=4, alpha=8)
    assert engine.machinery.forward.packs == packs
    assert engine.machinery.forward.head.linear is not None
    rng = np.random.default_rng(0)
    samples_S = [related(rng, 12), graded(rng, 5)]
    compare_with_the_definition(engine, models[architecture], samples_S, Optimizer(lr=1e-3))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("logits", [head.LOGITS, 200])
@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), ("v_proj", "lm_head")])
def test_gradients_do_not_depend_on_what_is_kept_for_them(
    recompute: bool,
    logits: int,
    targets: tuple[str, ...],
    load: Load,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head, "LOGITS", logits)
    engine = load(rank=4, alpha=8, targets=targets, micro_batch_tokens=150, gradient_checkpointing=recompute)
    assert engine.machinery.forward.packs
    assert engine.machinery.forward.head.linear is not None
    rng = np.random.default_rng(0)
    compare_with_the_definition(engine, models["llama"], [graded(rng, 5), related(rng, 16)], KL)


@pytest.mark.parametrize("options", [KL, Optimizer(lr=1e-3, warmup_steps=3, horizon=15)])
def test_a_policy_in_a_fleet_takes_the_steps_it_takes_alone(engine: Engine, options: Optimizer) -> None:
    size = 16
    starts = [noisy(engine.start(), s % 3) for s in range(size)]
    fleet, alone = engine.fleet(starts, options), engine.fleet([starts[5]], options)
    for step in range(10):
        rng = np.random.default_rng(step)
        samples_S = [graded(rng, 2 + s % 3) for s in range(size)]
        fleet.reinforce(samples_S)
        alone.reinforce([samples_S[5]])
    for name, tensor in alone.snapshot(0).tensors.items():
        assert np.allclose(fleet.snapshot(5).tensors[name], tensor, rtol=0, atol=1e-5)
        assert not np.allclose(starts[5].tensors[name], tensor, rtol=0, atol=1e-4)


def test_adapters_learn_at_a_multiple_of_the_rate_if_asked_to(load: Load) -> None:
    def step(lr: float, **trainer: object) -> Policy:
        engine = load(**trainer)
        fleet = engine.fleet([noisy(engine.start(), 0)], Optimizer(lr=lr))
        fleet.reinforce([graded(np.random.default_rng(0), 3)])
        return fleet.snapshot(0)

    tenfold, plain = step(1e-4, lr_scale=10.0), step(1e-3)
    for name, tensor in plain.tensors.items():
        assert np.allclose(tenfold.tensors[name], tensor, rtol=0, atol=1e-7)
    assert not np.allclose(step(1e-4).tensors[name], tensor, rtol=0, atol=1e-5)


def test_a_fleet_takes_the_steps_of_adamw(engine: Engine, models: dict[str, str]) -> None:
    start, options = noisy(engine.start(), 0), Optimizer(lr=1e-3, kl=0.05)
    fleet = engine.fleet([start], options)
    leaves = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.tensors.items()}
    adamw = torch.optim.AdamW(leaves.values(), lr=1e-3, weight_decay=0.0)
    for step in range(3):
        samples = graded(np.random.default_rng(step), 3)
        fleet.reinforce([samples])
        now = Policy({k: v.detach().numpy() for k, v in leaves.items()})
        for name, gradient in reference_gradient(models["llama"], now, samples, options).items():
            leaves[name].grad = torch.tensor(gradient, dtype=torch.float32)
        torch.nn.utils.clip_grad_norm_(leaves.values(), 1.0)
        adamw.step()
    for name, tensor in fleet.snapshot(0).tensors.items():
        assert np.allclose(tensor, leaves[name].detach().numpy(), rtol=0, atol=2e-5)


def test_a_policy_without_advantages_is_left_untouched(engine: Engine) -> None:
    fleet = engine.fleet([engine.start()] * 2, Optimizer(lr=1e-3))
    rng = np.random.default_rng(0)
    stats = fleet.reinforce([graded(rng, 3, zeros=3), graded(rng, 3)])
    assert [s.stepped for s in stats] == [False, True]
    assert (stats[0].tokens, stats[0].grad_norm) == (0, 0)
    for name, tensor in engine.start().tensors.items():
        assert (fleet.snapshot(0).tensors[name] == tensor).all()
    assert numbers(fleet, "updates").tolist() == [0, 1]


def test_samplers_and_trainers_logprobs_agree(engine: Engine) -> None:
    fleet = engine.fleet([noisy(engine.start(), s) for s in range(2)], Optimizer(lr=1e-3, temperature=0.7))
    asked = [Prompt(s, text, 8, Stream((s, text))) for s in range(2) for text in ("abc", "the cat:")]
    found = fleet.sample(asked, Sampling(20, temperature=0.7))
    samples_S = [[GradedSample(c, 1.0) for g in found[2 * s : 2 * s + 2] for c in g] for s in range(2)]
    for stats in fleet.reinforce(samples_S):
        assert 0 < stats.logprob_gap < 1e-5


def test_a_restored_fleet_goes_on_bit_for_bit(engine: Engine) -> None:
    starts = [noisy(engine.start(), s) for s in range(2)]
    samples = [[graded(np.random.default_rng((step, s)), 3) for s in range(2)] for step in range(6)]
    first = engine.fleet(starts, KL)
    for step in range(3):
        first.reinforce(samples[step])
    state = first.state()
    for step in range(3, 6):
        first.reinforce(samples[step])
    second = engine.fleet(starts, KL)
    second.restore(state)
    for step in range(3, 6):
        second.reinforce(samples[step])
    for name, array in first.state().items():
        assert (np.asarray(second.state()[name]) == np.asarray(array)).all()


def test_out_of_memory_halves_the_micro_batch_and_changes_no_gradient(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples_S = [graded(np.random.default_rng(s), 6) for s in range(2)]
    expected = load(rank=4).fleet([load(rank=4).start()] * 2, KL)
    expected.reinforce(samples_S)
    engine = load(rank=4, micro_batch_tokens=128, gradient_checkpointing=False)
    fleet = engine.fleet([engine.start()] * 2, KL)
    calls, chosen = iter(range(1_000_000)), head.chosen

    def log_probs_once_out_of_memory(*arguments: object) -> object:
        if next(calls) == 3:
            raise torch.OutOfMemoryError
        return chosen(*arguments)

    monkeypatch.setattr(head, "chosen", log_probs_once_out_of_memory)
    with pytest.warns(UserWarning, match="out of memory while training: 64 tokens at once from now on"):
        fleet.reinforce(samples_S)
    scale = abs(expected.state()["mean"]).max()
    assert np.allclose(fleet.state()["mean"], expected.state()["mean"], rtol=0, atol=1e-5 * scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fleet.reinforce(samples_S)


def test_a_sequence_that_does_not_fit_by_itself_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def log_probs(*arguments: object) -> object:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(head, "chosen", log_probs)
    engine = load(micro_batch_tokens=1, gradient_checkpointing=True)
    completion = Completion("", (2, 3), (4, 5), (-1.0, -1.0), "eos")
    with pytest.raises(ModelError) as error:
        engine.fleet([engine.start()], KL).reinforce([[GradedSample(completion, 1.0)]])
    assert str(error.value) == (
        "out of memory while training on 3 tokens that belong together\n"
        "  lower max_new_tokens or the trainer's rank, or use a smaller model or dtype"
    )


def learn_once_in_bf16(engine: Engine) -> dict[str, np.ndarray]:
    """What one update at a rate of 1e-5 adds to each tensor."""
    assert engine.facts["dtype"] == "bfloat16"
    fleet = engine.fleet([engine.start()], Optimizer(lr=1e-5))
    completions = fleet.sample([Prompt(0, "abc", 4, Stream((0,)))], Sampling(8))[0]
    (stats,) = fleet.reinforce([[GradedSample(c, (-1.0) ** i) for i, c in enumerate(completions)]])
    assert stats.stepped
    assert stats.logprob_gap < 0.05
    learned = fleet.snapshot(0).tensors
    assert all(tensor.dtype == np.float32 for tensor in learned.values())
    return {name: learned[name] - start for name, start in engine.start().tensors.items()}


def test_adapters_of_a_bf16_model_are_fp32_and_learn(load: Load) -> None:
    for name, change in learn_once_in_bf16(load(dtype="bfloat16", rank=4)).items():
        # A step that bf16 would round away.
        assert name.endswith("A") or abs(change).max() == pytest.approx(1e-5, rel=0.02)


def test_master_weights_of_a_bf16_model_are_fp32_and_learn(load_full: LoadFull) -> None:
    for change in learn_once_in_bf16(load_full(dtype="bfloat16")).values():
        assert abs(change).max() == pytest.approx(1e-5, rel=0.02)
