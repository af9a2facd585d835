"""What holds on which device, asked on a CPU."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from soarctl.api import ModelError
from soarctl.spec import ModelSection
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.full_engine import FullEngine
from soarctl.trainers.loaded_model import attend_without_cudnn

Load = Callable[..., AccelerateEngine]


@pytest.fixture
def cudnn() -> Iterator[None]:
    """cuDNN's attention is allowed, and afterwards what it was."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.usefixtures("cudnn")
def test_a_model_on_a_gpu_attends_without_cudnn() -> None:
    attend_without_cudnn(torch.device("cpu"))
    assert torch.backends.cuda.cudnn_sdp_enabled()
    attend_without_cudnn(torch.device("cuda", 0))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_samples_repeat_exactly_in_fp32_and_not_in_16_bit(load: Load, load_full: Callable[..., FullEngine]) -> None:
    assert load().repeats
    assert load_full().repeats
    assert not load(dtype="bfloat16").repeats
    assert not load_full(dtype="bfloat16").repeats


def test_the_weights_of_a_loaded_model_are_hashed_once(load: Load, models: dict[str, Path], tmp_path: Path) -> None:
    place = shutil.copytree(models["llama"], tmp_path / "model")
    engine = load(str(place))
    first = engine.facts
    shutil.rmtree(place)
    assert engine.facts == first


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("visible", ["3", "0,1", "GPU-1a2b"])
def test_a_gpu_that_is_named_and_is_not_there_is_an_error(
    visible: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    source = ModelSection(base=str(models["llama"]))
    with pytest.raises(ModelError) as error:
        AccelerateTrainer().load(source, 0)
    assert str(error.value) == (
        f"CUDA_VISIBLE_DEVICES is '{visible}', but torch finds no such GPU\n"
        "  name a GPU that `nvidia-smi -L` lists, and install a torch that was built for its driver;\n"
        "  or compute on the CPU: `--set trainer.device=cpu`"
    )
    assert AccelerateTrainer(device="cpu").load(source, 0).facts["device"] == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_where_no_gpu_is_asked_for_the_cpu_computes(
    visible: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert AccelerateTrainer().load(ModelSection(base=str(models["llama"])), 0).facts["device"] == "cpu"
