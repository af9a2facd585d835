"""One decode batch, from prompts to sampled tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import Sampling
from soarctl.trainers.block_cache import BlockCache, joined
from soarctl.trainers.draw import draw, wide_float
from soarctl.trainers.forward import Forward
from soarctl.trainers.stops import StopFinder

# Prompt tokens that are read in one forward.
PREFILL_TOKENS = 2**14
# Finished rows are dropped when the rest is at most this share of the batch: moving others into their places is then
# earned back within a few tokens.
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


@dataclass(slots=True)
class _Running:
    """The sequences in the batch at present, policy by policy, and what was sampled for each so far."""

    index_B: NDArray[np.int64]
    """Which row of the batch's list each one is; fillers are the one after the last."""
    alive_B: NDArray[np.bool_]
    positions_B: Tensor
    mask: Tensor | None
    uniforms_B_T: Tensor
    tokens_B_T: Tensor
    logprobs_B_T: Tensor

    def keep(self, kept_B: Tensor) -> None:
        """Drops all sequences but these."""
        self.index_B, self.alive_B = self.index_B[kept_B.cpu().numpy()], self.alive_B[kept_B.cpu().numpy()]
        self.positions_B, self.uniforms_B_T = self.positions_B[kept_B], self.uniforms_B_T[kept_B]
        self.tokens_B_T, self.logprobs_B_T = self.tokens_B_T[kept_B], self.logprobs_B_T[kept_B]
        self.mask = None if self.mask is None else self.mask[kept_B]


class DecodeBatch:
    """Samples rows of several policies together: equally many for each, filled up with rows that count for nothing."""

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
        self._rows_N = [row for rows in rows_S for row in rows]
        self._ends = dict[int, tuple[int, Finish]]()
        # One line more than rows, which takes what fillers produce.
        shape = (len(self._rows_N) + 1, max(row.room for row in self._rows_N))
        self._tokens_N_T, self._logprobs_N_T = np.zeros(shape, np.int64), np.zeros(shape, np.float32)

    def run(self) -> list[Sampled]:
        """All rows to their ends, in order."""
        running, cache, logits_B_V = self._start()
        # Looking at tokens makes a GPU wait for Python, so there it is done every few tokens only.
        interval = 1 if self._forward.device.type == "cpu" else 8
        looked = 0
        for t in range(last := self._tokens_N_T.shape[1]):
            running.tokens_B_T[:, t], running.logprobs_B_T[:, t] = draw(
                logits_B_V, running.uniforms_B_T[:, t], self._sampling
            )
            if (t + 1) % interval == 0 or t + 1 == last:
                self._look(running, looked, t + 1)
                looked = t + 1
                if not running.alive_B.any():
                    break
                self._drop_finished(running, cache, looked)
            logits_B_V = self._forward.extend(running.tokens_B_T[:, t], running.positions_B, running.mask, cache)
            running.positions_B += 1
        self._save(running, looked)
        return [self._sampled(n) for n in range(len(self._rows_N))]

    def _start(self) -> tuple[_Running, BlockCache, Tensor]:
        """The rows laid out, with the cache and the logits_B_V that follow their prompts."""
        prompts_S = [list({row.prompt_ids: None for row in rows}) for rows in self._rows_S]
        logits_M_V, caches, place_S_U = self._read(prompts_S)
        width = max(len(rows) for rows in self._rows_S)
        index_S_W = np.full((len(self._rows_S), width), len(self._rows_N))
        place_S_W = np.repeat(place_S_U[:, :1], width, axis=1)
        n = 0
        for s, rows in enumerate(self._rows_S):
            number = {prompt: u for u, prompt in enumerate(prompts_S[s])}
            index_S_W[s, : len(rows)] = np.arange(n, n + len(rows))
            place_S_W[s, : len(rows)] = place_S_U[s, [number[row.prompt_ids] for row in rows]]
            n += len(rows)
        place_B = torch.from_numpy(place_S_W.ravel()).to(self._forward.device)
        cache = joined(caches)
        cache.gather(place_B)
        return self._running(index_S_W.ravel(), cache.length), cache, logits_M_V[place_B]

    def _read(
        self, prompts_S: Sequence[Sequence[tuple[int, ...]]]
    ) -> tuple[Tensor, list[BlockCache], NDArray[np.int64]]:
        """Reads each policy's different prompts, padded on the left, in parts that fit.

        Returns:
            logits_M_V and the caches of the parts, M counted through all of them; and place_S_U, which of the M
            prompt u of policy s is.
        """
        ids_S_U_T, pads_S_U = _padded(prompts_S)
        policies, count, length = ids_S_U_T.shape
        ids, pads = torch.from_numpy(ids_S_U_T), torch.from_numpy(pads_S_U)
        size = max(1, PREFILL_TOKENS // (policies * length))
        logits, caches, place_S_U = list[Tensor](), list[BlockCache](), np.zeros((policies, count), np.int64)
        for at in range(0, count, size):
            part = ids[:, at : at + size]
            place_S_U[:, at : at + size] = policies * at + np.arange(part.shape[0] * part.shape[1]).reshape(
                part.shape[:2]
            )
            part_logits_V, cache = self._forward.read(
                part.flatten(0, 1).to(self._forward.device),
                pads[:, at : at + size].flatten().to(self._forward.device),
            )
            logits.append(part_logits_V)
            caches.append(cache)
        return torch.cat(logits), caches, place_S_U

    def _running(self, index_B: NDArray[np.int64], length: int) -> _Running:
        """The rows with these indices after prompts of `length` positions, padding included."""
        device, (_, last) = self._forward.device, self._tokens_N_T.shape
        # A filler repeats its policy's first prompt, but for its mask it may as well be any row.
        rows = [self._rows_N[min(n, len(self._rows_N) - 1)] for n in index_B]
        sizes_B = torch.tensor([len(row.prompt_ids) for row in rows], device=device)
        uniforms_B_T = np.stack([row.uniforms_T[:last] for row in rows])
        return _Running(
            index_B=index_B,
            alive_B=index_B < len(self._rows_N),
            positions_B=sizes_B,
            mask=self._forward.padding_mask(length - sizes_B, length + last),
            uniforms_B_T=torch.from_numpy(uniforms_B_T).to(device, wide_float(device)),
            tokens_B_T=torch.zeros(len(rows), last, dtype=torch.long, device=device),
            logprobs_B_T=torch.zeros(len(rows), last, device=device),
        )

    def _look(self, running: _Running, seen: int, now: int) -> None:
        """Notes which rows have ended by their tokens `seen` to `now`."""
        tokens_B_T = running.tokens_B_T[:, seen:now].cpu().numpy()
        eos_B_T = np.isin(tokens_B_T, self._eos_ids)
        suspect_B_T = eos_B_T | self._finder.suspects(tokens_B_T)
        room_B = np.array([self._rows_N[n].room if n < len(self._rows_N) else 0 for n in running.index_B])
        for b in np.flatnonzero(running.alive_B & (suspect_B_T.any(1) | (room_B <= now))):
            end = self._end(running.tokens_B_T[b], eos_B_T[b], suspect_B_T[b], seen, int(room_B[b]))
            if end is not None:
                self._ends[int(running.index_B[b])] = end
                running.alive_B[b] = False

    def _end(
        self, tokens_T: Tensor, eos_T: NDArray[np.bool_], suspect_T: NDArray[np.bool_], seen: int, room: int
    ) -> tuple[int, Finish] | None:
        """Length and reason, if the sequence ends within the tokens looked at."""
        for length, (eos, suspect) in enumerate(zip(eos_T, suspect_T, strict=True), seen + 1):
            if eos:
                return length, "eos"
            if suspect and self._finder.contains(tokens_T[:length].tolist()):
                return length, "stop"
            if length == room:
                return length, "length"
        return None

    def _drop_finished(self, running: _Running, cache: BlockCache, now: int) -> None:
        alive_S_W = running.alive_B.reshape(len(self._rows_S), -1)
        width = int(alive_S_W.sum(1).max())
        if width > WORTH_DROPPING * alive_S_W.shape[1]:
            return
        self._save(running, now)
        sources_B, alive_B = packed(alive_S_W, width)
        moved_M = np.flatnonzero(sources_B != np.arange(len(sources_B)))
        device = self._forward.device
        running.keep(torch.from_numpy(sources_B).to(device))
        # A place that no row needs goes on with what is in it, which from now on counts for nothing.
        running.alive_B, running.index_B[~alive_B] = alive_B, len(self._rows_N)
        cache.move(
            torch.from_numpy(sources_B[moved_M]).to(device), torch.from_numpy(moved_M).to(device), len(sources_B)
        )

    def _save(self, running: _Running, now: int) -> None:
        self._tokens_N_T[running.index_B, :now] = running.tokens_B_T[:, :now].cpu().numpy()
        self._logprobs_N_T[running.index_B, :now] = running.logprobs_B_T[:, :now].cpu().numpy()

    def _sampled(self, n: int) -> Sampled:
        length, finish = self._ends[n]
        return Sampled(
            tuple(self._tokens_N_T[n, :length].tolist()), tuple(self._logprobs_N_T[n, :length].tolist()), finish
        )


def packed(alive_S_W: NDArray[np.bool_], width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A narrower rectangle in which as many rows as possible stay where they are.

    Args:
        alive_S_W: the rows to keep; at most `width` in each line.
        width: of the new rectangle.

    Returns:
        Which row goes to each place, by their places in the old rectangle, and which of the places are needed.
    """
    sources_B = np.arange(len(alive_S_W) * width)
    needed_B = np.zeros(len(sources_B), np.bool_)
    for s, alive_W in enumerate(alive_S_W):
        rows, part = np.flatnonzero(alive_W) + s * len(alive_W), np.arange(s * width, (s + 1) * width)
        moving = np.setdiff1d(rows, part)
        free = np.setdiff1d(part, rows)[: len(moving)]
        sources_B[free] = moving
        needed_B[free] = True
        needed_B[np.intersect1d(rows, part)] = True
    return sources_B, needed_B


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
