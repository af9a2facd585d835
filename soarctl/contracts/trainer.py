"""What every trainer promises, one check for each promise, with its engine, fleets and policies."""

import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from soarctl.api import (
    Completion,
    Engine,
    Fleet,
    GradedSample,
    ModelError,
    ModelSource,
    Optimizer,
    Policy,
    Prompt,
    Sampling,
    Stream,
    Trainer,
)
from soarctl.contracts.findings import Check, is_a, is_plain_json, run_checks, same_mapping, shown, strict_options

_ROUNDING = 1e-4  # side by side, sums are taken in another order


@dataclass(frozen=True)
class Model:
    """A base model by its name alone."""

    base: str
    revision: str | None = None
    chat_template: bool = False
    trust_remote_code: bool = False


@dataclass
class TrainerWorld:
    """A trainer with a model, and what its checks ask for."""

    trainer: Trainer
    model: ModelSource
    prompts: Sequence[str]
    sampling: Sampling
    lr: float
    stream: Stream = field(default=Stream(("check_trainer",)))

    @cached_property
    def engine(self) -> Engine:
        return self.trainer.load(self.model, 0)

    @cached_property
    def optimizer(self) -> Optimizer:
        return Optimizer(lr=self.lr)

    def fleet(self, size: int = 1, start: Policy | None = None) -> Fleet:
        return self.engine.fleet([start or self.engine.start()] * size, self.optimizer)

    def asked(self, policy: int = 0, samples: int = 4, name: str = "samples") -> list[Prompt]:
        return [Prompt(policy, text, samples, self.stream.child(name, i)) for i, text in enumerate(self.prompts)]

    def drawn(self, fleet: Fleet, policy: int = 0, name: str = "samples") -> list[Completion]:
        return [c for group in fleet.sample(self.asked(policy, name=name), self.repeatable) for c in group]

    @cached_property
    def repeatable(self) -> Sampling:
        """How samples that are to be compared are drawn: greedy ones where others need not repeat."""
        return self.sampling if self.engine.repeats else replace(self.sampling, temperature=0.0)

    @cached_property
    def completions(self) -> list[Completion]:
        return [c for group in self.fleet().sample(self.asked(), self.sampling) for c in group]

    def graded(self, seed: int) -> list[GradedSample]:
        """The completions with advantages that sum to zero and differ from zero."""
        signs = [1.0 if (i + seed) % 2 else -1.0 for i in range(len(self.completions))]
        return [GradedSample(c, sign) for c, sign in zip(self.completions, signs, strict=True)]


def check_trainer(
    trainer: Trainer,
    model: ModelSource | str,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 12,
    lr: float = 0.002,
    seconds: float = 120.0,
) -> None:
    """Holds a trainer to what api.py promises; the checks are listed in docs/reference/contracts.md.

    Args:
        trainer: to be checked.
        model: which base model, as in a spec; a small one.
        prompts: at least two that the model continues in more than one way.
        max_new_tokens: of a completion.
        lr: large enough that a few updates change what is sampled.
        seconds: after which a check counts as hanging.

    Raises:
        ContractError: promises are broken. All of them are in the message.
    """
    source = Model(model) if isinstance(model, str) else model
    world = TrainerWorld(trainer, source, prompts, Sampling(max_new_tokens), lr)
    run_checks("check_trainer", trainer, world, CHECKS, seconds)


def options(world: TrainerWorld) -> Iterator[str]:
    """Its fields are its options: unknown ones are errors, a loaded trainer never changes, and it can be pickled."""
    yield from strict_options(world.trainer)
    before = world.trainer.model_dump()
    world.trainer.load(world.model, 0)
    if world.trainer.model_dump() != before:
        yield "its options are others after it loaded a model"
    try:
        same = pickle.loads(pickle.dumps(world.trainer)) == world.trainer
    except Exception as error:  # whatever pickle says is the finding
        yield f"not picklable: {type(error).__name__}: {error}"
    else:
        if not same:
            yield "not picklable: the copy is another trainer"


def loads(world: TrainerWorld) -> Iterator[str]:
    """`load` with one seed gives the same start, width, share and facts; facts are plain JSON and name the model, and
    policies that are said to be all of its weights are."""
    again = world.trainer.load(world.model, 0)
    if not same_mapping(again.start().tensors, world.engine.start().tensors):
        yield "loaded twice with one seed, the policies that it starts from differ"
    for name in ("width", "share"):
        once, twice = getattr(world.engine, name), getattr(again, name)
        if not is_a(once, int) or once < 1 or twice != once:
            yield f"the {name} is {shown(once)}, then {shown(twice)}: it is to follow from the spec alone"
    facts = dict(world.engine.facts)
    if not is_plain_json(facts) or not facts.get("base"):
        yield f"facts are not plain JSON with a key `base`: {shown(facts)}"
    numbers = sum(tensor.size for tensor in world.engine.start().tensors.values())
    if world.trainer.trains_all_weights and facts.get("parameters") != numbers:
        yield f"policies are said to be all weights; they have {numbers}, facts say {shown(facts.get('parameters'))}"
    if not facts.get("weights_sha256"):
        yield "facts have no `weights_sha256`: a resumed run could not tell that the model changed"


def finds(world: TrainerWorld) -> Iterator[str]:
    """`find` finds the model that `load` loads."""
    try:
        world.trainer.find(world.model)
    except Exception as error:  # the boundary around a plug-in
        yield f"find raised {type(error).__name__}: {error}"


def start(world: TrainerWorld) -> Iterator[str]:
    """A fleet starts from the policies that it is given, and snapshots are copies."""
    begun = world.engine.start()
    fleet = world.fleet(2)
    for s in range(2):
        if not same_mapping(fleet.snapshot(s).tensors, begun.tensors):
            yield f"policy {s} of a new fleet is not the one that it was given"
    taken = fleet.snapshot(0)
    kept = {name: np.array(tensor, copy=True) for name, tensor in taken.tensors.items()}
    fleet.reinforce([world.graded(0), world.graded(0)])
    if not same_mapping(taken.tensors, kept):
        yield "a snapshot changed when its fleet learned: it is no copy"
    if not same_mapping(world.engine.start().tensors, begun.tensors):
        yield "the base model changed when a fleet learned"


def samples(world: TrainerWorld) -> Iterator[str]:
    """Each prompt gets its completions, in order, with tokens, log-probs and how it finished."""
    groups = world.fleet().sample(world.asked(samples=3), world.sampling)
    if [len(group) for group in groups] != [3] * len(world.prompts):
        yield f"asked for 3 completions of {len(world.prompts)} prompts, it gave {[len(group) for group in groups]}"
        return
    for c in (c for group in groups for c in group):
        if len(c.token_ids) != len(c.logprobs):
            yield f"{len(c.logprobs)} log-probs for {len(c.token_ids)} tokens in {shown(c.text)}"
            return
        if any(not np.isfinite(p) or p > 1e-6 for p in c.logprobs):
            yield f"a log-prob is not a finite number of at most 0 in {shown(c.text)}"
            return
        if c.finish not in ("eos", "stop", "length"):
            yield f"a completion finished by {shown(c.finish)}"
            return
        if len(c.token_ids) > world.sampling.max_new_tokens:
            yield f"{len(c.token_ids)} tokens where max_new_tokens is {world.sampling.max_new_tokens}"
            return
    if len({c.text for c in world.completions}) < 2:
        yield "all completions are equal: do the streams reach the sampler?"


def same_streams(world: TrainerWorld) -> Iterator[str]:
    """The same stream gives the same samples: again, in a new engine, with other prompts beside it, with more
    samples asked for, and from a later one on. Where `repeats` is false this is asked of greedy samples alone."""
    once = [c.text for c in world.drawn(world.fleet())]
    if [c.text for c in world.drawn(world.fleet())] != once:
        yield "the same prompts gave other samples the second time"
    anew = world.trainer.load(world.model, 0).fleet([world.engine.start()], world.optimizer)
    if [c.text for c in world.drawn(anew)] != once:
        yield "a newly loaded model gave other samples"
    alone = [c.text for p in world.asked() for c in world.fleet().sample([p], world.repeatable)[0]]
    if alone != once:
        yield "samples depend on the other prompts of the call"
    backwards = world.fleet().sample(world.asked()[::-1], world.repeatable)[::-1]
    if [c.text for group in backwards for c in group] != once:
        yield "samples depend on the order of the prompts"
    more = world.fleet().sample(world.asked(samples=7), world.repeatable)
    if [c.text for group in more for c in group[:4]] != once:
        yield "sample k depends on how many samples are asked for"
    later = world.fleet().sample([replace(p, first=1, samples=3) for p in world.asked()], world.repeatable)
    if [c.text for group in later for c in group] != [text for i, text in enumerate(once) if i % 4]:
        yield "a prompt whose `first` sample is the second one does not give the samples from the second one on"


def greedy(world: TrainerWorld) -> Iterator[str]:
    """At temperature 0 all samples are the same, whatever the stream."""
    groups = world.fleet().sample(world.asked(samples=3), replace(world.sampling, temperature=0.0))
    if any(len({c.text for c in group}) > 1 for group in groups):
        yield "greedy samples of one prompt differ"
    others = world.fleet().sample(world.asked(samples=1, name="other"), replace(world.sampling, temperature=0.0))
    if [group[0].text for group in others] != [group[0].text for group in groups]:
        yield "greedy samples depend on the stream"


def stop_strings(world: TrainerWorld) -> Iterator[str]:
    """A stop string ends a completion; it and what follows are not in the text."""
    unstopped = world.drawn(world.fleet())
    longest = max((c.text for c in unstopped), key=len)
    if len(longest) < 3:
        return
    stop = longest[len(longest) // 2]
    stopped = world.fleet().sample(world.asked(), replace(world.repeatable, stop=(stop,)))
    for whole, c in zip(unstopped, (c for group in stopped for c in group), strict=True):
        if stop in c.text:
            yield f"the text {shown(c.text)} holds the stop string {stop!r}"
            return
        if c.text != whole.text.partition(stop)[0]:
            yield f"with the stop string {stop!r} the text {shown(whole.text)} became {shown(c.text)}"
            return
        if stop in whole.text and c.finish != "stop":
            yield f"a text that a stop string ended says that it finished by {shown(c.finish)}"
            return


def no_signal(world: TrainerWorld) -> Iterator[str]:
    """A policy without samples, or whose advantages are all zero, is left untouched and says so."""
    fleet = world.fleet(3)
    still = [GradedSample(c, 0.0) for c in world.completions]
    stats_S = fleet.reinforce([still, [], world.graded(0)])
    for s, what in ((0, "zero advantage"), (1, "no samples")):
        if not same_mapping(fleet.snapshot(s).tensors, world.engine.start().tensors):
            yield f"{what} moves the weights"
        if stats_S[s].stepped:
            yield f"{what} counts as a step"
    if not stats_S[2].stepped or same_mapping(fleet.snapshot(2).tensors, world.engine.start().tensors):
        yield "a policy with advantages did not move"


def parts(world: TrainerWorld) -> Iterator[str]:
    """The gradients of all parts, worked out elsewhere and given to `step`, do bit for bit what `reinforce` does."""
    whole, shared, elsewhere = world.fleet(), world.fleet(), world.fleet()
    for turn in range(2):
        samples_S = [world.graded(turn)]
        count = shared.parts(samples_S)
        if not is_a(count, int) or count < 1:
            yield f"the parts of a gradient are {shown(count)}: one at least"
            return
        if count == 1:
            return
        gradients = [elsewhere.gradient(samples_S, part) for part in range(count)]
        if whole.reinforce(samples_S) != shared.step(samples_S, gradients):
            yield "`step` says something else of the update than `reinforce`"
        if not same_mapping(whole.snapshot(0).tensors, shared.snapshot(0).tensors):
            yield "the parts of a gradient do not add up to the update of `reinforce`, bit for bit"
            return
        elsewhere = world.fleet(start=shared.snapshot(0))


def learns(world: TrainerWorld) -> Iterator[str]:
    """What has a positive advantage becomes more likely."""
    groups = world.fleet().sample(world.asked(samples=16), world.sampling)
    firsts = [(i, token) for i, group in enumerate(groups) for token in sorted({c.token_ids[0] for c in group})]

    def share(token: int, group: Sequence[Completion]) -> float:
        return sum(c.token_ids[0] == token for c in group) / len(group)

    # The first token that half of the completions have leaves most to learn.
    prompt, token = min(firsts, key=lambda place: abs(share(place[1], groups[place[0]]) - 0.5))
    mean = share(token, groups[prompt])
    fleet = world.fleet()
    for _ in range(6):
        fleet.reinforce([[GradedSample(c, (c.token_ids[0] == token) - mean) for c in groups[prompt]]])
    asked = [world.asked(samples=64, name="many")[prompt]]
    before, after = (share(token, each.sample(asked, world.sampling)[0]) for each in (world.fleet(), fleet))
    if after <= before:
        yield f"after 6 updates towards the first token {token} it is in {after:.0%} of samples, before in {before:.0%}"


def alone_as_in_a_fleet(world: TrainerWorld) -> Iterator[str]:
    """A policy in a fleet samples and learns as it does alone, up to rounding in the weights."""
    fleet, alone = world.fleet(3), world.fleet()
    if [c.text for c in world.drawn(fleet, policy=1)] != [c.text for c in world.drawn(alone)]:
        yield "the second of three policies gives other samples than it does alone"
    for turn in range(2):
        fleet.reinforce([world.graded(1), world.graded(turn), []])
        alone.reinforce([world.graded(turn)])
    if not same_mapping(fleet.snapshot(1).tensors, alone.snapshot(0).tensors, _ROUNDING):
        yield "the second of three policies learns otherwise than it does alone: do updates leak between policies?"
    if not same_mapping(fleet.snapshot(2).tensors, world.engine.start().tensors):
        yield "a policy changed when its neighbours learned"
    mixed = world.engine.fleet([world.engine.start(), alone.snapshot(0)], world.optimizer)
    if [c.text for c in world.drawn(mixed, policy=1)] != [c.text for c in world.drawn(alone)]:
        yield "a trained policy in a new fleet gives other samples than before"


def restores(world: TrainerWorld) -> Iterator[str]:
    """A fleet that takes up the state of another goes on bit for bit as that one."""
    one = world.fleet(2)
    one.reinforce([world.graded(0), world.graded(1)])
    state = one.state()
    kept = {name: np.array(tensor, copy=True) for name, tensor in state.items()}
    two = world.fleet(2)
    two.restore(kept)
    for s in range(2):
        if not same_mapping(one.snapshot(s).tensors, two.snapshot(s).tensors):
            yield f"policy {s} has other weights after restore"
            return
    for fleet in (one, two):
        fleet.reinforce([world.graded(1), world.graded(0)])
    if not same_mapping(state, kept):
        yield "the state changed when its fleet learned: it is no copy"
    if any(not same_mapping(one.snapshot(s).tensors, two.snapshot(s).tensors) for s in range(2)):
        yield "after restore the next update is another one: does the state lack the optimizer's moments?"
    if [c.text for c in world.drawn(one, 1)] != [c.text for c in world.drawn(two, 1)]:
        yield "after restore the samples are others"


def exports(world: TrainerWorld) -> Iterator[str]:
    """A policy can be exported merged, as files; and as an adapter, or else that is refused with a ModelError."""
    with tempfile.TemporaryDirectory() as directory:
        for merge in (False, True):
            place = Path(directory) / str(merge)
            place.mkdir()
            try:
                world.engine.export(world.engine.start(), place, merge=merge)
            except ModelError as error:
                if merge:
                    yield f"export with merge={merge} is refused: {error.message}"
                continue
            if not any(path.is_file() and path.stat().st_size for path in place.rglob("*")):
                yield f"export with merge={merge} wrote no file"


CHECKS: tuple[Check[TrainerWorld], ...] = (
    options,
    loads,
    finds,
    start,
    samples,
    same_streams,
    greedy,
    stop_strings,
    no_signal,
    parts,
    learns,
    alone_as_in_a_fleet,
    restores,
    exports,
)
