"""Texts that a model could write and a plug-in has to survive."""

from collections.abc import Callable, Iterator, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_LONG = 5000

NASTY = (
    "",
    " \t\n",
    "\0",
    "no answer at all",
    "(" * _LONG,
    "[" * _LONG + "]" * _LONG,
    "{" * _LONG,
    "\\boxed{" * 1000,
    "9" * _LONG,
    "-" * _LONG + "1",
    "10**10**10",
    "9**9**9**9",
    "1e999",
    "nan",
    "-inf",
    "1/0",
    "0x" + "f" * _LONG,
    "١٢٣",
    "²",
    "\u202e321\u202c",
    "\ufeff1",
    "a\u0301" * 1000,
    "\U0001f600" * 1000,
    "%s%n%d",
    "{0.__class__}",
    "{{ 7 * 7 }}",
    "__import__('os').abort()",
    "while True: pass",
    "'; DROP TABLE problems; --",
    "<eos>",
    "= = = =",
    "a" * 100_000,
    "1 " * 50_000,
    "\n" * 50_000,
)


def stretched(examples: Sequence[str]) -> Iterator[str]:
    """Each example cut short with the character at the cut many times over: what backtracking patterns drown in."""
    for example in examples:
        step = max(1, len(example) // 12)
        for i in range(0, len(example), step):
            yield example[: i + 1] + example[i] * _LONG + "\v!"
            yield example[: i + 1] + (example[max(0, i - 1) : i + 1] or example[i]) * 30 + "\v!"


def texts(examples: Sequence[str]) -> st.SearchStrategy[str]:
    """Any text, examples with something cut out or put in, and the texts above."""

    def spliced(example: str, start: int, length: int, inserted: str) -> str:
        return example[:start] + inserted + example[start + length :]

    lengths = st.integers(0, 40)
    near = st.builds(spliced, st.sampled_from(examples or ("",)), lengths, lengths, st.text(max_size=12))
    return st.one_of(st.text(max_size=200), near, st.sampled_from(NASTY))


def search(strategy: st.SearchStrategy[str], look: Callable[[list[str]], None], examples: int) -> None:
    """Calls `look` with batches of drawn texts; the smallest batch that makes it raise is the one that is reported."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=(
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.filter_too_much,
        ),
    )
    @given(st.lists(strategy, min_size=1, max_size=8))
    def test(batch: list[str]) -> None:
        look(batch)

    test()
