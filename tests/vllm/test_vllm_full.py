"""All weights through the real engine: they take the place of its own, and the canary sees what stayed behind."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from soarctl.api import (
    Completion,
    Fleet,
    GradedSample,
    Optimizer,
    Policy,
    Prompt,
    Request,
    SamplerError,
    Sampling,
    Stream,
)

pytestmark = pytest.mark.vllm

Load = Callable[..., Any]
QUESTIONS = ("3 #3", "YZ | left =", "write")
# vLLM on a CPU caches prompts in blocks of 128 tokens.
LONG = "YZ | left = " * 50
OPTIMIZER = Optimizer(lr=1e-3)
GREEDY = Sampling(24, 0.0)


def asked(policies: Sequence[int] = (0,), texts: Sequence[str] = QUESTIONS) -> list[Prompt]:
    return [Prompt(s, text, 8, Stream(("asked", s, text))) for s in policies for text in texts]


def learn(fleet: Fleet, groups: Sequence[Sequence[Completion]]) -> Any:
    """One step of the only policy."""
    samples = [c for group in groups for c in group]
    signs = [1.0 if c.token_ids[0] % 2 else -1.0 for c in samples]
    return fleet.reinforce([[GradedSample(c, sign) for c, sign in zip(samples, signs, strict=True)]])[0]


def noisy(policy: Policy, seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy({k: (v + 0.05 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def texts(fleet: Fleet, policies: Sequence[int] = (0,)) -> list[str]:
    return [group[0].text for group in fleet.sample(asked(policies), GREEDY)]


@pytest.mark.parametrize(
    ("base", "temperature"), [("letters", 1.0), ("letters", 0.7), ("tied", 1.0), ("qwen3", 1.0), ("biased", 1.0)]
)
def test_after_every_update_log_probs_are_those_of_the_trainer(base: str, temperature: float, load_full: Load) -> None:
    engine = load_full(base)
    fleet = engine.fleet([engine.start()], replace(OPTIMIZER, temperature=temperature))
    before = fleet.snapshot(0)
    for _ in range(3):
        stats = learn(fleet, fleet.sample(asked(), Sampling(24, temperature)))
        assert stats.stepped
        assert stats.tokens > 30
        assert stats.logprob_gap < 1e-4
    after = fleet.snapshot(0)
    assert all((after.tensors[name] != tensor).any() for name, tensor in before.tensors.items())


def test_policies_in_turns_are_sampled_from_with_their_own_weights(load_full: Load) -> None:
    through, alone = load_full(), load_full(sampler="decoder")
    starts = [through.start(), *(noisy(through.start(), seed) for seed in (1, 2))]
    ours, theirs = (engine.fleet(starts, OPTIMIZER).sample(asked(range(3)), GREEDY) for engine in (alone, through))
    for one, other in (pair for group in zip(ours, theirs, strict=True) for pair in zip(*group, strict=True)):
        assert replace(other, logprobs=one.logprobs) == one
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    texts_S = [tuple(group[0].text for group in theirs[3 * s : 3 * s + 3]) for s in range(3)]
    assert len(set(texts_S)) == 3


def test_a_teacher_and_a_student_that_take_turns_stay_who_they_are(load_full: Load) -> None:
    engine = load_full()
    teacher, student = (engine.fleet([policy], OPTIMIZER) for policy in (engine.start(), noisy(engine.start(), 1)))
    of_teacher, of_student = texts(teacher), texts(student)
    assert of_teacher != of_student
    assert learn(student, student.sample(asked(), Sampling(24))).logprob_gap < 1e-4
    assert texts(teacher) == of_teacher
    assert texts(student) != of_student


def test_two_runs_of_a_process_share_an_engine_that_holds_one_policy(load_full: Load) -> None:
    one, other = load_full(), load_full()
    first = one.fleet([one.start()], OPTIMIZER)
    second = other.fleet([noisy(other.start(), 1)], OPTIMIZER)
    of_first = texts(first)
    assert texts(second) != of_first
    assert texts(first) == of_first
    assert one.machinery.shipped()._engine is other.machinery.shipped()._engine


@pytest.mark.parametrize(("defect", "prompt"), [("old weights", QUESTIONS[0]), ("old cache", LONG)])
def test_what_stayed_behind_is_caught_and_named(defect: str, prompt: str, load_full: Load) -> None:
    engine = load_full("tied", defect)
    fleet = engine.fleet([engine.start()], OPTIMIZER)
    learn(fleet, fleet.sample(asked(texts=[prompt]), Sampling(24)))
    with pytest.raises(SamplerError) as caught:
        fleet.sample(asked(texts=[prompt]), Sampling(24))
    said = re.search(r"other weights than the trainer's for fleet\d+\.policy0\.version1 \((.+)\): ", str(caught.value))
    assert said
    assert float(said[1]) > 0.01, "far above the limit of 1e-4"


def test_a_tied_head_that_is_not_sent_too_is_caught(load_full: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soarctl.trainers.vllm_policies._tied", lambda model: {})
    engine = load_full("tied")
    fleet = engine.fleet([noisy(engine.start(), 1)], OPTIMIZER)
    with pytest.raises(SamplerError, match="other weights than the trainer's for "):
        learn(fleet, fleet.sample(asked(), Sampling(24)))


def test_a_long_prompt_is_read_with_the_weights_of_now(load_full: Load) -> None:
    engine = load_full("tied")
    fleet = engine.fleet([engine.start()], OPTIMIZER)
    for _ in range(2):
        assert learn(fleet, fleet.sample(asked(texts=[LONG]), Sampling(24))).logprob_gap < 1e-4


def test_a_policy_that_the_engine_does_not_hold_is_refused(load_full: Load) -> None:
    engine = load_full()
    fleet = engine.fleet([engine.start()], OPTIMIZER)
    fleet.sample(asked(), Sampling(2))
    vllm = engine.machinery.shipped()._engine
    with pytest.raises(
        SamplerError, match=r"vLLM holds the weights of fleet\d+.policy0.version0, and other was asked for"
    ):
        vllm.generate([Request("other", (5,), 1, 1, 0)], Sampling(1))
    two = {"one": engine.start(), "two": engine.start()}
    with pytest.raises(SamplerError, match="vLLM holds all weights of one policy at a time, and was sent 2"):
        vllm.update(two, [])


def test_weights_that_are_not_those_of_the_model_are_an_error_and_half_written_ones_are_not_served(
    load_full: Load,
) -> None:
    engine = load_full()
    engine.fleet([engine.start()], OPTIMIZER).sample(asked(), Sampling(2))
    vllm = engine.machinery.shipped()._engine
    half = dict(list(engine.start().tensors.items())[:5])
    strange = Policy(half | {"model.strange": np.zeros(3, np.float32)})
    with pytest.raises(SamplerError, match=r"vLLM cannot take up a policy: .*strange"):
        vllm.update({"strange": strange}, [])
    with pytest.raises(SamplerError, match="vLLM holds the weights of no policy, and strange was asked for"):
        vllm.generate([Request("strange", (5,), 1, 1, 0)], Sampling(1))
    whole = engine.fleet([noisy(engine.start(), 1)], OPTIMIZER)
    assert learn(whole, whole.sample(asked(), Sampling(24))).logprob_gap < 1e-4


def test_a_trainer_of_all_weights_that_samples_through_vllm_keeps_its_promises(letters: str) -> None:
    from soarctl.api import Trainer
    from soarctl.plugins import load as load_plugin
    from soarctl.testing import check_trainer

    check_trainer(load_plugin(Trainer, "full", {"device": "cpu", "sampler": "vllm"}), letters, QUESTIONS)
