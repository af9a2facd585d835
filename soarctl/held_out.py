"""The closing table of a run: pass@k on the held-out hard problems, with the uncertainty of so few of them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from soarctl.ledger import Ledger
from soarctl.passk import bootstrap_interval, pass_at_k
from soarctl.runs import facts_of
from soarctl.streams import Stream


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One measured policy."""

    name: str
    problems: int
    samples: int
    """Attempts per problem."""
    pass_at: Mapping[int, Estimate]
    """pass@k by k."""


def held_out_table(ledger: Ledger) -> list[Arm]:
    """The measured arms, the base model first; empty before the closing measurement.

    The problems of all arms are resampled alike, by a stream of the run seed.
    """
    spec = facts_of(ledger)["spec"]
    correct: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for arm, samples, count in ledger.rows("SELECT arm, samples, correct FROM evaluations ORDER BY arm, problem"):
        correct[arm].append((samples, count))
    if spec["evaluation"] is None:
        return []
    arms: list[Arm] = []
    for name, counts_P in correct.items():
        samples = min(samples for samples, _ in counts_P)
        pass_at: dict[int, Estimate] = {}
        for k in spec["evaluation"]["k"]:
            if k <= samples:
                values_P = [float(pass_at_k(n, c, k)) for n, c in counts_P]
                low, high = bootstrap_interval(values_P, Stream((spec["seed"], "held out")))
                pass_at[k] = Estimate(fmean(values_P), low, high)
        arms.append(Arm(name, len(counts_P), samples, pass_at))
    return arms
