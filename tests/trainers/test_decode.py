from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from soarctl.api import Completion, Engine, Fleet, ModelError, Optimizer, Policy, Prompt, Sampling, Stream
from soarctl.trainers import decode_batch, forward, token_attention
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.forward import Forward

Load = Callable[..., AccelerateEngine]
TEXTS = ("abc", "the cat sat on", "x", "zebra:", "no.")


def prompts(*texts: str, policy: int = 0, samples: int = 1) -> list[Prompt]:
    return [Prompt(policy, text, samples, Stream(("test", policy, text))) for text in texts]


def noisy(policy: Policy, seed: int, size: float = 0.3) -> Policy:
    """The policy with other weights; of an adapter, B is no longer zero."""
    rng = np.random.default_rng(seed)
    return Policy({k: (v + size * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


def fleet(engine: Engine, size: int = 1) -> Fleet:
    return engine.fleet([noisy(engine.start(), s) for s in range(size)], Optimizer(lr=1e-3))


def tokens(completions: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group] for group in completions]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_greedy_completions_are_those_of_generate(architecture: str, load: Load, models: dict[str, str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(models[architecture])
    tokenizer = AutoTokenizer.from_pretrained(models[architecture])
    engine = load(architecture)
    base = engine.fleet([engine.start()], Optimizer(lr=1e-3))
    found = base.sample(prompts(*TEXTS), Sampling(20, temperature=0))
    for text, (completion,) in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokenizer.encode(text)])
        generated = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, pad_token_id=0
        )[0]
        assert completion.prompt_ids + completion.token_ids == tuple(generated.tolist())


def test_the_same_call_gives_the_same_bits(engine: Engine) -> None:
    asked = [p for s in range(3) for p in prompts(*TEXTS, policy=s, samples=4)]
    first = fleet(engine, 3).sample(asked, Sampling(16))
    assert fleet(engine, 3).sample(asked, Sampling(16)) == first


def test_a_sample_does_not_depend_on_the_rest_of_the_batch(engine: Engine) -> None:
    three = fleet(engine, 3)
    asked = [p for s in range(3) for p in prompts(*TEXTS, policy=s, samples=6)]
    together = tokens(three.sample(asked, Sampling(16)))
    for prompt, group in zip(asked, together, strict=True):
        assert tokens(three.sample([prompt], Sampling(16))) == [group]


def test_sample_k_does_not_depend_on_how_many_are_asked_for(engine: Engine) -> None:
    many = tokens(fleet(engine).sample(prompts("abc", samples=9), Sampling(16)))[0]
    few = tokens(fleet(engine).sample(prompts("abc", samples=4), Sampling(16)))[0]
    assert few == many[:4]


def test_policies_sample_with_their_own_weights(engine: Engine) -> None:
    starts = [noisy(engine.start(), s) for s in range(3)]
    together = engine.fleet(starts, Optimizer(lr=1e-3))
    for s, start in enumerate(starts):
        alone = engine.fleet([start], Optimizer(lr=1e-3))
        expected = [Prompt(0, p.text, 4, p.stream) for p in prompts(*TEXTS, policy=s)]
        assert tokens(together.sample(prompts(*TEXTS, policy=s, samples=4), Sampling(16))) == tokens(
            alone.sample(expected, Sampling(16))
        )


def test_batches_that_are_split_give_the_same_samples(load: Load) -> None:
    asked = [p for s in range(3) for p in prompts(*TEXTS[s:], policy=s, samples=5)]
    whole, split = fleet(load(), 3), fleet(load(max_sequences=4), 3)
    assert tokens(whole.sample(asked, Sampling(16))) == tokens(split.sample(asked, Sampling(16)))
    narrow = fleet(load(max_sequences=2), 3)
    assert tokens(whole.sample(asked, Sampling(16))) == tokens(narrow.sample(asked, Sampling(16)))


def test_prompts_that_are_read_in_parts_give_the_same_samples(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [p for s in range(2) for p in prompts(*TEXTS, policy=s, samples=3)]
    whole = tokens(fleet(engine, 2).sample(asked, Sampling(16)))
    monkeypatch.setattr(decode_batch, "PREFILL_TOKENS", 60)
    assert tokens(fleet(engine, 2).sample(asked, Sampling(16))) == whole


def test_tokens_come_as_often_as_they_are_likely(engine: Engine, models: dict[str, str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(models["llama"])
    base = engine.fleet([engine.start()], Optimizer(lr=1e-3))
    (group,) = base.sample(prompts("abc", samples=4000), Sampling(1, temperature=0.7))
    ids = torch.tensor([group[0].prompt_ids])
    expected = (model(ids).logits[0, -1].double() / 0.7).softmax(0).detach().numpy()
    found = np.bincount([c.token_ids[0] for c in group], minlength=len(expected)) / len(group)
    # Four standard deviations of a share.
    assert (abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / len(group)) + 1e-9).all()
    for completion in group[:50]:
        assert completion.logprobs[0] == pytest.approx(np.log(expected[completion.token_ids[0]]), abs=1e-5)


def test_top_p_keeps_the_fewest_tokens_that_hold_it(engine: Engine, models: dict[str, str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(models["llama"])
    base = engine.fleet([engine.start()], Optimizer(lr=1e-3))
    (group,) = base.sample(prompts("abc", samples=2000), Sampling(1, top_p=0.5))
    probs = model(torch.tensor([group[0].prompt_ids])).logits[0, -1].softmax(0).detach().numpy()
    kept = list[int]()
    for token in np.argsort(-probs):
        kept.append(int(token))
        if probs[kept].sum() >= 0.5:
            break
    assert {c.token_ids[0] for c in group} == set(kept)
    for completion in group[:50]:
        expected = np.log(probs[completion.token_ids[0]] / probs[kept].sum())
        assert completion.logprobs[0] == pytest.approx(expected, abs=1e-5)


def test_a_completion_ends_at_eos_and_its_text_leaves_it_out(engine: Engine) -> None:
    (group,) = fleet(engine).sample(prompts("abc", samples=200), Sampling(30))
    assert {c.finish for c in group} == {"eos", "length"}
    for completion in group:
        assert (completion.token_ids[-1] == 1) == (completion.finish == "eos")
        assert 1 not in completion.token_ids[:-1]
        assert len(completion.text) == sum(token > 1 for token in completion.token_ids)
        assert len(completion.logprobs) == len(completion.token_ids)
        assert completion.finish == "eos" or len(completion.token_ids) == 30


def test_a_completion_ends_at_a_stop_string_and_its_text_leaves_it_out(adapters: Engine) -> None:
    (free,) = fleet(adapters).sample(prompts("abc", samples=200), Sampling(30))
    stop = free[0].text[3:5]
    (stopped,) = fleet(adapters).sample(prompts("abc", samples=200), Sampling(30, stop=("..........", stop)))
    assert stopped[0].finish == "stop"
    for one, other in zip(free, stopped, strict=True):
        at = one.text.find(stop)
        if at < 0:
            assert (other.text, other.token_ids, other.finish) == (one.text, one.token_ids, one.finish)
        else:
            assert (other.text, other.finish) == (one.text[:at], "stop")
            length = len(other.token_ids)
            assert other.token_ids == one.token_ids[:length]
            assert sum(token > 1 for token in other.token_ids) == at + len(stop)
            assert other.logprobs == pytest.approx(one.logprobs[:length], abs=1e-5)


def test_completions_end_where_the_model_has_no_more_positions(engine: Engine) -> None:
    short, full, over = fleet(engine).sample(
        prompts("a" * 60, "b" * 64, "c" * 70, samples=2), Sampling(30, temperature=0)
    )
    assert all(len(c.token_ids) == 4 or c.finish == "eos" for c in short)
    assert [(c.text, c.token_ids, c.finish) for c in full + over] == [("", (), "length")] * 4


def test_a_chat_template_wraps_the_prompt_as_one_user_turn(load: Load) -> None:
    plain, chat = load(), load(chat_template=True)
    (expected,) = fleet(plain).sample(prompts("u:abc."), Sampling(1))[0]
    (found,) = fleet(chat).sample(prompts("abc"), Sampling(1))[0]
    assert found.prompt_ids == expected.prompt_ids


def test_out_of_memory_halves_the_batch_and_changes_no_sample(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [p for s in range(2) for p in prompts(*TEXTS, policy=s, samples=4)]
    expected = tokens(fleet(load(), 2).sample(asked, Sampling(16)))
    engine = load(max_sequences=40)
    calls = count()
    draw = decode_batch.draw

    def draw_once_out_of_memory(*arguments: object) -> object:
        if next(calls) == 5:
            raise torch.OutOfMemoryError
        return draw(*arguments)

    monkeypatch.setattr(decode_batch, "draw", draw_once_out_of_memory)
    said = (
        "out of memory while sampling: 20 sequences at once for these prompts; "
        "trainer.max_sequences sets a limit from the beginning"
    )
    with pytest.warns(UserWarning, match=said):
        assert tokens(fleet(engine, 2).sample(asked, Sampling(16))) == expected
    calls = count()
    with pytest.warns(UserWarning, match=said):  # the limit was 40 again
        assert tokens(fleet(engine, 2).sample(asked, Sampling(16))) == expected


def test_a_sequence_that_is_too_large_by_itself_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*arguments: object) -> object:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(decode_batch, "draw", draw)
    with pytest.raises(ModelError) as error:
        fleet(load(max_sequences=1)).sample(prompts("abc"), Sampling(4))
    assert str(error.value) == "out of memory while sampling a single sequence\n  use a smaller model or dtype"


def test_a_prompt_without_tokens_is_an_error(engine: Engine) -> None:
    with pytest.raises(ModelError) as error:
        fleet(engine).sample(prompts(""), Sampling(4))
    assert str(error.value) == "the tokenizer makes no token of the prompt ''"


def test_beginnings_that_samples_share_are_worked_out_once_and_change_no_sample(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [p for s in range(3) for p in prompts(*TEXTS[: s + 1], policy=s, samples=20)]
    worked_out = list[int]()
    branch_off = Forward.branch_off

    def counting(*arguments: Any) -> tuple[Any, ...]:
        *rest, extend = branch_off(*arguments)

        def count(tokens_B: torch.Tensor, *others: Any) -> torch.Tensor:
            worked_out.append(len(tokens_B))
            return extend(tokens_B, *others)

        return *rest, count

    monkeypatch.setattr(Forward, "branch_off", counting)
    for sampling in (Sampling(16), Sampling(16, temperature=0.5, top_p=0.9), Sampling(16, temperature=0)):
        found = dict[bool, list[object]]()
        rows = dict[bool, int]()
        for forks in (True, False):
            monkeypatch.setattr(decode_batch, "forks", lambda _, forks=forks: forks)
            worked_out.clear()
            found[forks] = tokens(fleet(load(), 3).sample(asked, sampling))
            rows[forks] = sum(worked_out)
        assert found[True] == found[False]
        assert rows[True] < rows[False] / (1.05 if sampling.temperature == 1 else 1.2)


def test_branches_stay_where_they_are_unless_they_fork_or_their_part_moves() -> None:
    # Two policies with six places each; the first one's branch 3 forks, and the parts become four places wide.
    parents_C, policy_C = np.array([0, 3, 3, 4, 7, 8]), np.array([0, 0, 0, 0, 1, 1])
    assert decode_batch.placed(parents_C, policy_C, 4, 2).tolist() == [0, 3, 1, 2, 7, 4]


def test_a_fork_takes_new_places_where_all_are_taken() -> None:
    parents_C, policy_C = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 0, 0, 1, 1, 1])
    assert decode_batch.placed(parents_C, policy_C, 3, 2).tolist() == [0, 2, 1, 4, 3, 5]


@pytest.mark.parametrize("attend", ["by_products", "by_sdpa"])
def test_one_token_attends_as_sdpa_does(attend: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [p for s in range(2) for p in prompts(*TEXTS, policy=s, samples=4)]
    monkeypatch.setattr(token_attention, "by_products", getattr(token_attention, attend))
    monkeypatch.setattr(forward, "llama_step", lambda *_: None)
    by_token, by_sdpa = load("llama"), load("llama")
    by_sdpa.machinery.forward.model.set_attn_implementation("sdpa")
    assert tokens(fleet(by_token, 2).sample(asked, Sampling(16))) == tokens(
        fleet(by_sdpa, 2).sample(asked, Sampling(16))
    )
