"""From the YAML of a study to a spec that can be conducted, with all that it names looked at first.

study = load_study("specs/quickstart_study.yaml", ["seeds=5"])
study.spec.seeds                              # 5
study.load_run(["name=a"]).spec.outer.steps   # of the runs
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soarctl.errors import PluginError, SpecError
from soarctl.spec_reader import LoadedSpec, is_study, load_spec, read_tree
from soarctl.study.given import check_given
from soarctl.study.oracle import real_problems
from soarctl.study.spec import Arm, StudySpec
from soarctl.validation import validate


@dataclass(frozen=True)
class LoadedStudy:
    """A study's spec, with how to read the spec of its runs."""

    spec: StudySpec
    run_path: Path

    def load_run(self, overrides: Sequence[str]) -> LoadedSpec:
        """The spec of a run with these changes, made after those of the study."""
        return load_spec(self.run_path, overrides, first=self.spec.set)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> LoadedStudy:
    """Reads and checks the spec of a study and all that it names: a study runs for days before it needs some of that.

    Raises:
        SpecError: with file, line and key of every problem in it, or in the spec of a kind of its runs.
        RunError: a given run is not what the study takes it for.
        DataError: the file of the oracle has no problems.
    """
    tree, at = read_tree(path, overrides)
    if not is_study(tree) and "model" in tree.plain():
        raise SpecError("this is the spec of a run, not of a study", at=str(path), hint=f"`soarctl run {path}` runs it")
    spec = validate(StudySpec, tree.plain(), str(path), at)
    if spec.oracle is not None and (beside := Path(path).parent / spec.oracle).exists():
        spec = spec.model_copy(update={"oracle": str(beside)})
    study = LoadedStudy(spec, Path(path).parent / spec.run)
    study.load_run([])
    for kind in spec.kinds:
        try:
            study.load_run(spec.teachers(kind).set)
        except (SpecError, PluginError) as error:
            said = f"{error.at}: {error.message}" if error.at else error.message
            raise SpecError(said, at=at(f"runs.{kind}.set"), hint=error.hint) from error
    check_given(spec, study.load_run)
    if Arm.ORACLE in spec.arms and spec.oracle is not None:
        real_problems(Path(spec.oracle))
    return study
