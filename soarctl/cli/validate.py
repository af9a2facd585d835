"""`soarctl validate`: is this spec right, and what does it ask for?"""

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.spec_reader import LoadedSpec


def validate(path: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Prints what a spec asks for, and which of its files are not here.

    Raises:
        SoarError: it asks for something impossible.
    """
    from soarctl.spec_reader import is_study, load_spec, read_tree

    tree, _ = read_tree(path, overrides)
    if is_study(tree):
        facts = _study_facts(path, overrides)
        told = _study_paragraph(path, facts)
    else:
        facts = _facts(load_spec(path, overrides))
        told = _paragraph(path, facts)
    print(json.dumps(facts, indent=2) if as_json else told)


def _study_facts(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    from soarctl.study.loading import load_study

    study = load_study(path, overrides)
    spec = study.spec
    return {
        "name": spec.name,
        "arms": [arm.value for arm in spec.arms],
        "students": spec.seeds,
        "steps": spec.training.steps,
        "runs": {
            kind.value: len(made.directories) or made.count for kind in spec.kinds for made in [spec.teachers(kind)]
        },
        "run": _facts(study.load_run([])),
    }


def _study_paragraph(path: str, facts: dict[str, Any]) -> str:
    runs = ", ".join(f"{count} {kind}" for kind, count in facts["runs"].items())
    study = (
        f"{path} is a valid study. {facts['name']}: {len(facts['arms'])} arms of {facts['students']} students, trained "
        f"for {facts['steps']} steps; runs: {runs or 'none'}."
    )
    return f"{_filled(study)}\n{_paragraph('Their spec', facts['run'])}"


def _facts(loaded: "LoadedSpec") -> dict[str, Any]:
    from dataclasses import asdict

    from soarctl import plugins
    from soarctl.api import Domain, Reward, Trainer
    from soarctl.named_files import missing

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
        # A spec may be right and its data elsewhere: it is checked on a laptop and run on a cluster.
        "missing": [{"at": problem.at, "message": problem.message} for problem in missing(loaded)],
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
    absent = [f"not here, and a run needs it: {m['at']}: {m['message']}" for m in facts["missing"]]
    return "\n".join([_filled(paragraph), *changes, *absent])


def _filled(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
