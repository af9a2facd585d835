"""What a run tells while it works, for whoever shows it. Nothing in the method depends on it."""

from typing import Any, Protocol


class Tell(Protocol):
    """Called as `tell("practice", step=3, ...)`: the name of the event and plain JSON values."""

    def __call__(self, event: str, /, **facts: Any) -> None: ...


def silent(event: str, /, **facts: Any) -> None:
    """Tells nobody."""
