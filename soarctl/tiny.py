"""A tiny model from texts, and a look at what it says. The work is the tiny trainer's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soarctl import plugins
from soarctl.api import Optimizer, Prompt, Sampling, Stream, Trainer
from soarctl.errors import RunError
from soarctl.spec import ModelSection

_PROMPTS = 2
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Tiny:
    """A model that was made."""

    directory: str
    parameters: int
    samples: Mapping[str, list[str]]
    """Some prompts of the texts, with what the model makes of them."""


def make_tiny(texts: Path, directory: Path, options: Mapping[str, Any]) -> Tiny:
    """Trains the model and samples from it.

    Args:
        texts: JSON lines with `prompt` and `completion`.
        directory: where the model goes; must not be there yet.
        options: others of the tiny trainer.

    Raises:
        SoarError: the texts cannot be read or the model not be written.
    """
    if directory.exists():
        raise RunError("there is something here already", at=str(directory), hint="`--out` names another directory")
    trainer = plugins.load(Trainer, "tiny", {"texts": str(texts), **options}, at="--from")
    engine = trainer.load(ModelSection(base=str(directory)), 0)
    prompts = _some_prompts(texts)
    drawn = engine.fleet([engine.start()], Optimizer(lr=1.0)).sample(
        [Prompt(0, text, _SAMPLES, Stream(("tiny", text))) for text in prompts], Sampling(max_new_tokens=48)
    )
    return Tiny(
        str(directory),
        engine.facts["parameters"],
        {text: [c.text for c in group] for text, group in zip(prompts, drawn, strict=True)},
    )


def _some_prompts(texts: Path) -> list[str]:
    """The most frequent prompt, which is usually the teacher's, and the first other one."""
    import json
    from collections import Counter

    counted = Counter(json.loads(line)["prompt"] for line in texts.read_text(encoding="utf-8").splitlines())
    return [prompt for prompt, _ in counted.most_common(_PROMPTS)]
