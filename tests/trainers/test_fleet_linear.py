import pytest
import torch
from torch import nn

from soarctl.api import ModelError
from soarctl.trainers.fleet_linear import LowRank, Merged, bound, install


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Linear(6, 4)
        self.down_proj = nn.Linear(4, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.up_proj(x))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("merged", [False, True])
def test_each_part_of_a_batch_gets_its_own_adapter(merged: bool) -> None:
    model = nn.Sequential(Block(), Block())
    x = random(6, 5, 6)
    base = model(x)
    layers = install(model, ["1.up_proj", "down_proj"])
    assert list(layers) == ["0.down_proj", "1.up_proj", "1.down_proj"]
    assert torch.equal(model(x), base)

    A, B = random(3, 2, 4), random(3, 6, 2)
    layer = layers["0.down_proj"]
    adapter = Merged(layer.weight.mT + (B @ A).mT) if merged else LowRank(A, B)
    with bound(layers, {"0.down_proj": adapter}):
        found = model(x)
    for s in range(3):
        rows = model[0].up_proj(x[2 * s : 2 * s + 2])
        expected = model[1](rows @ (layer.weight + B[s] @ A[s]).T)
        assert torch.allclose(found[2 * s : 2 * s + 2], expected, atol=1e-5)
    assert torch.equal(model(x), base)


def test_the_state_dict_keeps_its_names() -> None:
    model = Block()
    names = list(model.state_dict())
    install(model, ["up_proj"])
    assert list(model.state_dict()) == names


def test_a_target_that_names_nothing_is_an_error_with_the_names_there_are() -> None:
    with pytest.raises(ModelError) as error:
        install(nn.Sequential(Block()), ["up_proj", "proj"])
    assert str(error.value) == (
        'no linear layer of the model is called "proj"\n  trainer targets may be: down_proj, up_proj'
    )
