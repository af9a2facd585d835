"""`soarctl study`: the paper's comparison, and its table."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.study.table import StudyTable


def study(path: str, overrides: list[str], out: Path | None, *, as_json: bool) -> None:
    """Does what of a study is missing, writes its table in four forms beside its ledger, and prints it.

    Raises:
        SoarError: what stands in the way.
    """
    from soarctl.errors import disk_errors
    from soarctl.study import writers
    from soarctl.study.conduct import study as conduct
    from soarctl.study.loading import load_study
    from soarctl.study.table import open_study, study_table

    loaded = load_study(path, overrides)
    directory = out or Path("runs") / loaded.spec.name
    try:
        conduct(loaded.spec, loaded.load_run, directory, Progress(sys.stderr if as_json else sys.stdout).tell)
    except KeyboardInterrupt:
        print("interrupted; nothing finished is lost. The same command goes on.", file=sys.stderr)
        sys.exit(130)
    with open_study(directory) as ledger:
        table = study_table(ledger)
    with disk_errors(directory):
        for name, text in (
            ("table.csv", writers.as_csv(table)),
            ("table.tex", writers.as_latex(table)),
            ("table.json", writers.as_json(table)),
        ):
            (directory / name).write_text(text, encoding="utf-8")
    if as_json:
        print(writers.as_json(table), end="")
    else:
        print()
        print_study(table)
        print(f"\ntable.csv, table.tex and table.json are in {directory}")


def print_study(table: "StudyTable") -> None:
    """The table, the means of each teacher's students, and what is missing."""
    from soarctl.cli.table import print_table
    from soarctl.study.writers import rows_of, teacher_rows

    print(f"{table.name}: {table.problems} held-out hard problems, {table.samples} attempts each; percent, mean ± SD")
    print(f"over students, each trained for {table.steps} steps; bootstrap intervals; paired permutation test")
    print_table(*rows_of(table))
    by_teacher = teacher_rows(table)
    if by_teacher:
        print("\nmeans of the students of each teacher")
        print_table(["ARM", "RUN", *(f"PASS@{k}" for k in table.ks)], by_teacher)
    for arm, said in table.short.items():
        print(f"{arm}: {said}")
    for arm, reason in table.skipped.items():
        print(f"{arm} is left out: {reason}")
    if table.waiting:
        print(f"not finished: {', '.join(table.waiting)}")


class Progress:
    """One line for each thing that is finished; on a terminal, the steps in between as well."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._run = ""

    def tell(self, event: str, /, **facts: Any) -> None:
        if event == "study_run":
            self._run = f"{facts['run']}: "
        elif event in ("study_measured", "study_arm"):
            self._run = ""
        line = self._line(event, facts)
        if line is not None:
            print(line, file=self._file, flush=True)

    def _line(self, event: str, facts: Mapping[str, Any]) -> str | None:
        from soarctl.cli.run_view import describe

        match event:
            case "study_started":
                return f"{facts['name']}: {len(facts['arms'])} arms, in {facts['directory']}"
            case "study_run":
                return f"{facts['run']}: a run that the arms need"
            case "study_measured":
                at = f"step {facts['step']}" if facts["step"] else "as it is"
                return f"{facts['arm']}: {at}, pass@1 {100 * facts['pass_1']:.2f} %"
            case "study_arm":
                return f"{facts['arm']}: done"
            case _:
                said = describe(event, facts)
                return None if said is None else self._run + said
