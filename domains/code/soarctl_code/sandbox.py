"""The `sandbox` options of the domain, and the jails that are running because of them."""

import atexit
import os
from collections.abc import Generator, Iterable
from functools import cache
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from soarctl.api import Finding
from soarctl_code.jail import tiers
from soarctl_code.jail.jobs import Job, Limits, Ran
from soarctl_code.jail.supervisor import Pool

T = TypeVar("T")

CONFESSION = "I let untrusted programs run on this machine WITHOUT ISOLATION"


class Sandbox(BaseModel):
    """How programs are kept in, and what each of them may use."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    tier: Literal["auto"] | tiers.Tier = "auto"
    """Kind of jail; `auto` takes the strongest that holds on this machine. `soarctl doctor` shows them."""
    min_tier: Literal["namespace", "landlock", "seccomp", "command"] = "seccomp"
    """Refuse to run anything in a weaker one; `wasm` counts as much as `seccomp`."""
    command: tuple[str, ...] = ()
    """For the tier `command`: what to put before the fork server's command line, such as bwrap with its arguments."""
    unsafe: Literal["I let untrusted programs run on this machine WITHOUT ISOLATION"] | None = None
    """This sentence, word for word, and nothing less, allows the tier `unsafe`: resource limits and no isolation."""
    workers: NonNegativeInt = 0
    """Programs that run at once, not counting those that sleep; 0 is one per CPU."""
    python: str = ""
    """Interpreter for the programs, 3.11 or newer; the one that runs soarctl if empty."""
    wall_s: PositiveFloat = 2.0
    """Seconds per run, without those in which the machine had no CPU for it."""
    cpu_s: PositiveFloat = 2.0
    """Seconds of CPU per run."""
    memory_mb: PositiveInt = 256
    """MiB of memory per run, beside the interpreter's own."""
    output_kb: Annotated[int, Field(ge=1, le=65536)] = 64
    """KiB that a run may write to each of stdout and stderr."""

    @model_validator(mode="after")
    def _tier_is_strong_enough(self) -> Self:
        if self.tier != "auto" and self.tier not in tiers.allowed(self.weakest):
            enough = "seccomp" if self.tier == "wasm" else self.tier
            allows = "the sentence in docs/code.md" if self.tier == "unsafe" else f"min_tier: {enough}"
            raise ValueError(
                f'the tier "{self.tier}" is weaker than min_tier "{self.weakest}": {tiers.MEANINGS[self.tier]}; '
                f"{allows} allows it"
            )
        return self

    @property
    def weakest(self) -> tiers.Tier:
        """The weakest tier that the options allow."""
        return "unsafe" if self.unsafe == CONFESSION and self.tier in ("unsafe", "auto") else self.min_tier

    @property
    def limits(self) -> Limits:
        return Limits(
            wall=self.wall_s, cpu=self.cpu_s, memory=self.memory_mb << 20, output=self.output_kb << 10
        )  # fmt: skip

    def report(self) -> tiers.TierReport:
        """The tier that programs run in here; found out once.

        Raises:
            SandboxRefused: none that the options allow works.
        """
        return _chosen(self.model_dump_json(), os.getpid())

    def findings(self) -> list[Finding]:
        """Every tier, every probe, and which tier programs would run in."""
        reports = tiers.inspect_tiers(self.python, self.command)
        found = [
            Finding(f"sandbox {r.tier}", f"holds: {r.reason}" if r.usable else f"out: {r.reason}") for r in reports
        ]
        for name in tiers.PROBES.values():
            probes = {r.tier: probe for r in reports for probe in r.probes if probe.name == name}
            told = [f"{tier} {'refused' if p.contained else 'ALLOWED'} ({p.detail})" for tier, p in probes.items()]
            if told:
                found.append(Finding(f"probe: {name}", ", ".join(told)))
        try:
            chosen = self.report()
        except tiers.SandboxRefused as refused:
            return [*found, Finding("sandbox", "refused", refused.message)]
        return [*found, Finding("sandbox", f"programs run in {chosen.tier}: {chosen.reason}")]

    def drive(self, tasks: Iterable[Generator[Job, Ran, T]]) -> list[T]:
        """Runs tasks in the jail of these options, side by side.

        Raises:
            SandboxRefused: no allowed tier works; nothing has been run.
            SandboxError: the jail works no more, after several attempts.
        """
        return _pool(self.model_dump_json(), os.getpid()).drive(tasks)

    @property
    def faults(self) -> dict[str, int]:
        """Faults of the jail itself so far, each followed by a new attempt."""
        return dict(_pool(self.model_dump_json(), os.getpid()).faults)


# By process: a fork of the trainer must not talk over its parent's sockets.
@cache
def _chosen(options: str, process: int) -> tiers.TierReport:
    sandbox = Sandbox.model_validate_json(options)
    return tiers.choose(sandbox.tier, sandbox.weakest, sandbox.python, sandbox.command)


@cache
def _pool(options: str, process: int) -> Pool:
    sandbox = Sandbox.model_validate_json(options)
    pool = Pool(
        sandbox.report().tier, workers=sandbox.workers, python=sandbox.python, command=sandbox.command
    )  # fmt: skip
    atexit.register(lambda: pool.close() if os.getpid() == process else None)
    return pool
