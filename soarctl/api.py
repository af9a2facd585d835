"""Domain, Reward, Trainer, Sampler and the values they exchange: all that a plug-in may import from soarctl.

A plug-in is a frozen pydantic class whose fields are its options in the YAML, registered as an entry point in one of
the groups `soarctl.domains`, `soarctl.rewards`, `soarctl.trainers`, `soarctl.samplers`. Constructing one is cheap; the
methods do the work.

Axes in names: `G` datasets of a step, `N` questions of a dataset, `R` repeats (students of a dataset), `K` samples of a
problem, `S` policies of a fleet, `B` sequences, `T` tokens.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from soarctl.errors import DataError, ModelError, PluginError, SamplerError, SoarError
from soarctl.streams import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AdapterShape",
    "Completion",
    "Continuation",
    "DataError",
    "Domain",
    "Engine",
    "Finding",
    "Fleet",
    "GradedSample",
    "InferenceEngine",
    "ModelError",
    "Optimizer",
    "Outcome",
    "Plugin",
    "PluginError",
    "Policy",
    "Problem",
    "Prompt",
    "Rejection",
    "Request",
    "Reward",
    "RewardContext",
    "Sampler",
    "SamplerError",
    "Sampling",
    "Scores",
    "Served",
    "SoarError",
    "Split",
    "StepStats",
    "Stream",
    "Student",
    "Trainer",
    "Verdict",
    "problem_id",
]

Tensors = Mapping[str, "NDArray[Any]"]


def problem_id(question: str) -> str:
    """A stable id: the first 16 hex digits of the SHA-256 of the question with its white space normalised."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with the answer it is graded against: a hard problem, or a practice question of the teacher."""

    question: str
    answer: str
    """What a completion is compared with. A practice question's answer is the teacher's own and may be wrong."""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the domain wants to keep with it: subject, level, tests. Plain JSON values."""

    @property
    def id(self) -> str:
        return problem_id(self.question)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a teacher completion is not a practice question."""

    rule: str
    """A short fixed name; the ledger counts rejections by it."""
    detail: str = ""


class Outcome(StrEnum):
    """What a grader found. Only CORRECT counts as solved; the others are told apart because they are counted."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INVALID = "invalid"
    """The problem itself is at fault: its tests or its answer. The filter never takes such a problem for hard."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one completion."""

    outcome: Outcome
    reward: float
    """The student's training reward: the domain's tier for this completion (SOAR B.3), on its raw scale."""
    reason: str = ""
    """By which rule: shown to people and counted in the ledger."""
    answer: str | None = None
    """The answer that was read from the completion, where there is one."""

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing on this machine that was looked at."""

    what: str
    found: str
    problem: str | None = None
    """What is wrong with it; None where nothing is."""


@dataclass(frozen=True, slots=True)
class Split:
    """Hard problems, halved: the run learns from `train`; `test` is kept for the closing measurement."""

    train: Sequence[Problem]
    test: Sequence[Problem]


class Plugin(BaseModel):
    """Base of all plug-ins: unknown options are errors, and a loaded plug-in never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def train_size(hard: int, train_fraction: float) -> int:
    """How many of the hard problems are to learn from. The odd one is held out: the paper's 719 are 359 and 360."""
    # 100 * 0.29 as a float is a little less than 29.
    return floor(hard * train_fraction + 1e-9)


class Domain(Plugin, ABC):
    """A world with a verifier: problems, how to ask for and about them, and how to judge an answer."""

    @abstractmethod
    def load(self) -> Sequence[Problem]:
        """All candidate problems, before the fail@k filter; the same ones, with unique ids, at every call.

        Raises:
            DataError: a file is missing, unreadable, or holds no usable problem.
        """

    def files(self) -> Mapping[str, str]:
        """Local files and folders that `load` reads, by the option that names each. May be overridden.

        `{"data[0].path": "MATH/test"}`. They are looked for before a run begins, and by `soarctl validate`.
        """
        return {}

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        """The hard problems in two disjoint halves, the same whatever their order.

        May be overridden where problems must stay together (all variants of one problem in one half, say).
        """
        place = {p.id: Stream(("split", seed, p.id)).uniforms(1)[0] for p in problems}
        ordered = sorted(problems, key=lambda p: (place[p.id], p.id))
        cut = train_size(len(ordered), train_fraction)
        return Split(train=ordered[:cut], test=ordered[cut:])

    @abstractmethod
    def teacher_prompt(self) -> str:
        """The one fixed prompt that the teacher writes practice questions for, at every step."""

    @abstractmethod
    def student_prompt(self, question: str) -> str:
        """The prompt for solving a question: in the filter, in practice and in evaluation alike."""

    @abstractmethod
    def parse(self, completion: str) -> Problem | Rejection:
        """The practice question in a teacher completion, or the rule by which it is rejected.

        Model output is untrusted: whatever the text, this returns, and quickly.
        """

    @abstractmethod
    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """One verdict for each (problem, completion), in order.

        Thousands arrive together; how processes are used is the domain's matter. A verdict depends on its own pair
        only. Neither side is trusted: answers of practice questions are model output too. What cannot be judged is a
        verdict with its outcome and reason, never an exception and never a hang.
        """

    def is_hard(self, successes: int, samples: int) -> bool:
        """Whether a problem with this many correct samples passes the fail@k filter.

        May be overridden. A domain that says otherwise for `successes > 0` has all its samples drawn; by
        default the filter stops sampling a problem at its first success.
        """
        # 0 of 128 is not never: a success rate of 3/128 passes this filter one time in twenty.
        return successes == 0

    def teacher_stops(self) -> Sequence[str]:
        """Strings that end a teacher completion, beside the end-of-sequence token. May be overridden."""
        return ()

    def student_stops(self) -> Sequence[str]:
        """Strings that end a student completion, beside the end-of-sequence token. May be overridden."""
        return ()

    def solve(self, question: str) -> str | None:
        """The true answer to a practice question, where the domain can compute one. May be overridden.

        For people only (`promote --inspect`, reports): nothing in the method may use it.
        """
        return None

    def facts(self) -> Mapping[str, Any]:
        """What a run's header and ledger should say about the domain: the tier of a sandbox, say. May be overridden.

        Asked once, before the first attempt is graded.
        """
        return {}

    def checks(self) -> Sequence[Finding]:
        """What the domain, with its options, finds or lacks on this machine: for `soarctl doctor`. May be overridden.

        Takes seconds at most and needs no data. A problem is what keeps the domain from working, not what could be
        better.
        """
        return ()

    def measure(self, problem: Problem) -> Mapping[str, float]:
        """Numbers about a practice question that are worth following over a run. May be overridden.

        For people only, as `solve`.
        """
        return {}


@dataclass(frozen=True, slots=True)
class Policy:
    """The weights of one policy, detached from any fleet: what is checkpointed, promoted and exported."""

    tensors: Tensors
    """By name; adapters of the base model, or all weights, as the trainer decides."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request for `samples` completions of `text` from policy `policy` of a fleet."""

    policy: int
    text: str
    samples: int
    stream: Stream
    """Decides the samples, if the engine `repeats`: sample k is the same whatever `samples` is and whatever else is
    asked for. Otherwise it does so as far as the sampler can."""
    first: int = 0
    """Number of the first sample: a share of a larger request starts with a later one."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled text, with what is needed to train on it."""

    text: str
    """Without the end-of-sequence token and without the stop string and what follows it."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """All that was sampled, the end-of-sequence token or stop string included."""
    logprobs: tuple[float, ...]
    """Of `token_ids`, under the distribution they were sampled from."""
    finish: Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class GradedSample:
    """A completion with its advantage: the unit of reinforcement."""

    completion: Completion
    advantage: float


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How a policy is updated: AdamW on the RLOO gradient with a KL term. Table 3 and rows 3-13."""

    lr: float
    warmup_steps: int = 0
    horizon: int = 0
    """Steps over which the learning rate falls to zero as a cosine; 0 keeps it constant."""
    kl: float = 0.0
    """Coefficient of the k3 estimate of KL(policy || base model), per token, in the loss, on the raw reward scale."""
    aggregation: Literal["sum", "seq_mean"] = "sum"
    """Log-probs of a completion's tokens are summed, or averaged; then averaged over completions."""
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    temperature: float = 1.0
    """The sampling temperature: log-probs are those of the distribution that was sampled."""


@dataclass(frozen=True, slots=True)
class StepStats:
    """One policy's part of an update."""

    stepped: bool
    """False where nothing was to be learned: no advantage differed from zero and there was no KL term."""
    grad_norm: float = 0.0
    """Before clipping."""
    kl: float = 0.0
    """Mean k3 per token; 0 where it was not computed."""
    logprob_gap: float = 0.0
    """Mean absolute difference between sampler and trainer log-probs of the trained tokens."""
    tokens: int = 0
    """Completion tokens trained on."""


class Fleet(ABC):
    """S policies that sample and learn side by side, each exactly as it would alone."""

    @abstractmethod
    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order."""

    @abstractmethod
    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        """One optimizer step per policy on its own samples; a policy without signal is left untouched."""

    def parts(self, samples_S: Sequence[Sequence[GradedSample]]) -> int:
        """In how many parts, which several processes may share, the gradient of `reinforce` is worked out.

        A function of the spec and the samples. May be overridden, together with `gradient` and `step`: the gradients
        of all parts, given to `step` in order, do bit for bit what `reinforce` does. By default one part.
        """
        return 1

    def gradient(self, samples_S: Sequence[Sequence[GradedSample]], part: int) -> Tensors:
        """What part `part` of the samples adds to the gradient. Changes nothing. Overridden where `parts` is."""
        raise NotImplementedError(f"{type(self).__name__} works out gradients in one part")

    def step(self, samples_S: Sequence[Sequence[GradedSample]], gradients: Sequence[Tensors]) -> list[StepStats]:
        """The optimizer step of `reinforce` from the gradients of all parts. Overridden where `parts` is."""
        raise NotImplementedError(f"{type(self).__name__} works out gradients in one part")

    @abstractmethod
    def snapshot(self, policy: int) -> Policy:
        """A copy of one policy's weights."""

    @abstractmethod
    def state(self) -> Tensors:
        """Everything that a fleet of the same starts and optimizer needs to go on from here: weights and moments."""

    @abstractmethod
    def restore(self, state: Tensors) -> None:
        """Takes up a `state`; afterwards the fleet goes on bit for bit as the one it came from."""


class Engine(ABC):
    """A loaded base model with everything that samples from and trains on it."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many students to train side by side. A function of the spec alone, never of the machine."""

    @property
    def share(self) -> int:
        """How many sequences to sample in one piece when several processes share the work: about as many as a device
        samples at once. A function of the spec alone. May be overridden."""
        return 4096

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """What a ledger should say about model and device: id, hash, parameters, dtype, library versions."""

    @property
    def repeats(self) -> bool:
        """Whether samples depend on their streams alone, so that what was interrupted is repeated exactly.

        May be overridden.
        """
        return True

    @abstractmethod
    def start(self) -> Policy:
        """The base model as a policy: what teacher and first baseline start from."""

    @abstractmethod
    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Fleet:
        """A fleet whose policies start from the given weights, each with fresh optimizer state."""

    @abstractmethod
    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        """Writes a policy so that other libraries load it: an adapter, or with `merge` a full model.

        Raises:
            ModelError: an adapter is asked for, and the trainer's policies are not adapters.
        """


class ModelSource(Protocol):
    """Which base model: a spec's `model` section."""

    @property
    def base(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def chat_template(self) -> bool: ...
    @property
    def trust_remote_code(self) -> bool: ...


class Trainer(Plugin, ABC):
    """How policies are represented, sampled and updated."""

    trains_all_weights: ClassVar[bool] = False
    """Whether a policy is every weight of the model, and not a few beside it. Plans of memory and time go by it."""

    def find(self, model: ModelSource) -> None:
        """Looks whether what `load` needs is there, as far as that takes no time. May be overridden; imports no torch.

        Asked before a run begins, and by `soarctl validate`.

        Raises:
            SoarError: it is not; `at` is the key of the spec that is wrong: `model.base`, say.
        """

    @abstractmethod
    def load(self, model: ModelSource, seed: int) -> Engine:
        """Loads the base model.

        Args:
            model: which one.
            seed: of the run; decides the starting weights of adapters.

        Raises:
            ModelError: it cannot be loaded, or the trainer cannot work with it.
        """


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What the LoRA adapters of a trainer have in common: y = W x + alpha / rank * B A x."""

    rank: int
    alpha: float
    layers: tuple[str, ...]
    """Names of the linear layers, as in the model; a policy holds `<layer>.lora_A` and `<layer>.lora_B` of each."""


@dataclass(frozen=True, slots=True)
class Served:
    """A trainer's base model and policies, as an inference engine needs to know them."""

    directory: Path
    """Configuration, weights as safetensors, and tokenizer."""
    trust_remote_code: bool
    dtype: str
    """Of the weights that compute: "float32", "bfloat16" or "float16"."""
    device: str
    """Type of the trainer's device: "cpu", "cuda"."""
    max_length: int
    """Positions that the model has."""
    eos_ids: tuple[int, ...]
    """Tokens that end a sample; it contains the one that ended it."""
    adapter: AdapterShape | None
    """None where policies are all weights of the model: by their names in it, tied ones once, in fp32."""
    width: int
    """Policies that will usually be sampled from together. Of those that are all weights there is one at a time."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for `samples` continuations of a prompt that is in tokens already."""

    policy: str
    """A name that `InferenceEngine.update` gave to weights."""
    prompt_ids: tuple[int, ...]
    samples: int
    """1 where sampling is greedy."""
    max_new_tokens: int
    """At least 1; the prompt and these fit into `Served.max_length`."""
    seed: int
    """Below 2**53. Decides the samples, as far as the engine lets one number do that."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What an engine sampled. Its caller finds stop strings and makes text of it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """As in `Completion`."""


class InferenceEngine(ABC):
    """A base model that another program holds, and the policies on it that it was sent."""

    @abstractmethod
    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        """Takes up new policies and forgets others. No sample is under way while it works.

        Args:
            added: by names that stand for the same weights for ever, so nothing that was computed for an old name
                fits a new one. The engine copies them before it returns; a policy that is all weights takes the place
                of the one that was there.
            removed: names that no request will use, unless they are added again.
        """

    @abstractmethod
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        """`samples` continuations for each request, in order; requests of several policies stand side by side.

        A sample ends with the first of `Served.eos_ids` or when it has `max_new_tokens`. It may end with a stop
        string, or go on beyond it.

        Args:
            requests: of policies that `update` made known.
            sampling: temperature, top_p and stop strings. Its `max_new_tokens` is not looked at.

        Raises:
            SamplerError: the engine failed.
        """


class Sampler(Plugin, ABC):
    """Where completions come from: the trainer's own model, or an inference engine that is sent the policies."""

    @abstractmethod
    def attach(self, model: Served) -> InferenceEngine | None:
        """Starts the engine, or finds it. Called once, before the first completion is sampled.

        Returns:
            None where the trainer is to sample by itself.

        Raises:
            SamplerError: the engine is not installed, cannot be reached, or cannot serve such a model.
        """

    @property
    def takes_all_weights(self) -> bool:
        """Whether policies may be all weights of the model, in place of adapters. May be overridden."""
        return False

    @property
    def repeats(self) -> bool:
        """Whether a sample depends on its stream alone. May be overridden; engines that batch requests rarely do."""
        return False

    def facts(self) -> Mapping[str, Any]:
        """What a ledger should say about it: the version of a library, say. Plain JSON. May be overridden."""
        return {}


@dataclass(frozen=True, slots=True)
class Student:
    """What became of one copy of the baseline that practised one dataset."""

    policy: Policy | None
    """None where no step had any signal: the student still equals its baseline."""
    accuracy: float
    """On Q_R, after practice."""
    gain: float
    """`accuracy` minus the baseline's on the same questions: R_{k,j}."""
    repeat: int
    """j. Those of a dataset's students have gaps where practice failed for good."""


class RewardContext(Protocol):
    """What a reward may ask for during an outer step."""

    def draw_hard(self, count: int) -> Sequence[Problem]:
        """Q_R: `count` different hard train problems. The same ones at every call within an outer step."""
        ...

    def practise(
        self,
        datasets_G: Sequence[Sequence[Problem]],
        repeats: int,
        questions: Sequence[Problem],
        samples: int,
    ) -> list[list[Student]]:
        """Trains `repeats` copies of the baseline on each dataset and measures them on `questions`.

        Args:
            datasets_G: practice questions, with the teacher's answers.
            repeats: r, copies that differ in seed only.
            questions: Q_R.
            samples: attempts per question at temperature 1; 0 for one greedy attempt.

        Returns:
            students_G_R; fewer than `repeats` of a dataset, but one at least, where practice failed for good.
        """
        ...

    def solve_rates(self, problems: Sequence[Problem], samples: int) -> list[float]:
        """Share of `samples` attempts of the base model that give each problem's own answer."""
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """The teacher's reward for each dataset, and the students it trained on the way, if any."""

    rewards_G: Sequence[float]
    students_G_R: Sequence[Sequence[Student]] | None = None
    """None where the reward trains no students; then nobody can be promoted."""


class Reward(Plugin, ABC):
    """What the teacher is paid for."""

    @abstractmethod
    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        """One reward per dataset; all completions of a dataset share it."""
