"""The spec: every number a run depends on, as frozen models.

A value is declared once: type, bound, default and meaning together. Defaults are the paper's; where the paper is silent
the docstring gives the reason in a line ("row N" is a row of the table in docs/method.md, here and in all our code).
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from soarctl.api import Optimizer, Sampling


class Strict(BaseModel):
    """A section whose unknown keys are errors and whose values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PluginSection(BaseModel):
    """The name of a plug-in and, beside it, that plug-in's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    plugin: str
    """Name of an installed plug-in; `soarctl plugins` lists them."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class RewardSection(PluginSection):
    """What pays the teacher, with its options."""

    plugin: str = "grounded"
    """Name of an installed reward. `grounded` is SOAR; `learnability` is the intrinsic comparison."""


class TrainerSection(PluginSection):
    """How policies are represented, sampled and updated, with the options of that."""

    plugin: str = "accelerate"
    """Name of an installed trainer."""


class ModelSection(Strict):
    """The base model that teacher and students start from."""

    base: str
    """A hub id, a local directory, or `package:NAME/FOLDER` for a model inside an installed package."""
    revision: str | None = None
    """Commit or tag on the hub. Name one for a run that others can repeat."""
    chat_template: bool = False
    """Wrap prompts in the model's chat template. Off: the student prompt is a complete plain-text frame (row 30)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust as you trust your own code."""


class Learning(Strict):
    """What teacher and students have in common: how they are sampled and updated (Table 3)."""

    lr: PositiveFloat = 1e-5
    """AdamW learning rate of full fine-tuning in the paper; LoRA adapters usually want 10 to 100 times more."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    kl: NonNegativeFloat = 0.001
    """Coefficient of the per-token k3 KL to the base model, in the loss, on the raw reward scale (rows 6, 7)."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; 1 is off. Only a temperature is given in the paper (row 31)."""
    aggregation: Literal["sum", "seq_mean"] = "sum"
    """Log-probs of a completion's tokens are summed: RLOO treats the completion as one action (row 3)."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient norm clip, per policy (row 11)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates (row 10)."""
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon. Teacher gradients can be tiny: watch the recorded norm (row 10)."""
    weight_decay: NonNegativeFloat = 0.0
    """Invisible at the paper's learning rate (row 10)."""


class Outer(Strict):
    """The outer loop."""

    steps: PositiveInt = 200
    """T: teacher updates."""


class Teacher(Learning):
    """The policy that writes practice questions."""

    group_size: Annotated[int, Field(ge=2)] = 4
    """g: datasets that are compared with each other. At least 2, or leave-one-out has no baseline."""
    dataset_size: PositiveInt = 64
    """n: questions per dataset."""
    groups_per_step: PositiveInt = 1
    """Independent groups per update. The paper's "batch size 2" may mean 2; Algorithm 1 says 1 (row 1)."""
    warmup_steps: NonNegativeInt = 20
    """Steps over which the learning rate rises linearly."""
    horizon: PositiveInt | None = None
    """Steps of the cosine. Default: outer.steps (row 12)."""
    max_new_tokens: PositiveInt = 512
    """Longest completion; longer ones are cut and usually rejected (row 26)."""
    reward_scale: PositiveFloat = 1.0
    """Multiplies the teacher's reward in its update only. 1 is the paper's raw accuracy difference (row 8)."""
    resample_cap: PositiveInt = 20
    """Give up when this many times the needed completions did not yield enough questions (row 25)."""


class Inner(Learning):
    """The inner loop: students practising a dataset."""

    steps: PositiveInt = 10
    """RL updates of each student before any promotion."""
    per_promotion: NonNegativeInt = 5
    """More steps after each promotion (row 15)."""
    cap: Annotated[PositiveInt, Field(validate_default=True)] = 20
    """Most steps ever (row 15). At least `steps`."""
    batch_size: PositiveInt = 8
    """Questions per step (row 1b)."""
    group_size: Annotated[int, Field(ge=2)] = 32
    """Completions per question, each compared with the others."""
    horizon: PositiveInt = 1500
    """Steps of the cosine: that of the evaluation training, so nearly constant here (row 13)."""
    max_new_tokens: PositiveInt = 1024
    """Longest completion, in practice and on the reward questions (row 19)."""

    @field_validator("cap")
    @classmethod
    def _cap_allows_the_first_steps(cls, cap: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps", 0)
        if cap < steps:
            raise ValueError(f"must be at least inner.steps, which is {steps}, found {cap}")
        return cap


class Promotion(Strict):
    """When a student becomes the new baseline."""

    tau: float = 0.01
    """Promote when the moving average of the mean reward is strictly above this."""
    window: PositiveInt = 3
    """m: outer steps in the moving average."""
    reset_window: bool = True
    """Start the average anew after a promotion: old rewards refer to the old baseline (row 23)."""


class Savings(Strict):
    """Ways to spend less that change the method, measured in docs/savings.md. All are off by default."""

    flat_window: PositiveInt | None = None
    """A student stops practising when its mean reward over this many inner steps is not above that of as many before.
    Best is a whole number of epochs, which compares the same questions: dataset_size / batch_size steps each."""
    race_from: Annotated[int, Field(ge=2)] | None = None
    """Each dataset is practised by this many students at first, and by more, up to the reward's repeats, only while its
    place in the ranking is within the noise of a neighbour's."""
    reuse_overlap: Annotated[float, Field(gt=0, le=1)] | None = None
    """A dataset that shares this part of its questions, answers included, with an earlier one that was practised from
    the same baseline takes over its gains, and one new student joins them. 1: the same questions."""


class Filter(Strict):
    """fail@k: hard problems are those that the base model never solves."""

    samples: PositiveInt = 128
    """k: attempts per problem."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; 1 is off."""
    max_new_tokens: PositiveInt = 1024
    """Longest attempt."""
    reuse: str | None = None
    """Results of an earlier `soarctl filter`, a JSONL file; the candidates are not sampled again."""
    given_samples: bool = False
    """Accept for `reuse` what `--from-samples` made, though nobody knows which model and settings drew the samples."""


class SplitSection(Strict):
    """How hard problems are halved."""

    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share that the run learns from; the rest is held out."""
    seed: int = 0
    """Decides the halves, together with the problems' ids (row 35)."""


class Evaluation(Strict):
    """The closing measurement on the held-out half: base model and promoted student."""

    samples: PositiveInt = 32
    """Attempts per problem."""
    k: Annotated[tuple[PositiveInt, ...], Field(min_length=1, validate_default=True)] = (1, 4, 8, 16, 32)
    """pass@k for these k, each at most `samples`."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature (row 40)."""

    @field_validator("k")
    @classmethod
    def _samples_suffice(cls, ks: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        samples = info.data.get("samples", max(ks))
        if max(ks) > samples:
            raise ValueError(f"pass@{max(ks)} needs as many samples, and evaluation.samples is {samples}")
        return ks


class Checkpoints(Strict):
    """What is kept of the teacher while the run goes on. Promoted students are always kept."""

    every: PositiveInt = 10
    """Keep the checkpoint of every N-th outer step."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    """Keep this many of the newest, so that one damaged file does not end a run."""


TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]


class Spec(Strict):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Names the run directory: letters, digits, dot, underscore and hyphen."""
    seed: int = 0
    """Every random choice of the run derives from it (row 45)."""
    model: ModelSection
    domain: PluginSection
    reward: RewardSection = RewardSection()
    trainer: TrainerSection = TrainerSection()
    filter: Filter = Filter()
    split: SplitSection = SplitSection()
    outer: Outer = Outer()
    teacher: Teacher = Teacher()
    inner: Inner = Inner()
    promotion: Promotion = Promotion()
    savings: Savings = Savings()
    evaluation: Evaluation | None = Evaluation()
    """null skips the closing measurement."""
    checkpoints: Checkpoints = Checkpoints()
    trackers: dict[TrackerName, dict[str, Any]] = {}
    """Trackers that get a copy of the ledger's numbers, each with options of its own: `{tensorboard: {}}`."""

    @property
    def datasets_per_step(self) -> int:
        """Datasets written, practised and compared in one outer step."""
        return self.teacher.group_size * self.teacher.groups_per_step

    @property
    def teacher_optimizer(self) -> Optimizer:
        return _optimizer(self.teacher, self.teacher.horizon or self.outer.steps)

    @property
    def student_optimizer(self) -> Optimizer:
        return _optimizer(self.inner, self.inner.horizon)


def _optimizer(learning: Learning, horizon: int) -> Optimizer:
    return Optimizer(
        lr=learning.lr,
        warmup_steps=learning.warmup_steps,
        horizon=horizon if learning.schedule == "cosine" else 0,
        kl=learning.kl,
        aggregation=learning.aggregation,
        max_grad_norm=learning.max_grad_norm,
        betas=learning.betas,
        eps=learning.eps,
        weight_decay=learning.weight_decay,
        temperature=learning.temperature,
    )


def sampling(section: Learning | Filter, max_new_tokens: int, stop: tuple[str, ...]) -> Sampling:
    """How completions of a section are drawn."""
    return Sampling(max_new_tokens, section.temperature, section.top_p, stop)
