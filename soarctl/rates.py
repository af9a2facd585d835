"""What a completion costs in time: as `soarctl bench` measured it here, or as we estimate it for a kind of GPU."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soarctl.errors import DataError, disk_errors
from soarctl.spec import Spec

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What completions of one purpose took."""

    completions: int
    tokens: int
    """Sampled, without prompts."""
    sampling: float
    """Seconds, prompts included."""
    grading: float = 0.0
    training: float = 0.0

    @property
    def seconds_each(self) -> float:
        """Seconds per completion, all parts together."""
        return (self.sampling + self.grading + self.training) / self.completions

    @property
    def tokens_each(self) -> float:
        return self.tokens / self.completions


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured on one machine with one spec's model, fleet width and lengths."""

    device: str
    """As the trainer names it."""
    machine: str
    made: str
    """Date and time, UTC."""
    settings: Mapping[str, Any]
    """The part of the spec that decides speed."""
    startup: float
    """Seconds until the model was loaded."""
    sequences: int
    """Completions that were sampled side by side in practice."""
    random_weights: bool
    """The model had the right shape and random weights; completions were all `tokens_each` long by decree."""
    pass_rate: float | None
    """Share of teacher completions that pass the format filter; None where the weights were random."""
    hard_rate: float | None
    """Share of candidate problems that the base model never solved; None where the weights were random."""
    filter_attempts: float | None
    """Attempts per candidate problem: the filter ends at a first success."""
    spent: Mapping[str, Spent]
    """By purpose: filter, teacher, practice, reward; those that were measured."""


def settings_of(spec: Spec) -> dict[str, Any]:
    """The part of a spec that decides how long a completion takes."""
    whole = spec.model_dump(mode="json")
    learning = ("max_new_tokens", "group_size", "kl")
    return {
        **{section: whole[section] for section in ("model", "domain", "trainer", "reward")},
        "filter": {key: whole["filter"][key] for key in ("samples", "max_new_tokens")},
        "teacher": {key: whole["teacher"][key] for key in (*learning, "groups_per_step", "dataset_size")},
        "inner": {key: whole["inner"][key] for key in (*learning, "steps", "batch_size")},
    }


def place(spec: Spec) -> Path:
    """Where this machine's rates for such a spec are kept: `~/.cache/soarctl/rates`, or below $XDG_CACHE_HOME."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    said = json.dumps([platform.node(), settings_of(spec)], sort_keys=True)
    return cache / "soarctl" / "rates" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"


def find(spec: Spec) -> Rates | None:
    """What `soarctl bench` measured on this machine for such a spec; None where it has not."""
    path = place(spec)
    return read(path) if path.is_file() else None


def write(rates: Rates, path: Path) -> None:
    """Writes rates as JSON."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(json.dumps({"format": FORMAT, **asdict(rates)}, indent=2) + "\n")
        aside.replace(path)


def read(path: Path) -> Rates:
    """Rates that `write` wrote.

    Raises:
        DataError: the file is missing or not one of ours.
    """
    hint = f"`soarctl bench SPEC --out {path}` makes one"
    try:
        found = json.loads(path.read_bytes())
        version = found.pop("format")
        spent = {what: Spent(**each) for what, each in found.pop("spent").items()}
        rates = Rates(**found, spent=spent)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", at=str(path), hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is not a file of rates: {error!r}", at=str(path), hint=hint) from error
    if version != FORMAT or not all(each.completions > 0 for each in spent.values()):
        raise DataError(f"has format {version}; this soarctl reads format {FORMAT}", at=str(path), hint=hint)
    return rates


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU: its data sheet."""

    name: str
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes of memory per second."""
    peak: float
    """Dense bf16 FLOP per second."""


GPUS = (
    Gpu("H200", 141e9, 4.8e12, 989e12),
    Gpu("H100", 80e9, 3.35e12, 989e12),
    Gpu("A100", 80e9, 2.04e12, 312e12),
    Gpu("L40S", 48e9, 0.864e12, 362e12),
)

# Estimates, none of them measured. Decoding 1,000 sequences of a 3 B model is bound by memory, so it goes with
# bandwidth and against parameters; with fewer it is bound by starting kernels, which takes as long on any GPU. Training
# is bound by arithmetic.
DECODE_TOKENS = 30_000
"""Tokens per second of a 3 B model on an H200."""
DECODE_PARAMETERS = 3.2e9
DECODE_SEQUENCES = 1000
DECODE_STEP = DECODE_SEQUENCES / DECODE_TOKENS
"""Seconds for one token of each sequence, at the least."""
LEAST_PARAMETERS = 3e8
"""A smaller model is bound by the time that launching kernels takes, of which a data sheet says nothing."""
UTILISATION = 0.4
"""Share of the peak that training reaches."""
LENGTH = 0.4
"""Mean length of a completion, as a share of the longest."""
PROMPT = 256
"""Tokens of a prompt."""


def decode_estimate(gpu: Gpu, parameters: int, going: float) -> float:
    """Tokens per second of a model of this size, with so many sequences going on side by side."""
    full = DECODE_TOKENS * gpu.bandwidth / GPUS[0].bandwidth * DECODE_PARAMETERS / parameters
    return min(full, going / DECODE_STEP)


def going_on(spec: Spec, most: int | None) -> float:
    """Sequences that go on side by side, on average over a batch.

    The trainer's own decoder gives the places of sequences that have ended to nobody, so that a batch lasts as long as
    its longest completion; an inference engine gives them to those that wait.

    Args:
        spec: whose trainer and sampler say how many they begin with.
        most: what bounds that besides, where something does.
    """
    trainer: Mapping[str, Any] = spec.trainer.options
    sampler: Any = trainer.get("sampler")
    refills = isinstance(sampler, Mapping) and sampler.get("plugin") != "decoder"
    options: Mapping[str, Any] = sampler if refills else trainer
    limits = [limit for limit in (options.get("max_sequences"), most) if isinstance(limit, int) and limit > 0]
    return min(limits, default=DECODE_SEQUENCES / LENGTH) * (1 if refills else LENGTH)


def train_estimate(gpu: Gpu, parameters: int, *, kl: bool, frozen: bool = True) -> float:
    """Tokens per second of an update, of adapters beside frozen weights or of all weights.

    2 FLOP per parameter and token forward and 2 backward; 2 more for the gradients of weights that are not frozen, and
    2 more for the base model's log-probs where there is a KL term.
    """
    return UTILISATION * gpu.peak / ((4 + 2 * kl + 2 * (not frozen)) * parameters)


def estimated(
    spec: Spec, gpu: Gpu, parameters: int, *, frozen: bool = True, fit: int | None = None
) -> dict[str, Spent]:
    """What one completion of each purpose should take.

    Args:
        spec: the run's.
        gpu: on which.
        parameters: of the model.
        frozen: whether adapters are trained and not these.
        fit: sequences whose caches fit on the GPU, where that is known.
    """
    written = spec.datasets_per_step * spec.teacher.dataset_size

    def one(max_new_tokens: int, kl: float | None, most: int | None = fit) -> Spent:
        decode = decode_estimate(gpu, parameters, going_on(spec, most))
        tokens = LENGTH * max_new_tokens
        training = 0.0 if kl is None else tokens / train_estimate(gpu, parameters, kl=kl > 0, frozen=frozen)
        # Of a hundred, so that tokens are a whole number.
        return Spent(100, round(100 * tokens), 100 * tokens / decode, 0.0, 100 * training)

    return {
        "filter": one(spec.filter.max_new_tokens, None),
        "teacher": one(spec.teacher.max_new_tokens, spec.teacher.kl, min(fit or written, written)),
        "practice": one(spec.inner.max_new_tokens, spec.inner.kl),
        "reward": one(spec.inner.max_new_tokens, None),
    }
