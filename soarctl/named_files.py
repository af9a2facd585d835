"""Whether the files that a spec names are there: looked at before a run begins, and by `soarctl validate`."""

from collections.abc import Iterator
from pathlib import Path

from soarctl.errors import SoarError, SpecError
from soarctl.filter_results import manifest_path
from soarctl.located import SpecProblems
from soarctl.spec_reader import LoadedSpec


def check_files(loaded: LoadedSpec, *, filtered: bool = False) -> None:
    """Refuses a spec whose files are not all here.

    Args:
        loaded: the spec with its plug-ins.
        filtered: its run knows the hard problems already, and reads no results of an earlier filter.

    Raises:
        SpecProblems: with place and key of everything that is missing.
    """
    problems = list(missing(loaded, filtered=filtered))
    if problems:
        raise SpecProblems(problems, loaded.files[0])


def missing(loaded: LoadedSpec, *, filtered: bool = False) -> Iterator[SoarError]:
    """What is not here of data, model and the results to reuse, with place and key. Reads none of them."""
    for option, path in loaded.domain.files().items():
        if not Path(path).expanduser().exists():
            yield SpecError(
                f"no such file or folder: {path}",
                at=loaded.at(f"domain.{option}"),
                hint=f"looked for {Path(path).expanduser().absolute()}",
            )
    try:
        loaded.trainer.find(loaded.spec.model)
    except SoarError as error:
        yield type(error)(error.message, at=error.at and loaded.at(error.at), hint=error.hint)
    reuse = loaded.spec.filter.reuse
    if reuse is not None and not filtered:
        for path in (Path(reuse), manifest_path(Path(reuse))):
            if not path.is_file():
                yield SpecError(
                    f"no such file: {path}",
                    at=loaded.at("filter.reuse"),
                    hint=f"`soarctl filter {loaded.files[0]} --out {reuse}` makes it, with its manifest",
                )
                return
