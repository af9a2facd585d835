import numpy as np
import pytest
import torch

from soarctl.api import ModelError, Optimizer
from soarctl.trainers import fleet_optimizer
from soarctl.trainers.fleet_optimizer import FleetAdamW, learning_rate

OPTIONS = Optimizer(lr=0.01, warmup_steps=3, horizon=20, weight_decay=0.1, max_grad_norm=2.0)


def gradients(step: int, policies: int = 3, size: int = 50) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(step).standard_normal((policies, size)).astype(np.float32))


def test_a_policy_takes_the_steps_of_torch_adamw_with_clipping() -> None:
    start = gradients(99)
    fleet = FleetAdamW(start.clone(), OPTIONS)
    alone = torch.nn.Parameter(start[1].clone())
    torch_adamw = torch.optim.AdamW([alone], lr=1.0, weight_decay=0.1)
    for step in range(20):
        norms, moved = fleet.step(gradients(step), np.ones(3, np.bool_))
        assert moved.all()
        alone.grad = gradients(step)[1].clone()
        norm = torch.nn.utils.clip_grad_norm_([alone], 2.0)
        assert norms[1] == pytest.approx(norm.item())
        torch_adamw.param_groups[0]["lr"] = learning_rate(OPTIONS, step)
        torch_adamw.step()
    assert torch.allclose(fleet.weights_S_P[1], alone, rtol=0, atol=1e-6)


def test_a_policy_without_signal_keeps_every_bit_but_its_schedule_goes_on() -> None:
    fleet, start = FleetAdamW(gradients(99), OPTIONS), gradients(99)
    fleet.step(gradients(0), np.array([True, False, True]))
    state = fleet.state()
    assert (state["weights"][1] == start[1].numpy()).all()
    assert not state["mean"][1].any()
    assert not state["square"][1].any()
    assert state["updates"].tolist() == [1, 0, 1]
    fleet.step(gradients(1), np.array([False, True, False]))
    # Its first update, so Adam moves by the learning rate; the second call, so that is the rate of call 1.
    moved = fleet.weights_S_P[1] - start[1] * (1 - 0.1 * learning_rate(OPTIONS, 1))
    assert moved.abs().max().item() == pytest.approx(learning_rate(OPTIONS, 1), rel=1e-3)
    assert (fleet.state()["weights"][0] == state["weights"][0]).all()


def test_the_norm_of_many_numbers_is_right() -> None:
    # Summed one after the other in fp32 it would come out as 4.055.
    norms, _ = FleetAdamW(torch.zeros(1, 2**24), OPTIONS).step(torch.full((1, 2**24), 1e-3), np.ones(1, np.bool_))
    assert norms[0] == pytest.approx(4.096, rel=1e-4)


def test_a_step_in_parts_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = FleetAdamW(gradients(99), OPTIONS), FleetAdamW(gradients(99), OPTIONS)
    for step, signal in enumerate(([True] * 3, [True, False, True])):
        whole.step(gradients(step), np.array(signal))
        with monkeypatch.context() as patch:
            patch.setattr(fleet_optimizer, "NUMBERS", 3 * 16)  # parts of 16, 16, 16 and 2 numbers
            parts.step(gradients(step), np.array(signal))
    for name, tensor in whole.state().items():
        assert np.allclose(parts.state()[name], tensor, rtol=0, atol=1e-7)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    fleet, start = FleetAdamW(gradients(99), OPTIONS), gradients(99)
    broken = gradients(0)
    broken[2, 7] = torch.nan
    _, moved = fleet.step(broken, np.ones(3, np.bool_))
    assert moved.tolist() == [True, True, False]
    assert (fleet.weights_S_P[2] == start[2]).all()


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    assert [learning_rate(Optimizer(lr=1.0, warmup_steps=4), call) for call in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [learning_rate(Optimizer(lr=1.0, horizon=4), call) for call in (0, 2, 4, 9)] == pytest.approx([1, 0.5, 0, 0])
    assert learning_rate(Optimizer(lr=1.0), 1000) == 1.0


def test_a_state_of_another_fleet_is_refused() -> None:
    fleet = FleetAdamW(gradients(0), OPTIONS)
    with pytest.raises(ModelError) as error:
        fleet.restore(FleetAdamW(gradients(0, policies=2), OPTIONS).state())
    assert str(error.value) == (
        'the fleet\'s "weights" is (3, 50), the stored one (2, 50)\n'
        "  was it stored with another number of policies or other trainer options?"
    )


def test_numbers_move_to_another_device_together_or_not_at_all() -> None:
    class Roomless(torch.Tensor):
        """Of three, the last finds no room."""

        asked = 0

        def to(self, *args: object, **kwargs: object) -> torch.Tensor:
            Roomless.asked += 1
            if Roomless.asked == 3:
                raise torch.OutOfMemoryError
            return super().to(*args, **kwargs)  # pyright: ignore[reportCallIssue, reportArgumentType]

    fleet = FleetAdamW(gradients(99).as_subclass(Roomless), OPTIONS)
    with pytest.raises(torch.OutOfMemoryError):
        fleet.move(torch.device("meta"))
    assert {state.device.type for state in (fleet.weights_S_P, fleet._mean_S_P, fleet._square_S_P)} == {"cpu"}
    fleet.move(torch.device("meta"))
    assert {state.device.type for state in (fleet.weights_S_P, fleet._mean_S_P, fleet._square_S_P)} == {"meta"}
