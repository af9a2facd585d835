from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from soarctl.api import Completion, Engine, Fleet, GradedSample, ModelError, Optimizer, Policy, Prompt, Sampling, Stream
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.full_engine import FullEngine
from soarctl.trainers.turns import Turns

LoadFull = Callable[..., FullEngine]
IDS = torch.tensor([[5, 9, 2, 17, 30, 4]])
KL = Optimizer(lr=1e-3, kl=0.05, warmup_steps=2, horizon=9)


def noisy(policy: Policy, seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy({k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def same(one: Policy, other: Policy) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        (one.tensors[name] == tensor).all() for name, tensor in other.tensors.items()
    )


def draw(fleet: Fleet, policy: int, stream: int) -> list[Completion]:
    asked = [Prompt(policy, text, 4, Stream((stream, text))) for text in ("abc", "the cat:")]
    return [completion for group in fleet.sample(asked, Sampling(12)) for completion in group]


def practise(fleet: Fleet, policies: int, step: int) -> list[list[Completion]]:
    """One step on policy 0's samples, which the last policy learns to avoid; the others have no signal."""
    drawn_S = [draw(fleet, s, step) for s in range(policies)]
    signs_S = [1.0, *[0.0] * (policies - 2), -1.0]
    fleet.reinforce(
        [
            [GradedSample(c, sign * (-1) ** i * (1 + i)) for i, c in enumerate(drawn)]
            for sign, drawn in zip(signs_S, drawn_S, strict=False)
        ]
    )
    return drawn_S


def logits(engine: FullEngine, policy: Policy) -> torch.Tensor:
    weights = engine.machinery.weights
    with torch.no_grad(), weights.sampling(weights.rows([policy])):
        forward = engine.machinery.forward
        return forward.head(forward.states(IDS, None))


@pytest.mark.parametrize("base", ["llama", "tied", "gpt_neox"])
def test_the_start_is_every_parameter_of_the_base_model_once(
    base: str, load_full: LoadFull, models: dict[str, Path]
) -> None:
    engine = load_full(base)
    plain = AutoModelForCausalLM.from_pretrained(models[base])
    start = engine.start().tensors
    assert start.keys() == dict(plain.named_parameters()).keys()
    assert ("lm_head.weight" in start) == (base != "tied")
    for name, parameter in plain.named_parameters():
        assert (start[name] == parameter.detach().numpy()).all()
    assert engine.facts["trained_parameters"] == engine.facts["parameters"] == sum(t.size for t in start.values())
    assert torch.equal(logits(engine, engine.start()), plain(IDS).logits)


def test_the_start_cannot_be_written_to(full: Engine) -> None:
    with pytest.raises(ValueError, match="read-only"):
        full.start().tensors["model.norm.weight"][0] = 1


def test_a_policy_in_a_fleet_of_three_takes_exactly_the_steps_it_takes_alone(full: Engine) -> None:
    starts = [noisy(full.start(), s) for s in range(3)]
    three, alone = full.fleet(starts, KL), full.fleet(starts[:1], KL)
    for step in range(4):
        assert practise(three, 3, step)[0] == practise(alone, 1, step)[0]
    assert same(three.snapshot(0), alone.snapshot(0))
    assert not same(three.snapshot(0), starts[0])


def test_lent_weights_are_those_of_now_and_a_snapshot_those_of_then(full: Engine) -> None:
    fleet = full.fleet([noisy(full.start(), 0)], KL)
    [policy] = fleet._policies_S
    lent, then = policy.lent(0), fleet.snapshot(0)
    assert len(lent.tensors) == len(then.tensors)
    assert same(lent, then)
    drawn = draw(fleet, 0, 0)
    fleet.reinforce([[GradedSample(c, (-1.0) ** i) for i, c in enumerate(drawn)]])
    assert same(lent, fleet.snapshot(0))
    assert not same(lent, then)


def test_fleets_that_take_turns_in_one_model_do_what_they_do_in_their_own(load_full: LoadFull) -> None:
    shared, ours, theirs = load_full(), load_full(), load_full()
    teacher, student = (shared.fleet([noisy(shared.start(), s)], KL) for s in range(2))
    own_teacher, own_student = (e.fleet([noisy(e.start(), s)], KL) for s, e in enumerate((ours, theirs)))
    for step in range(3):
        assert practise(teacher, 1, step) == practise(own_teacher, 1, step)
        assert practise(student, 1, step) == practise(own_student, 1, step)
    assert same(teacher.snapshot(0), own_teacher.snapshot(0))
    assert same(student.snapshot(0), own_student.snapshot(0))


def test_one_student_is_in_memory_unless_the_spec_says_more(load_full: LoadFull) -> None:
    assert load_full().width == 1
    assert load_full(width=3).width == 3


@pytest.mark.parametrize("base", ["llama", "tied"])
def test_an_exported_model_is_one_for_transformers(base: str, load_full: LoadFull, tmp_path: Path) -> None:
    engine = load_full(base)
    policy = noisy(engine.start(), 0)
    engine.export(policy, tmp_path / "model", merge=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded(IDS).logits, logits(engine, policy))
    assert AutoTokenizer.from_pretrained(tmp_path / "model").encode("abc") == [2, 3, 4]
    assert "soarctl" not in (tmp_path / "model" / "config.json").read_text()
    assert same(load_full(str(tmp_path / "model")).start(), policy)


def test_a_whole_model_is_not_exported_as_an_adapter(full: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        full.export(full.start(), tmp_path, merge=False)
    assert str(error.value) == (
        "the full trainer's policies are whole models, none is an adapter\n  export it as a full model: --merge"
    )


def test_an_adapter_is_not_a_policy_of_the_full_trainer(full: Engine, adapters: AccelerateEngine) -> None:
    with pytest.raises(ModelError) as error:
        full.fleet([adapters.start()], Optimizer(lr=1e-3))
    assert str(error.value) == (
        'the policy has no tensor "model.embed_tokens.weight"\n  was it made with other trainer options?'
    )


def test_a_state_of_another_number_of_policies_is_refused(full: Engine) -> None:
    state = full.fleet([full.start()] * 2, KL).state()
    with pytest.raises(ModelError) as error:
        full.fleet([full.start()], KL).restore(state)
    assert str(error.value) == (
        "the fleet has 1 policies, the stored one 2\n  was it stored with other trainer options?"
    )


class Numbers:
    """What stands somewhere, and how often it moved."""

    def __init__(self, place: str) -> None:
        self.place, self.moves = place, 0

    def move(self, device: torch.device) -> None:
        self.moves += self.place != device.type
        self.place = device.type


def test_the_numbers_of_one_policy_are_on_the_device_and_those_of_others_wait_in_host_memory() -> None:
    turns, teacher, student = Turns(torch.device("meta")), Numbers("cpu"), Numbers("cpu")
    turns.take(teacher)
    turns.take(student)
    assert (teacher.place, student.place) == ("cpu", "meta")
    turns.take(student)
    turns.take(teacher)
    assert (teacher.place, student.place) == ("meta", "cpu")
    assert (teacher.moves, student.moves) == (3, 2)


def test_where_a_policy_finds_no_room_the_next_one_is_brought_to_the_device() -> None:
    class TooLarge(Numbers):
        def move(self, device: torch.device) -> None:
            raise torch.OutOfMemoryError

    turns, teacher = Turns(torch.device("meta")), Numbers("cpu")
    turns.take(teacher)
    with pytest.raises(torch.OutOfMemoryError):
        turns.take(TooLarge("cpu"))
    assert teacher.place == "cpu"
    turns.take(teacher)
    assert teacher.place == "meta"
