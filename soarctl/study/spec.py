"""The spec of a study, as frozen models: which runs, which arms, how they are trained and measured."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from soarctl.spec import Strict


class Arm(StrEnum):
    """What is compared. Each arm is the base model, trained on something or not at all."""

    BASE = "base"
    HARD_ONLY = "hard_only"
    HARD_ONLY_4X = "hard_only_4x"
    BASE_T = "base_t"
    INTRINSIC_T = "intrinsic_t"
    GROUNDED_T = "grounded_t"
    NO_PROMOTION_T = "no_promotion_t"
    PQ = "pq"
    PQ_WELL_POSED = "pq_well_posed"
    PQ_CORRECT = "pq_correct"
    PS = "ps"
    ORACLE = "oracle"


MEANING = {
    Arm.BASE: "the base model, as it is",
    Arm.HARD_ONLY: "trained on the hard problems alone",
    Arm.HARD_ONLY_4X: "the same, with four times the completions per problem",
    Arm.BASE_T: "trained on questions of the untrained teacher, and the hard problems",
    Arm.INTRINSIC_T: "on questions of a teacher paid for learnability",
    Arm.GROUNDED_T: "on questions of a SOAR teacher",
    Arm.NO_PROMOTION_T: "on questions of a SOAR teacher whose students were never promoted",
    Arm.PQ: "on the promotion questions of a SOAR run",
    Arm.PQ_WELL_POSED: "on those of them that have an answer",
    Arm.PQ_CORRECT: "on those of them whose answer is right",
    Arm.PS: "the promoted student, as it is",
    Arm.ORACLE: "on real easier problems",
}
INFERENCE = {Arm.BASE, Arm.PS}
PQ_ARMS = {Arm.PQ, Arm.PQ_WELL_POSED, Arm.PQ_CORRECT}


class Kind(StrEnum):
    """The runs that arms take their teachers and questions from."""

    GROUNDED = "grounded"
    INTRINSIC = "intrinsic"
    NO_PROMOTION = "no_promotion"


NEEDS = {
    Arm.INTRINSIC_T: Kind.INTRINSIC,
    Arm.GROUNDED_T: Kind.GROUNDED,
    Arm.NO_PROMOTION_T: Kind.NO_PROMOTION,
    Arm.PQ: Kind.GROUNDED,
    Arm.PQ_WELL_POSED: Kind.GROUNDED,
    Arm.PQ_CORRECT: Kind.GROUNDED,
    Arm.PS: Kind.GROUNDED,
}


class Teachers(Strict):
    """Runs of one kind: made by the study, or found in directories."""

    count: PositiveInt = 3
    """Runs to make; they differ in their seed."""
    set: tuple[str, ...] = ()
    """What they change in the spec of the run, each as `key=value`."""
    directories: tuple[str, ...] = ()
    """Finished runs to take instead; `count` is then not used, and `set` says only which reward they must have."""


class Grounded(Teachers):
    """SOAR itself."""


class Intrinsic(Teachers):
    """Teachers that are paid for questions that are neither too easy nor impossible."""

    set: tuple[str, ...] = ("reward.plugin=learnability",)
    """What they change in the spec of the run, each as `key=value`."""


class NoPromotion(Teachers):
    """SOAR without promotions."""

    set: tuple[str, ...] = ("promotion.tau=1",)  # a mean gain is never above 1
    """What they change in the spec of the run, each as `key=value`."""


class Runs(Strict):
    """Where teachers and promotion questions come from. Only what the arms need is run."""

    grounded: Grounded = Grounded()
    intrinsic: Intrinsic = Intrinsic()
    no_promotion: NoPromotion = NoPromotion()


class Training(Strict):
    """How the students of every arm are trained: RLOO as in the run's `inner` section, at most this long."""

    steps: PositiveInt = 1500
    """RLOO steps of every arm."""
    mix: Literal["curriculum", "mixed"] = "curriculum"
    """First the teacher's questions, then the hard problems; or both together all the time."""
    synthetic_steps: PositiveInt = 64
    """Steps on the teacher's questions, where the mix is `curriculum`."""
    questions: PositiveInt = 128
    """Questions sampled from a teacher, and real problems of the oracle."""
    warmup_steps: NonNegativeInt = 20
    """Steps over which the learning rate rises linearly. None for promotion questions with a curriculum."""


class Measure(Strict):
    """How students are measured on the held-out hard problems."""

    every: PositiveInt = 25
    """Steps between two measurements; each is also a checkpoint that an interrupted study goes on from."""
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
            raise ValueError(f"pass@{max(ks)} needs as many samples, and measure.samples is {samples}")
        return ks


class Stop(Strict):
    """The early-stop rule: which measurements of a student count. Every student is trained to the end all the same."""

    window: PositiveInt = 25
    """Steps in the centred moving average of the training reward."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Levelled off: the slope is below this share of the largest one."""
    average: PositiveInt = 200
    """Scores are averaged over the measurements in this many steps after it; the first one always counts."""
    at: PositiveInt | None = None
    """A fixed step in place of the rule: the measurement there counts alone, or else the first one after it."""


class StudySpec(Strict):
    """A whole study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Names the study's directory: letters, digits, dot, underscore and hyphen."""
    seed: int = 0
    """Every random choice of the study derives from it; run i of a kind has the seed `seed` + i."""
    run: str
    """The spec of the runs, a file beside this one."""
    set: tuple[str, ...] = ()
    """What all runs change in it, each as `key=value`."""
    runs: Runs = Runs()
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = tuple(Arm)
    """What is compared, in the order of the table."""
    seeds: PositiveInt = 3
    """Students of each arm. Where there are several teachers, they are dealt to them in turn."""
    oracle: str | None = None
    """Real easier problems, JSON lines with `question` and `answer`: a file beside this one, or else in the working
    directory. Default: candidates that are not hard."""
    training: Training = Training()
    measure: Measure = Measure()
    stop: Stop = Stop()

    @model_validator(mode="after")
    def _arms_once(self) -> "StudySpec":
        twice = sorted({arm for arm in self.arms if self.arms.count(arm) > 1})
        if twice:
            raise ValueError(f"an arm stands twice: {', '.join(twice)}")
        return self

    def teachers(self, kind: Kind) -> Teachers:
        return getattr(self.runs, kind.value)

    @property
    def kinds(self) -> list[Kind]:
        """The runs that the arms need."""
        return [kind for kind in Kind if any(NEEDS.get(arm) == kind for arm in self.arms)]
