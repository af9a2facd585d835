"""Planted defects of rewards and trainers are caught, with messages that name them; ours have none."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import pytest

from soarctl.api import (
    Completion,
    Engine,
    Fleet,
    GradedSample,
    ModelError,
    ModelSource,
    Optimizer,
    Policy,
    Problem,
    Prompt,
    Reward,
    RewardContext,
    Sampling,
    Scores,
    StepStats,
    Tensors,
    Trainer,
)
from soarctl.plugins import load
from soarctl.testing import ContractError, ToyEngine, ToyFleet, ToyTrainer, check_reward, check_trainer

PROMPTS = ["write", "3 #3", "4 3 #1"]


@pytest.mark.parametrize("name", ["grounded", "learnability"])
def test_our_own_rewards_pass(name: str) -> None:
    check_reward(load(Reward, name, {}))


class Gain(Reward):
    """Nothing is wrong with it."""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        students_G_R = context.practise(datasets_G, 2, context.draw_hard(4), 0)
        return Scores([fmean(s.gain for s in students_R) for students_R in students_G_R], students_G_R)


class OneTooFew(Gain):
    """3 rewards for 4 datasets"""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        return Scores(super().score(datasets_G, context).rewards_G[:-1])


class Guesses(Gain):
    """the same datasets got"""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        return Scores([random.SystemRandom().random() for _ in datasets_G])


class PaysByPlace(Gain):
    """in the order (2, 0, 3, 1) the rewards"""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        return Scores([float(k) for k in range(len(datasets_G))])


class DividesByTheSpread(Gain):
    """Where no student gains anything, as at the start of every run, rewards are finite still."""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        rewards_G = super().score(datasets_G, context).rewards_G
        return Scores([r / (max(rewards_G) - min(rewards_G)) for r in rewards_G])


class StudentsOfOthers(Gain):
    """practised another one"""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        scores = super().score(datasets_G, context)
        assert scores.students_G_R
        return Scores(scores.rewards_G, scores.students_G_R[::-1])


class EatsDatasets(Gain):
    """a dataset is another one after it was scored"""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        scores = super().score(datasets_G, context)
        for dataset in datasets_G:
            if isinstance(dataset, list):
                dataset.clear()
        return scores


REWARD_DEFECTS = [OneTooFew, Guesses, PaysByPlace, DividesByTheSpread, StudentsOfOthers, EatsDatasets]


def test_a_reward_without_defects_passes() -> None:
    check_reward(Gain())


@pytest.mark.parametrize("defect", REWARD_DEFECTS, ids=lambda defect: defect.__name__)
def test_a_planted_defect_of_a_reward_is_caught_and_named(defect: type[Reward]) -> None:
    with pytest.raises(ContractError, match=re.escape(str(defect.__doc__))):
        check_reward(defect())


def test_the_toy_trainer_passes() -> None:
    check_trainer(ToyTrainer(), "toy", PROMPTS, lr=1.0)


@pytest.mark.slow
def test_our_own_trainers_pass(tmp_path: Path) -> None:
    prompts = ["ask:", "solve: CAT | up ="]
    accelerate = load(Trainer, "accelerate", {"width": 2, "rank": 4})
    check_trainer(accelerate, "package:soarctl_letters/model", prompts, max_new_tokens=8)
    check_trainer(load(Trainer, "full", {"width": 2}), "package:soarctl_letters/model", prompts, max_new_tokens=8)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"prompt": "ask:", "completion": " {n} = {n}"}}\n' for n in range(100)))
    tiny = load(Trainer, "tiny", {"texts": str(texts), "updates": 40})
    check_trainer(tiny, str(tmp_path / "model"), ["ask:", "1"], max_new_tokens=8)


class Wrapped(Fleet):
    """A toy fleet that a defect changes in one place."""

    def __init__(self, starts_S: Sequence[Policy], lr: float) -> None:
        self.inner = ToyFleet(starts_S, lr)
        self.lr = lr

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return self.inner.sample(prompts, sampling)

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        return self.inner.reinforce(samples_S)

    def snapshot(self, policy: int) -> Policy:
        return self.inner.snapshot(policy)

    def state(self) -> Tensors:
        return self.inner.state()

    def restore(self, state: Tensors) -> None:
        self.inner.restore(state)


class Drifts(Wrapped):
    """zero advantage moves the weights"""

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        stats = super().reinforce(samples_S)
        state = {name: tensor + 0.01 for name, tensor in super().state().items()}
        super().restore(state)
        return stats


class Unlearns(Wrapped):
    """What has a positive advantage becomes more likely."""

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        return super().reinforce([[GradedSample(s.completion, -s.advantage) for s in samples] for samples in samples_S])


class Leaks(Wrapped):
    """do updates leak between policies?"""

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        first = next((samples for samples in samples_S if samples), [])
        return super().reinforce([[*samples, *first] if samples else samples for samples in samples_S])


class WanderingSamples(Wrapped):
    """the same prompts gave other samples the second time"""

    drawn = 0

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        WanderingSamples.drawn += 1
        moved = [Prompt(p.policy, p.text, p.samples, p.stream.child(WanderingSamples.drawn)) for p in prompts]
        return super().sample(moved, sampling)


class SamplesByPlace(Wrapped):
    """samples depend on the other prompts of the call"""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        moved = [Prompt(p.policy, p.text, p.samples, p.stream.child(i)) for i, p in enumerate(prompts)]
        return super().sample(moved, sampling)


class SamplesByCount(Wrapped):
    """sample k depends on how many samples are asked for"""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [group[::-1] for group in super().sample(prompts, sampling)]


class StartsAnew(Wrapped):
    """a prompt whose `first` sample is the second one does not give the samples from the second one on"""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return super().sample([replace(prompt, first=0) for prompt in prompts], sampling)


class LosesAPart(Wrapped):
    """the parts of a gradient do not add up to the update of `reinforce`, bit for bit"""

    def parts(self, samples_S: Sequence[Sequence[GradedSample]]) -> int:
        return self.inner.parts(samples_S)

    def gradient(self, samples_S: Sequence[Sequence[GradedSample]], part: int) -> Tensors:
        return self.inner.gradient(samples_S, part)

    def step(self, samples_S: Sequence[Sequence[GradedSample]], gradients: Sequence[Tensors]) -> list[StepStats]:
        return self.inner.step(samples_S, gradients[1:])


class WarmGreedy(Wrapped):
    """greedy samples of one prompt differ"""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return super().sample(prompts, Sampling(sampling.max_new_tokens, stop=sampling.stop))


class KeepsStops(Wrapped):
    """holds the stop string"""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return super().sample(prompts, Sampling(sampling.max_new_tokens, sampling.temperature))


class Window(Wrapped):
    """a snapshot changed when its fleet learned"""

    def snapshot(self, policy: int) -> Policy:
        live = self.inner._policies[policy]
        for name in live:
            live[name] = live[name].copy()
        return Policy(live)


class ForgetsMoments(Wrapped):
    """does the state lack the optimizer's moments?"""

    def __init__(self, starts_S: Sequence[Policy], lr: float) -> None:
        super().__init__(starts_S, lr)
        self.momentum = 0.0

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        self.inner._lr = self.lr * (1 + self.momentum)
        if any(s.advantage for samples in samples_S for s in samples):
            self.momentum += 0.5
        return super().reinforce(samples_S)


FLEET_DEFECTS = [
    Drifts,
    Unlearns,
    Leaks,
    WanderingSamples,
    SamplesByPlace,
    SamplesByCount,
    StartsAnew,
    LosesAPart,
    WarmGreedy,
    KeepsStops,
    Window,
    ForgetsMoments,
]
_FLEETS: dict[str, type[Wrapped]] = {fleet.__name__: fleet for fleet in FLEET_DEFECTS}


class DefectTrainer(Trainer):
    """A toy trainer with the fleet that its option names."""

    fleet: str

    def load(self, model: ModelSource, seed: int) -> Engine:
        return DefectEngine(self.fleet)


class DefectEngine(ToyEngine):
    def __init__(self, fleet: str) -> None:
        super().__init__(4, (0.9, 0.9, 0.9, 0.3, 0.3))
        self._defect = _FLEETS[fleet]

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Any:
        return self._defect(starts_S, optimizer.lr)


@pytest.mark.parametrize("defect", FLEET_DEFECTS, ids=lambda defect: defect.__name__)
def test_a_planted_defect_of_a_fleet_is_caught_and_named(defect: type[Wrapped]) -> None:
    with pytest.raises(ContractError, match=re.escape(str(defect.__doc__))):
        check_trainer(DefectTrainer(fleet=defect.__name__), "toy", PROMPTS, lr=1.0)


class NoTwoStarts(ToyTrainer):
    """loaded twice with one seed, the policies that it starts from differ"""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return ToyEngine(4, tuple(random.SystemRandom().uniform(0.2, 0.8) for _ in range(5)))


class Nameless(ToyTrainer):
    """facts have no `weights_sha256`"""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return NamelessEngine(self.side_by_side, self.can)


class NamelessEngine(ToyEngine):
    @property
    def facts(self) -> Mapping[str, Any]:
        return {"base": "toy"}


class Overstates(ToyTrainer):
    """policies are said to be all weights"""

    trains_all_weights: ClassVar[bool] = True


class AdaptersOnly(ToyTrainer):
    """export with merge=True is refused: adapters only"""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return AdaptersOnlyEngine(self.side_by_side, self.can)


class AdaptersOnlyEngine(ToyEngine):
    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        if merge:
            raise ModelError("adapters only")
        super().export(policy, directory, merge=merge)


class FindsNothing(ToyTrainer):
    """find raised ModelError: model.base: not here"""

    def find(self, model: ModelSource) -> None:
        raise ModelError("not here", at="model.base")


class WholeModels(ToyTrainer):
    """A trainer without adapters."""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return WholeModelsEngine(self.side_by_side, self.can)


class WholeModelsEngine(ToyEngine):
    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        if not merge:
            raise ModelError("whole models only")
        super().export(policy, directory, merge=merge)


def test_a_trainer_may_refuse_to_export_adapters() -> None:
    check_trainer(WholeModels(), "toy", PROMPTS, lr=1.0)


@pytest.mark.parametrize(
    "defect", [NoTwoStarts, Nameless, Overstates, AdaptersOnly, FindsNothing], ids=lambda defect: defect.__name__
)
def test_a_planted_defect_of_an_engine_is_caught_and_named(defect: type[ToyTrainer]) -> None:
    with pytest.raises(ContractError, match=re.escape(str(defect.__doc__))):
        check_trainer(defect(), "toy", PROMPTS, lr=1.0)


def test_a_state_is_a_mapping_of_arrays() -> None:
    state = ToyTrainer().load(None, 0).fleet([ToyEngine(1, [0.5] * 5).start()], Optimizer(lr=1.0)).state()  # type: ignore[arg-type]
    assert all(isinstance(tensor, np.ndarray) for tensor in state.values())
