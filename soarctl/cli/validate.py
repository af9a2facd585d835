"""`soarctl validate`: is this spec right, and what does it ask for?"""

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.spec_reader import LoadedSpec


def validate(path: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Prints what a spec asks for.

    Raises:
        SoarError: it asks for something impossible.
    """
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    facts = _facts(loaded)
    print(json.dumps(facts, indent=2) if as_json else _paragraph(path, facts))


def _facts(loaded: "LoadedSpec") -> dict[str, Any]:
    from dataclasses import asdict

    from soarctl import plugins
    from soarctl.api import Domain, Reward, Trainer

    spec = loaded.spec
    sections = {"domain": (Domain, spec.domain), "reward": (Reward, spec.reward), "trainer": (Trainer, spec.trainer)}
    return {
        "name": spec.name,
        "hash": loaded.hash,
        "model": spec.model.base,
        "revision": spec.model.revision,
        **{
            name: {"plugin": section.plugin, "package": plugins.origin(kind, section.plugin)}
            for name, (kind, section) in sections.items()
        },
        "steps": spec.outer.steps,
        "datasets": spec.datasets_per_step,
        "questions": spec.teacher.dataset_size,
        "files": loaded.files,
        "overrides": [asdict(override) for override in loaded.overrides],
    }


def _paragraph(path: str, facts: dict[str, Any]) -> str:
    def named(kind: str) -> str:
        return f"{kind} {facts[kind]['plugin']} ({facts[kind]['package']})"

    model = facts["model"] + (f" at {facts['revision']}" if facts["revision"] else "")
    paragraph = (
        f"{path} is valid. {facts['name']}: {named('domain')}, {named('reward')}, {named('trainer')}, model {model}, "
        f"{facts['steps']} outer steps of {facts['datasets']} datasets of {facts['questions']} questions. "
        f"Hash {facts['hash'][:16]}."
    )
    changes = [f"{o['key']}: {json.dumps(o['new'])} instead of {json.dumps(o['old'])}" for o in facts["overrides"]]
    return "\n".join([textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False), *changes])
