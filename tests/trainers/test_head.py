from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, PreTrainedModel

from soarctl.trainers import head
from soarctl.trainers.head import Targets, find_head

IDS = torch.tensor([[5, 9, 2, 17, 30, 4]])
SMALL = {"vocab_size": 31, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}


def make(config: object) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(num_key_value_heads=4, logit_scale=0.25, pad_token_id=0, **SMALL),
        GraniteConfig(num_key_value_heads=4, logits_scaling=8.0, initializer_range=0.3, **SMALL),
        # So low a cap that no logit is far from it.
        Gemma2Config(num_key_value_heads=4, head_dim=8, final_logit_softcapping=0.5, initializer_range=0.3, **SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_what_an_architecture_does_with_its_logits_is_done(config: object) -> None:
    model = make(config)
    found = find_head(model)
    assert found.linear is not None
    with torch.no_grad():
        states = model.base_model(IDS).last_hidden_state
        assert torch.allclose(found(states), model(IDS).logits, atol=1e-6)
        assert not torch.allclose(found.linear(states), model(IDS).logits, atol=1e-2)


def test_a_forward_that_does_something_unknown_keeps_its_own_logits(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(models["llama"])
    assert find_head(model).linear is not None
    forward: Callable[..., object] = model.forward

    def sharpened(*arguments: object, **options: object) -> object:
        output = forward(*arguments, **options)
        output["logits"] = 1.01 * output["logits"]
        return output

    monkeypatch.setattr(model, "forward", sharpened)
    assert find_head(model).linear is None


@pytest.mark.parametrize("logits", [head.LOGITS, 2 * 31 * 3, 1])
def test_log_probs_in_parts_are_those_of_all_logits(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGITS", logits)
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(8, 31)
    hidden = torch.randn(2, 7, 8, generator=generator, requires_grad=True)
    column = torch.tensor([0, 0, 1, 3, 3, 6])
    policy, target = torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([3, 30, 2, 0, 1, 7])
    found = head.Head(linear, lambda each: each).log_probs(hidden, Targets(policy, column.numpy(), target), 0.7)
    expected = (linear(hidden).double() / 0.7).log_softmax(2)[policy, column, target]
    assert torch.allclose(found.double(), expected, rtol=0, atol=1e-6)
    weights = torch.randn(6, generator=generator)
    leaves = [hidden, linear.weight]
    ours = torch.autograd.grad(weights @ found, leaves)
    theirs = torch.autograd.grad(weights.double() @ expected, leaves)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
