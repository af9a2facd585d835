"""Named random streams: randomness as a function of what it is for.

A stream is named by a path such as `(run seed, "practice", outer step, dataset, repeat, inner step, prompt)`. Two
streams with different paths are independent; the same path gives the same numbers on every machine, in any order
of work and after any number of restarts. There is no state to save.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stream:
    """A source of random numbers that its path determines."""

    path: tuple[str | int, ...]

    def child(self, *names: str | int) -> Self:
        """The stream one or more names further down."""
        return type(self)((*self.path, *names))

    def uniforms(self, *shape: int) -> "NDArray[np.float64]":
        """Numbers in [0, 1) of the given shape; a longer first axis keeps the shorter one's numbers as its start."""
        # Not at the top: commands that draw nothing answer in half the time without it.
        import numpy as np

        # Philox is counter-based: a key is a whole stream, and no two keys overlap (Salmon et al. 2011). Only its raw
        # bits are used, because numpy promises those across versions and not the draws of Generator.
        bits = np.random.Philox(key=self._key()).random_raw(int(np.prod(shape, dtype=np.int64)))
        return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def order(self, count: int) -> list[int]:
        """A random permutation of range(count)."""
        return self.uniforms(count).argsort(kind="stable").tolist()

    def choose(self, count: int, size: int) -> list[int]:
        """`size` different members of range(count), in random order.

        Raises:
            ValueError: size > count.
        """
        if size > count:
            raise ValueError(f"cannot choose {size} of {count} without replacement")
        return self.order(count)[:size]

    def _key(self) -> int:
        # repr tells "1" from 1, and the tuple's commas keep ("ab", "c") from ("a", "bc").
        return int.from_bytes(hashlib.blake2b(repr(self.path).encode(), digest_size=16).digest(), "little")
