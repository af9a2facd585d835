"""One decode batch, from prompts to sampled tokens.

Samples of one prompt that begin alike have the same next distribution. So on a CPU the model works on *branches*: each
beginning once, for all samples that share it, and a branch forks where they part. On a GPU, which would have to wait
for Python to see where they part, every sample has a branch of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import Sampling
from soarctl.trainers.block_cache import BlockCache, joined
from soarctl.trainers.draw import draw, wide_float
from soarctl.trainers.forward import Extend, Forward
from soarctl.trainers.stops import StopFinder

# Prompt tokens that are read in one forward.
PREFILL_TOKENS = 2**14
# Branches that are done are dropped when the rest is at most this share of the batch: moving others into their places
# is then earned back within a few tokens.
WORTH_DROPPING = 15 / 16

Finish = Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence to sample."""

    request: int
    k: int
    """Which sample of its request it is."""
    prompt_ids: tuple[int, ...]
    room: int
    """Most tokens that it may get; at least 1."""
    uniforms_T: NDArray[np.float64]
    """What decides its tokens, one number each."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What became of a row."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class _Read:
    """The model after M prompts: each policy's different ones, and as many for all policies."""

    logits_M_V: Tensor
    cache: BlockCache
    pads_M: Tensor
    place_S_U: NDArray[np.int64]
    """Which of the M is prompt u of policy s."""


@dataclass(slots=True)
class _Running:
    """The A rows that have not ended, policy by policy, and the B branches that the model works on for them.

    Branches come in equal parts for each policy, filled up with some that no row is on.
    """

    row_A: NDArray[np.int64]
    branch_A: NDArray[np.int64]
    positions_B: Tensor
    mask: Tensor | None
    cache: BlockCache
    extend: Extend

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """row_A and branch_A as tensors."""
        return torch.from_numpy(self.row_A).to(device), torch.from_numpy(self.branch_A).to(device)


class DecodeBatch:
    """Samples rows of several policies together."""

    def __init__(
        self,
        forward: Forward,
        rows_S: Sequence[Sequence[Row]],
        sampling: Sampling,
        eos_ids: Sequence[int],
        finder: StopFinder,
    ) -> None:
        self._forward, self._sampling, self._finder = forward, sampling, finder
        self._eos_ids = np.array(eos_ids, np.int64)
        self._rows_S = rows_S
        rows_N = [row for rows in rows_S for row in rows]
        self._room_N = np.array([row.room for row in rows_N])
        self._policy_N = np.repeat(np.arange(len(rows_S)), [len(rows) for rows in rows_S])
        last, device = int(self._room_N.max()), forward.device
        uniforms_N_T = torch.from_numpy(np.stack([row.uniforms_T[:last] for row in rows_N]))
        self._uniforms_N_T = uniforms_N_T.to(device, wide_float(device))
        self._tokens_N_T = torch.zeros(len(rows_N), last, dtype=torch.long, device=device)
        self._logprobs_N_T = torch.zeros(len(rows_N), last, device=device)
        self._length_N = np.zeros(len(rows_N), np.int64)
        self._finish_N = np.full(len(rows_N), "length")
        self._forks = forks(device)
        # Looking at tokens makes a GPU wait, so there it is done every few tokens only.
        self._interval = 1 if self._forks else 8

    def run(self) -> list[Sampled]:
        """All rows to their ends, in order."""
        running, logits_B_V = self._start()
        row_A, branch_A = running.on(self._forward.device)
        seen, last = 0, self._tokens_N_T.shape[1]
        for t in range(last):
            tokens_A, logprobs_A = draw(logits_B_V, branch_A, self._uniforms_N_T[row_A, t], self._sampling)
            self._tokens_N_T[row_A, t], self._logprobs_N_T[row_A, t] = tokens_A, logprobs_A
            if (t + 1) % self._interval == 0 or t + 1 == last:
                self._regroup(running, self._look(running.row_A, seen, t + 1), t)
                if not len(running.row_A):
                    break
                row_A, branch_A = running.on(self._forward.device)
                seen = t + 1
            tokens_B = torch.zeros_like(running.positions_B)
            tokens_B[branch_A] = self._tokens_N_T[row_A, t]
            logits_B_V = running.extend(tokens_B, running.positions_B, running.mask, running.cache)
            running.positions_B += 1
        running.cache.release()
        return self._sampled()

    def _start(self) -> tuple[_Running, Tensor]:
        """The rows on their branches, and the logits_B_V that follow the prompts of these."""
        prompts_S = [list({row.prompt_ids: None for row in rows}) for rows in self._rows_S]
        read = self._read(prompts_S)
        # With forks a branch is a prompt; without, it is a row.
        width = max(map(len, prompts_S if self._forks else self._rows_S))
        place_S_W = np.repeat(read.place_S_U[:, :1], width, axis=1)
        branches = list[NDArray[np.int64]]()
        for s, (prompts, rows) in enumerate(zip(prompts_S, self._rows_S, strict=True)):
            number = {prompt: u for u, prompt in enumerate(prompts)}
            prompt_K = np.array([number[row.prompt_ids] for row in rows])
            branch_K = prompt_K if self._forks else np.arange(len(rows))
            place_S_W[s, branch_K] = read.place_S_U[s, prompt_K]
            branches.append(branch_K + s * width)
        place_B = torch.from_numpy(place_S_W.ravel()).to(self._forward.device)
        positions_B = read.cache.length - read.pads_M[place_B]
        cache, mask, extend = self._forward.branch_off(
            read.cache, read.pads_M, place_B, self._tokens_N_T.shape[1], len(prompts_S)
        )
        running = _Running(np.arange(len(self._room_N)), np.concatenate(branches), positions_B, mask, cache, extend)
        return running, read.logits_M_V[place_B]

    def _read(self, prompts_S: Sequence[Sequence[tuple[int, ...]]]) -> _Read:
        """Reads each policy's different prompts, padded on the left, in parts that fit."""
        ids_S_U_T, pads_S_U = _padded(prompts_S)
        policies, count, length = ids_S_U_T.shape
        ids, pads = torch.from_numpy(ids_S_U_T), torch.from_numpy(pads_S_U)
        size = max(1, PREFILL_TOKENS // (policies * length))
        parts, place_S_U = list[tuple[Tensor, BlockCache, Tensor]](), np.zeros((policies, count), np.int64)
        for at in range(0, count, size):
            part = ids[:, at : at + size]
            place_S_U[:, at : at + size] = policies * at + np.arange(part.shape[0] * part.shape[1]).reshape(
                part.shape[:2]
            )
            pads_M = pads[:, at : at + size].flatten().to(self._forward.device)
            parts.append((*self._forward.read(part.flatten(0, 1).to(self._forward.device), pads_M), pads_M))
        logits, caches, pads_of_parts = zip(*parts, strict=True)
        return _Read(torch.cat(logits), joined(caches), torch.cat(pads_of_parts), place_S_U)

    def _look(self, row_A: NDArray[np.int64], seen: int, now: int) -> NDArray[np.bool_]:
        """Notes which rows have ended by their tokens `seen` to `now`; returns which have not."""
        tokens_A_T = self._tokens_N_T[:, seen:now].cpu().numpy()[row_A]
        eos_A_T = (tokens_A_T[:, :, None] == self._eos_ids).any(2)
        stop_A_T = self._finder.suspects(tokens_A_T) & ~eos_A_T
        for a, t in np.argwhere(stop_A_T).tolist():
            stop_A_T[a, t] = self._finder.contains(self._tokens_N_T[row_A[a], : seen + t + 1].tolist())
        length_T = np.arange(seen, now) + 1
        end_A_T = eos_A_T | stop_A_T | (length_T >= self._room_N[row_A, None])
        ends_A = end_A_T.any(1)
        row_E, first_E = row_A[ends_A], end_A_T[ends_A].argmax(1)
        eos_E, stop_E = eos_A_T[ends_A, first_E], stop_A_T[ends_A, first_E]
        self._length_N[row_E] = length_T[first_E]
        self._finish_N[row_E] = np.where(eos_E, "eos", np.where(stop_E, "stop", "length"))
        return ~ends_A

    def _regroup(self, running: _Running, goes_on_A: NDArray[np.bool_], t: int) -> None:
        """Leaves the rows that have ended behind, and parts those that drew different tokens at `t`."""
        running.row_A, running.branch_A = running.row_A[goes_on_A], running.branch_A[goes_on_A]
        if not len(running.row_A):
            return
        keys_A = running.branch_A
        if self._forks:
            tokens_A = self._tokens_N_T[:, t].numpy()[running.row_A]
            keys_A = keys_A * (int(tokens_A.max()) + 1) + tokens_A
        _, first_C, child_A = np.unique(keys_A, return_index=True, return_inverse=True)
        parents_C, policy_C = running.branch_A[first_C], self._policy_N[running.row_A[first_C]]
        before, policies = len(running.positions_B), len(self._rows_S)
        width = int(np.bincount(policy_C).max())
        if WORTH_DROPPING * before < width * policies <= before:
            width = before // policies
        places_C = placed(parents_C, policy_C, width, policies)
        running.branch_A = places_C[child_A]
        # A place without a branch goes on with what is in it, which counts for nothing.
        sources_B = np.minimum(np.arange(width * policies), before - 1)
        sources_B[places_C] = parents_C
        if len(sources_B) != before or (sources_B != np.arange(before)).any():
            sources = torch.from_numpy(sources_B)
            running.cache.move(sources)
            sources = sources.to(self._forward.device)
            running.positions_B = running.positions_B[sources]
            running.mask = None if running.mask is None else running.mask[sources]

    def _sampled(self) -> list[Sampled]:
        tokens_N_T, logprobs_N_T = self._tokens_N_T.tolist(), self._logprobs_N_T.tolist()
        return [
            Sampled(tuple(tokens_T[:length]), tuple(logprobs_T[:length]), finish)
            for tokens_T, logprobs_T, length, finish in zip(
                tokens_N_T,
                logprobs_N_T,
                self._length_N.tolist(),
                cast(list[Finish], self._finish_N.tolist()),
                strict=True,
            )
        ]


def forks(device: torch.device) -> bool:
    """Whether rows share branches: where looking at each token costs no waiting."""
    return device.type == "cpu"


def placed(parents_C: NDArray[np.int64], policy_C: NDArray[np.int64], width: int, policies: int) -> NDArray[np.int64]:
    """Where branches go in a batch of `policies` parts, `width` places each, so that few have to be moved.

    Args:
        parents_C: the places that they come from, in ascending order; several come from one where it forks.
        policy_C: whose they are, ascending; at most `width` of each.

    Returns:
        places_C, all different. The first branch of a parent stays where that was, if its policy's part is still there.
    """
    stays_C = (np.diff(parents_C, prepend=-1) > 0) & (parents_C // width == policy_C)
    taken_B = np.zeros(width * policies, np.bool_)
    taken_B[parents_C[stays_C]] = True
    free = np.flatnonzero(~taken_B)
    moving = policy_C[~stays_C]
    nth_of_policy = np.arange(len(moving)) - np.searchsorted(moving, moving)
    places_C = parents_C.copy()
    places_C[~stays_C] = free[np.searchsorted(free, moving * width) + nth_of_policy]
    return places_C


def _padded(prompts_S: Sequence[Sequence[tuple[int, ...]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids_S_U_T, padded on the left, and pads_S_U; a policy with fewer prompts repeats its first."""
    count = max(len(prompts) for prompts in prompts_S)
    length = max(len(prompt) for prompts in prompts_S for prompt in prompts)
    ids_S_U_T = np.zeros((len(prompts_S), count, length), np.int64)
    pads_S_U = np.zeros((len(prompts_S), count), np.int64)
    for s, prompts in enumerate(prompts_S):
        for u in range(count):
            prompt = prompts[u] if u < len(prompts) else prompts[0]
            pads_S_U[s, u] = length - len(prompt)
            ids_S_U_T[s, u, pads_S_U[s, u] :] = prompt
    return ids_S_U_T, pads_S_U
