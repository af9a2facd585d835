"""Where a training curve has levelled off: the step from which scores are averaged. On plain numbers."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean


def early_stop(rewards_T: Sequence[float], window: int, share: float, start: int = 0) -> int:
    """Training steps done when the reward has levelled off.

    The reward is smoothed by a centred moving average; the answer is the earliest step, from the steepest one on, whose
    slope is below `share` of the largest. From the steepest one on, because a curve that begins flat has not levelled
    off yet. The paper divides slopes by the range of the reward first, which changes no comparison.

    Args:
        rewards_T: mean training reward of each step.
        window: steps in the moving average; only whole windows count, and a shorter curve is one window.
        share: of the largest slope, between 0 and 1.
        start: look only at what comes after this many steps: a switch of data makes a slope of its own (row 37).

    Returns:
        At least `start`, at most len(rewards_T). `start` for a curve that never rises.

    Source: SOAR section 5 of the appendix: window 25, share 15 %.
    """
    part = rewards_T[start:]
    size = min(window, len(part))
    smooth = [fmean(part[i : i + size]) for i in range(len(part) - size + 1)] if part else []
    slopes = [after - before for before, after in pairwise(smooth)]
    largest = max(slopes, default=0.0)
    if largest <= 0:
        return start
    for i in range(slopes.index(largest), len(slopes)):
        if slopes[i] < share * largest:
            # smooth[i] is centred on step i + size // 2, counted from 0.
            return start + i + size // 2 + 1
    return len(rewards_T)


def counted(steps: Sequence[int], stop: int, average: int) -> list[int]:
    """Which of the evaluated steps a score is averaged over: those in the `average` steps after `stop`.

    Where there is none, the first one after `stop`; where training ended before, the last one.
    """
    after = [step for step in steps if step > stop]
    return [step for step in after if step <= stop + average] or after[:1] or [max(steps)]


def counted_at(steps: Sequence[int], at: int) -> list[int]:
    """The evaluated step `at`, or the first one after it; where training ended before, the last one.

    Source: SOAR section 5.2 takes the checkpoint at step 50 on OlympiadBench.
    """
    return [min((step for step in steps if step >= at), default=max(steps))]
