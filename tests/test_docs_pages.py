"""What the pages say is true: links lead somewhere, commands and options exist, code runs, outputs are those shown."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import typer
from pydantic import PositiveInt

from soarctl.api import Problem, Reward, RewardContext, Scores
from soarctl.cli.app import app
from soarctl.ledger import Ledger
from soarctl.testing import check_reward

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def code(page: Path) -> Iterator[str]:
    """Lines of code blocks, and code in the text."""
    fenced = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from re.findall("`([^`]+)`", line)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    wrong: list[str] = []
    for line in code(page):
        # Up to a comment, a pipe or the next command.
        for said in re.findall(r"(?:^|\$ |&& |\d )soarctl ([a-z][^#|>&]*)", line):
            command, *words = said.split()
            if command not in COMMANDS:
                wrong.append(said)
                continue
            known = {option for p in COMMANDS[command].params for option in p.opts}
            options = [word.partition("=")[0] for word in words if word.startswith("--")]
            wrong += [f"{command} {option}" for option in options if option not in known]
    assert wrong == []


@pytest.mark.parametrize("query", blocks(ROOT / "docs/howto/sql.md", "sql"))
def test_every_query_of_the_how_to_has_an_answer(query: str, small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        assert ledger.rows(query)


def test_the_reward_of_the_how_to_keeps_its_promises() -> None:
    [code] = blocks(ROOT / "docs/howto/own_reward.md", "python")
    api = {cls.__name__: cls for cls in (Problem, Reward, RewardContext, Scores)}
    world: dict[str, Any] = {**api, "fmean": fmean, "PositiveInt": PositiveInt, "Sequence": Sequence}
    world["__name__"] = __name__
    exec(code, world)
    globals()["DullnessReward"] = world["DullnessReward"]  # where pickle looks for it
    check_reward(world["DullnessReward"]())


def test_every_page_is_in_the_sites_navigation() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in site] == []


# The tutorial: its commands in order, in one folder, and what each prints.

TUTORIAL = ROOT / "docs/tutorial.md"
# Numbers that follow from floating point differ between processors; hashes and seconds, between runs.
LOOSE = ("soarctl run", "soarctl show", "soarctl promote", "soarctl plan", "pytest")


def steps() -> Iterator[tuple[str, str]]:
    for block in blocks(TUTORIAL, "console"):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


def matches(said: str, shown: str, *, loose: bool) -> bool:
    """Whether an output is the one that is shown, where a line `...` stands for any lines."""

    def pattern(line: str) -> str:
        if line == "...":
            return r"(?:.*\n)*?"
        text = re.escape(line.removesuffix("..."))
        if loose:
            text = re.sub(r"(?:\\[-+])?\d+(?:\\\.\d+)?", r"[-+]?\\d+(?:\\.\\d+)?", text)
            text = re.sub(r"(?:\\ ){2,}", r"\\s+", text)
        return text + (r".*\n" if line.endswith("...") else r"\s*\n")

    return re.fullmatch("".join(map(pattern, shown.splitlines())), said) is not None


def test_outputs_are_compared_line_by_line() -> None:
    assert matches("a\nb 1\nc\n", "a\n...\nc\n", loose=False)
    assert matches("step 1: -0.5  x\n", "step 2: +0.25    x\n", loose=True)
    assert not matches("step 1\n", "step 2\n", loose=False)
    assert not matches("a\nb\n", "a\n", loose=True)


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    folder, tools = tmp_path, Path(sys.executable).parent
    site = tmp_path / "site"
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    for command, shown in steps():
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        # Installed aside, and not into the environment that the tests run in.
        real = f"pip install -q --no-deps --no-build-isolation --target {site} ."
        editable = command == "pip install -e ."
        done = subprocess.run(
            real if editable else command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        if editable:
            (site / "soarctl_sums").rename(tmp_path / "unused")
            (site / "soarctl_sums").symlink_to(folder / "soarctl_sums")
        said = done.stdout.replace(r"\r", "")
        assert matches(said, shown, loose=command.startswith(LOOSE)), f"$ {command}\n{said}\n{done.stderr}"
