"""A world small enough to run the whole method in milliseconds: for tests of the framework and of plug-ins.

`ToyDomain` poses sums of skills; `ToyTrainer` has policies of ten numbers in place of a language model: how often each
of five skills succeeds, and how often the policy writes about it. Everything else is the real thing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save_file

from soarctl.api import (
    Completion,
    Domain,
    Engine,
    Fleet,
    GradedSample,
    ModelSource,
    Optimizer,
    Outcome,
    Policy,
    Problem,
    Prompt,
    Rejection,
    Reward,
    Sampling,
    StepStats,
    Tensors,
    Trainer,
    Verdict,
)

if TYPE_CHECKING:
    from soarctl.spec_reader import LoadedSpec

SKILLS = 5
_MALFORMED = SKILLS
_PART = 4  # samples
_WRITTEN = re.compile(rf"[0-{SKILLS - 1}] #[0-9]{{1,4}}")


class ToyDomain(Domain):
    """Problems name skills, such as `3 4 4`; the answer is their sum, given only when every skill succeeds."""

    lengths: tuple[int, ...] = (3, 4)
    """Skills per candidate problem."""
    each: int = 20
    """Candidate problems of each length."""
    numbers: int = Field(default=10_000, ge=1)
    """The number in a practice question counts modulo this. With 1 equal skills are equal questions."""

    def load(self) -> Sequence[Problem]:
        return [
            self._problem([3 + (number >> place) % 2 for place in range(length)], number)
            for length in self.lengths
            for number in range(self.each)
        ]

    def teacher_prompt(self) -> str:
        return "write"

    def student_prompt(self, question: str) -> str:
        return question

    def parse(self, completion: str) -> Problem | Rejection:
        skill, _, number = completion.partition(" #")
        if not _WRITTEN.fullmatch(completion):
            return Rejection("no skill", completion)
        return self._problem([int(skill)], int(number) % self.numbers)

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [
            Verdict(Outcome.CORRECT, 1.0)
            if completion == problem.answer
            else Verdict(Outcome.WRONG, 0.0, "not the sum")
            for problem, completion in attempts
        ]

    def solve(self, question: str) -> str | None:
        return str(sum(int(skill) for skill in question.partition(" #")[0].split()))

    def measure(self, problem: Problem) -> Mapping[str, float]:
        return {"skill": float(problem.question[0])}

    def _problem(self, skills: Sequence[int], number: int) -> Problem:
        return Problem(f"{' '.join(map(str, skills))} #{number}", str(sum(skills)))


class ToyTrainer(Trainer):
    """Policies of ten numbers, updated by plain gradient ascent on the RLOO objective."""

    side_by_side: int = Field(default=4, ge=1)
    """Students per fleet."""
    share: int = Field(default=16, ge=1)
    """Sequences sampled in one piece when several processes share the work."""
    can: tuple[float, ...] = (0.9, 0.9, 0.9, 0.3, 0.3)
    """How often the base model succeeds at each skill."""

    def load(self, model: ModelSource, seed: int) -> Engine:
        return ToyEngine(self.side_by_side, self.can, self.share)


class ToyEngine(Engine):
    def __init__(self, width: int, can: Sequence[float], share: int = 16) -> None:
        self._width = width
        self._share = share
        self._can = np.array(can)

    @property
    def width(self) -> int:
        return self._width

    @property
    def share(self) -> int:
        return self._share

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"base": "toy", "weights_sha256": "toy"}

    def start(self) -> Policy:
        # A sixth thing to write about is nothing at all: a completion that the format filter rejects.
        return Policy({"solve": np.log(self._can / (1 - self._can)), "write": np.zeros(SKILLS + 1)})

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> "ToyFleet":
        return ToyFleet(starts_S, optimizer.lr)

    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        save_file(dict(policy.tensors), directory / "policy.safetensors")


class ToyFleet(Fleet):
    def __init__(self, starts_S: Sequence[Policy], lr: float) -> None:
        self._policies = [{name: tensor.copy() for name, tensor in start.tensors.items()} for start in starts_S]
        self._lr = lr

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [
            [
                _stopped((self._write if prompt.text == "write" else self._solve)(prompt, uniforms, sampling), sampling)
                for uniforms in prompt.stream.uniforms(prompt.first + prompt.samples, 8)[prompt.first :]
            ]
            for prompt in prompts
        ]

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        return self.step(samples_S, [self.gradient(samples_S, part) for part in range(self.parts(samples_S))])

    def parts(self, samples_S: Sequence[Sequence[GradedSample]]) -> int:
        return max((ceil(len(samples) / _PART) for samples in samples_S), default=0)

    def gradient(self, samples_S: Sequence[Sequence[GradedSample]], part: int) -> Tensors:
        return {
            f"{s}.{name}": tensor
            for s, (policy, samples) in enumerate(zip(self._policies, samples_S, strict=True))
            for name, tensor in _gradient(policy, samples[part * _PART : (part + 1) * _PART], len(samples)).items()
        }

    def step(self, samples_S: Sequence[Sequence[GradedSample]], gradients: Sequence[Tensors]) -> list[StepStats]:
        stats_S: list[StepStats] = []
        for s, (policy, samples) in enumerate(zip(self._policies, samples_S, strict=True)):
            if all(sample.advantage == 0 for sample in samples):
                stats_S.append(StepStats(stepped=False))
                continue
            total = {name: np.sum([gradient[f"{s}.{name}"] for gradient in gradients], axis=0) for name in policy}
            for name, gradient in total.items():
                policy[name] = policy[name] + self._lr * gradient
            norm = float(np.sqrt(sum((gradient**2).sum() for gradient in total.values())))
            stats_S.append(StepStats(stepped=True, grad_norm=norm))
        return stats_S

    def snapshot(self, policy: int) -> Policy:
        return Policy({name: tensor.copy() for name, tensor in self._policies[policy].items()})

    def state(self) -> Tensors:
        return {f"{s}.{name}": t.copy() for s, policy in enumerate(self._policies) for name, t in policy.items()}

    def restore(self, state: Tensors) -> None:
        for s, policy in enumerate(self._policies):
            for name in policy:
                policy[name] = state[f"{s}.{name}"].copy()

    def _write(self, prompt: Prompt, uniforms: NDArray[np.float64], sampling: Sampling) -> Completion:
        chances = _softmax(self._policies[prompt.policy]["write"])
        topic = min(int(np.searchsorted(np.cumsum(chances), uniforms[0])), _MALFORMED)
        number = int(uniforms[1] * 1000)
        if not sampling.temperature:
            topic, number = int(np.argmax(chances)), 0
        text = "nothing" if topic == _MALFORMED else f"{topic} #{number}"
        return Completion(text, (), (topic,), (float(np.log(chances[topic])),), "eos")

    def _solve(self, prompt: Prompt, uniforms: NDArray[np.float64], sampling: Sampling) -> Completion:
        skills = [int(skill) for skill in prompt.text.partition(" #")[0].split()]
        chances = 1 / (1 + np.exp(-self._policies[prompt.policy]["solve"][skills]))
        hits = chances > (uniforms[: len(skills)] if sampling.temperature else 0.5)
        answer = str(sum(skills)) if hits.all() else "?"
        logprobs = np.log(np.where(hits, chances, 1 - chances))
        return Completion(answer, tuple(skills), tuple(map(int, hits)), tuple(map(float, logprobs)), "eos")


def _gradient(
    policy: Mapping[str, NDArray[Any]], samples: Sequence[GradedSample], count: int
) -> dict[str, NDArray[Any]]:
    """Of the mean over `count` samples, what these add."""
    gradients = {name: np.zeros_like(tensor) for name, tensor in policy.items()}
    for sample in samples:
        completion = sample.completion
        if completion.prompt_ids:
            chances = 1 / (1 + np.exp(-policy["solve"]))
            for skill, hit in zip(completion.prompt_ids, completion.token_ids, strict=True):
                gradients["solve"][skill] += sample.advantage * (hit - chances[skill]) / count
        else:
            score = -_softmax(policy["write"])
            score[completion.token_ids[0]] += 1
            gradients["write"] += sample.advantage * score / count
    return gradients


def _stopped(completion: Completion, sampling: Sampling) -> Completion:
    """The completion up to the first stop string."""
    ends = [at for stop in sampling.stop if (at := completion.text.find(stop)) >= 0]
    return replace(completion, text=completion.text[: min(ends)], finish="stop") if ends else completion


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def toy_run(**sections: Any) -> "LoadedSpec":
    """A run of the toy world, promotions included, in a fraction of a second; `sections` change its spec."""
    from soarctl import plugins
    from soarctl.spec import Spec
    from soarctl.spec_reader import LoadedSpec

    values: dict[str, Any] = {
        "name": "toy",
        "seed": 0,
        "model": {"base": "toy"},
        "domain": {"plugin": "toy"},
        "reward": {"plugin": "grounded", "questions": 10, "repeats": 3, "samples": 8},
        "trainer": {"plugin": "toy"},
        "filter": {"samples": 4},
        "outer": {"steps": 6},
        "teacher": {"group_size": 2, "dataset_size": 4, "lr": 1.0},
        "inner": {"steps": 6, "per_promotion": 0, "batch_size": 2, "group_size": 8, "lr": 2.0},
        "promotion": {"tau": 0.02, "window": 2},
        "evaluation": {"samples": 16, "k": [1, 4]},
        "checkpoints": {"every": 3},
    }
    for section, changed in sections.items():
        # As in a spec: another plug-in drops the options of the old one.
        other = isinstance(changed, dict) and changed.get("plugin", "") not in (
            "",
            values.get(section, {}).get("plugin"),
        )
        values[section] = values.get(section, {}) | changed if isinstance(changed, dict) and not other else changed
    spec = Spec.model_validate(values)
    reward = plugins.load(Reward, spec.reward.plugin, spec.reward.options)
    return LoadedSpec(
        spec, ToyDomain(**spec.domain.options), reward, ToyTrainer(**spec.trainer.options), ("toy",), (), {}
    )
