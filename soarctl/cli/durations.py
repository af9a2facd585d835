"""Durations in words."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """In seconds, minutes or hours, whichever is read most easily."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    return f"{seconds / 3600:,.1f} h"


def durations(span: Sequence[float]) -> str:
    """The least and the most, or one where they are the same."""
    low, high = duration(span[0]), duration(span[1])
    return low if low == high else f"{low} to {high}"
