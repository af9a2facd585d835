import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from soarctl.api import Engine, ModelError, Optimizer, Policy
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.engine import AccelerateEngine

Load = Callable[..., AccelerateEngine]
IDS = torch.tensor([[5, 9, 2, 17, 30, 4]])


def noisy(policy: Policy, seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy({k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def error_of(load: Load, base: str) -> str:
    with pytest.raises(ModelError) as error:
        load(base)
    return str(error.value)


def logits(engine: Engine, policy: Policy) -> torch.Tensor:
    fleet = engine.fleet([policy], Optimizer(lr=1e-3))
    with torch.no_grad(), fleet.serve([0]):
        forward = engine.machinery.forward
        return forward.head(forward.states(IDS, None))


def test_the_start_is_the_base_model_whatever_else_happened(load: Load, models: dict[str, Path]) -> None:
    engine = load()
    start = engine.start()
    assert start.tensors["model.layers.0.self_attn.k_proj.lora_A"].shape == (16, 32)
    assert start.tensors["model.layers.0.self_attn.k_proj.lora_B"].shape == (16, 16)
    for name, tensor in start.tensors.items():
        assert tensor.dtype == np.float32
        assert (tensor == load().start().tensors[name]).all()
        if name.endswith("lora_A"):
            assert 0.9 < abs(tensor).max() * tensor.shape[1] ** 0.5 <= 1
        else:
            assert not tensor.any()
    plain = AutoModelForCausalLM.from_pretrained(models["llama"])(IDS).logits
    assert torch.allclose(logits(engine, start), plain, atol=1e-5)


# PEFT asks transformers for a property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_exported_adapter_is_one_for_peft(load: Load, models: dict[str, Path], tmp_path: Path) -> None:
    engine = load(rank=4, alpha=12)
    policy = noisy(engine.start(), 0)
    engine.export(policy, tmp_path / "adapter", merge=False)
    base = AutoModelForCausalLM.from_pretrained(models["llama"])
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(loaded(IDS).logits, logits(engine, policy), atol=1e-4)
    assert loaded.peft_config["default"].base_model_name_or_path == str(models["llama"])


def test_an_exported_model_is_one_for_transformers(load: Load, tmp_path: Path) -> None:
    engine = load(rank=4)
    policy = noisy(engine.start(), 0)
    engine.export(policy, tmp_path / "model", merge=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.allclose(loaded(IDS).logits, logits(engine, policy), atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").encode("abc") == [2, 3, 4]
    assert list((tmp_path / "model").glob("*.safetensors"))
    assert "soarctl" not in (tmp_path / "model" / "config.json").read_text()


def test_facts_name_the_model_by_its_contents(load: Load, models: dict[str, Path]) -> None:
    facts = load(rank=4).facts
    weights = (models["llama"] / "model.safetensors").read_bytes()
    assert facts["weights_sha256"] == {"model.safetensors": hashlib.sha256(weights).hexdigest()}
    assert facts["base"] == str(models["llama"])
    assert facts["adapter_parameters"] == 2 * 4 * (2 * 64 + 2 * 48 + 3 * 80)
    assert facts["device"] == "cpu"
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["commit"] is None


def test_the_width_is_what_the_spec_says(load: Load) -> None:
    assert load(width=3).width == 3


def test_a_model_may_come_with_a_package(
    load: Load, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "soarctl_imagined"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model").symlink_to(models["llama"])
    monkeypatch.syspath_prepend(tmp_path)
    assert load("package:soarctl_imagined/model").facts["base"] == "package:soarctl_imagined/model"
    assert "soarctl_imagined" not in sys.modules
    assert error_of(load, "package:soarctl_imagined/none") == (
        'model.base: the package "soarctl_imagined" has no folder "none"'
    )
    assert error_of(load, "package:soarctl_imagined/../x") == (
        'model.base: "package:soarctl_imagined/../x" does not name a folder of a package\n'
        "  write package:<import name>/<folder>, without .."
    )
    assert error_of(load, "package:soarctl_missing/model") == (
        'model.base: the package "soarctl_missing" is not installed'
    )


def test_a_missing_directory_is_an_error(load: Load) -> None:
    assert error_of(load, "./nowhere") == 'model.base: there is no directory "./nowhere"'


def test_a_model_that_cannot_be_fetched_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert error_of(load, "nobody/nothing") == (
        'model.base: "nobody/nothing" is neither a directory here nor in the cache, and the hub cannot be reached\n'
        "  give a local directory, or fetch it where there is a network: hf download nobody/nothing"
    )


def test_a_directory_without_a_model_is_an_error(load: Load, models: dict[str, Path], tmp_path: Path) -> None:
    assert error_of(load, str(tmp_path)) == f'model.base: "{tmp_path}" has no config.json\n  looked in {tmp_path}'
    (tmp_path / "config.json").write_text((models["llama"] / "config.json").read_text())
    assert error_of(load, str(tmp_path)) == (f'model.base: "{tmp_path}" has no *.safetensors\n  looked in {tmp_path}')
    (tmp_path / "pytorch_model.bin").touch()
    assert error_of(load, str(tmp_path)) == (
        f'model.base: "{tmp_path}" has its weights as pickles (.bin) only, which can run code when they are read\n'
        "  convert it where you trust it: model.save_pretrained writes safetensors"
    )
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert error_of(load, str(tmp_path)).startswith(f'model.base: "{tmp_path}" cannot be loaded: ')


def test_targets_that_the_model_lacks_are_an_error(load: Load) -> None:
    with pytest.raises(ModelError) as error:
        load(targets=("q_proj", "c_attn"))
    assert str(error.value) == (
        'no linear layer of the model is called "c_attn"\n'
        "  trainer targets may be: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    )


def test_a_policy_of_other_options_is_an_error(load: Load) -> None:
    start = load(rank=2).start()
    with pytest.raises(ModelError) as error:
        load(rank=4).fleet([start], Optimizer(lr=1e-3))
    assert str(error.value) == (
        "the policy's tensor \"model.layers.0.self_attn.q_proj.lora_A\" is (2, 32), the trainer's is (4, 32)\n"
        "  was it made with other trainer options?"
    )


def test_unknown_options_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        AccelerateTrainer(ranks=4)
