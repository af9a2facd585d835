"""The real engine with real adapters: what it samples, and that the canary sees its known traps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from soarctl.api import Completion, GradedSample, Optimizer, Prompt, SamplerError, Sampling, Stream

pytestmark = pytest.mark.vllm

QUESTIONS = ("3 #3", "YZ | left =", "write")
OPTIMIZER = Optimizer(lr=0.01)


def asked(policies: Sequence[int], samples: int = 8) -> list[Prompt]:
    return [Prompt(s, text, samples, Stream(("asked", s, text))) for s in policies for text in QUESTIONS]


def graded(groups: Sequence[Sequence[Completion]]) -> list[GradedSample]:
    return [GradedSample(c, 1.0 if len(c.token_ids) % 2 else -1.0) for group in groups for c in group]


def by_policy(groups: Sequence[list[Completion]]) -> list[list[GradedSample]]:
    size = len(QUESTIONS)
    return [graded(groups[at : at + size]) for at in range(0, len(groups), size)]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_four_adapters_in_one_batch_have_the_log_probs_of_the_trainer(
    temperature: float, load: Callable[..., Any], starts: Callable[[Any], Any]
) -> None:
    engine = load()
    fleet = engine.fleet(starts(engine), replace(OPTIMIZER, temperature=temperature))
    for _ in range(3):
        stats = fleet.reinforce(by_policy(fleet.sample(asked(range(4)), Sampling(24, temperature))))
        assert all(s.stepped and s.tokens > 30 for s in stats)
        assert max(s.logprob_gap for s in stats) < 1e-4


@pytest.mark.parametrize("stop", [(), (" ",), ("=", "YY"), (" Y", "N N")])
def test_greedy_completions_are_those_of_the_decoder(
    stop: tuple[str, ...], load: Callable[..., Any], starts: Callable[[Any], Any]
) -> None:
    ours, theirs = (
        engine.fleet(starts(engine), OPTIMIZER).sample(asked(range(4), 2), Sampling(24, 0.0, stop=stop))
        for engine in (load(None), load())
    )
    pairs = [pair for group in zip(ours, theirs, strict=True) for pair in zip(*group, strict=True)]
    for one, other in pairs:
        assert replace(other, logprobs=one.logprobs) == one
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    assert {one.finish for one, _ in pairs} >= ({"stop"} if stop else {"eos"})


def test_log_probs_are_those_of_the_nucleus_where_there_is_one(load: Callable[..., Any]) -> None:
    from soarctl.trainers.draw import nucleus

    engine, plain = load(), load(None)
    groups = engine.fleet([engine.start()], OPTIMIZER).sample(asked([0]), Sampling(24, 0.8, top_p=0.6))
    for c in (c for group in groups for c in group):
        with torch.inference_mode():
            logits = plain.machinery.forward.model(torch.tensor([c.prompt_ids + c.token_ids])).logits[0]
        expected = nucleus((logits[len(c.prompt_ids) - 1 : -1] / 0.8).log_softmax(1), 0.6)
        found = expected.gather(1, torch.tensor(c.token_ids)[:, None])[:, 0]
        assert c.logprobs == pytest.approx(found.tolist(), abs=1e-4)


def test_streams_decide_the_samples_of_one_and_the_same_batch(load: Callable[..., Any]) -> None:
    engine = load()
    fleet = engine.fleet([engine.start()], OPTIMIZER)

    def texts(name: str) -> list[str]:
        prompts = [Prompt(0, text, 8, Stream((name, text))) for text in QUESTIONS]
        return [c.text for group in fleet.sample(prompts, Sampling(24)) for c in group]

    assert texts("one") == texts("one")
    assert texts("one") != texts("two")
    assert len(set(texts("one"))) > 3


def test_new_weights_under_an_old_name_are_caught_and_named(
    load: Callable[..., Any], starts: Callable[[Any], Any]
) -> None:
    engine = load("one name")
    fleet = engine.fleet(starts(engine), OPTIMIZER)
    groups = fleet.sample(asked(range(4)), Sampling(24))
    fleet.reinforce([[], [], by_policy(groups)[2], []])
    with pytest.raises(SamplerError) as caught:
        fleet.sample(asked(range(4)), Sampling(24))
    said = str(caught.value)
    assert f"other weights than the trainer's for {fleet.name}.policy2.version1 (" in said
    assert [s for s in range(4) if f".policy{s}." in said] == [2]
    gap = float(said.partition("(")[2].partition(")")[0])
    assert gap > 0.05, "far above the limit of 1e-4"


def test_a_base_row_in_a_batch_of_adapters_is_caught_and_named(
    load: Callable[..., Any], starts: Callable[[Any], Any]
) -> None:
    engine = load("bare base")
    # As many adapters as the engine has places for: a bare row is given the last place, which may be empty.
    adapters = [*starts(engine)[1:], starts(engine)[1]]
    fleet = engine.fleet([engine.start(), *adapters], OPTIMIZER)
    with pytest.raises(SamplerError) as caught:
        fleet.sample(asked(range(1 + len(adapters))), Sampling(24))
    assert f"other weights than the trainer's for {fleet.name}.policy0.version0 (" in str(caught.value)
    assert float(str(caught.value).partition("(")[2].partition(")")[0]) > 0.05
    assert ".policy1." not in str(caught.value)
    # By itself such a row is right, which is why only the batch as it will stand can tell.
    alone = load("bare base")
    groups = alone.fleet([alone.start()], OPTIMIZER).sample(asked([0]), Sampling(24))
    assert {c.finish for group in groups for c in group} >= {"eos"}


def test_more_policies_than_the_engine_has_room_for_are_served_all_the_same(load: Callable[..., Any]) -> None:
    engine = load()
    fleet = engine.fleet([engine.start()] * 10, OPTIMIZER)
    for _ in range(2):
        stats = fleet.reinforce(by_policy(fleet.sample(asked(range(10), 4), Sampling(24))))
        assert max(s.logprob_gap for s in stats) < 1e-4


def test_torch_may_still_be_told_how_many_threads_to_use(load: Callable[..., Any]) -> None:
    engine = load()
    engine.fleet([engine.start()], OPTIMIZER).sample(asked([0], 1), Sampling(2))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_what_does_not_fit_into_the_engine_is_an_error_that_says_so(load: Callable[..., Any]) -> None:
    from soarctl.api import Request

    engine = load()
    engine.fleet([engine.start()], OPTIMIZER).sample(asked([0], 1), Sampling(2))
    vllm = engine.machinery.shipped()._engine.engine
    with pytest.raises(SamplerError, match="a prompt of 100 tokens and 100 to come are more than 128"):
        vllm.generate([Request(next(iter(vllm._policies._held)), (5,) * 100, 1, 100, 0)], Sampling(100))


def test_a_trainer_that_samples_through_vllm_keeps_its_promises(letters: str) -> None:
    from soarctl.api import Trainer
    from soarctl.plugins import load as load_plugin
    from soarctl.testing import check_trainer

    options = {"rank": 8, "width": 4, "device": "cpu", "sampler": "vllm"}
    check_trainer(load_plugin(Trainer, "accelerate", options), letters, QUESTIONS)
