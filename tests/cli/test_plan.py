import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = """\
name: small
model: {base: nobody/no-such-model}
domain: {plugin: letters, candidates: 100}
outer: {steps: 3}
"""

PLANNED = """\
small: 3 outer steps, 4 datasets and 16 students in each
  student updates       480
  promotions            0 to 1
  candidate problems    100
  base model            unknown parameters
  adapter               unknown parameters

COMPLETIONS  PER OUTER STEP      WHOLE RUN  TOKENS AT MOST
filter                       100 to 12,800      13,107,200  at most; ends at a first success
teacher        256 to 5,120  768 to 15,360       7,864,320  256 are kept; 512 if 50 % pass the format filter
practice             40,960        122,880     125,829,120  16 students; more after promotions
reward                1,024          3,072       3,145,728  each student on 64 hard problems
baseline                           0 to 50          51,200  each baseline once on all hard train problems; if every \
candidate is hard
held-out                        0 to 3,200       3,276,800  if every candidate is hard
prompt tokens are not counted; a range is from no promotion to as many as there can be
"""


@pytest.fixture
def spec(folder: Path) -> str:
    (folder / "small.yaml").write_text(SMALL)
    return "small.yaml"


def test_a_plan_is_a_page_of_counts(spec: str, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("plan", spec)
    assert ran.code == 0
    assert ran.out.startswith(PLANNED)
    assert (
        "an outer step's reward moves in steps of 0.00098; "
        "a promotion needs a mean above 0.01 over 3 outer steps\nwarning: tau 0.01 is below"
    ) in ran.out
    assert ran.out.endswith("warning: the reward asks for 64 hard train problems; there are 50 at most\n")


def test_json_has_the_counts(spec: str, soarctl: Callable[..., Any]) -> None:
    planned = json.loads(soarctl("plan", spec, "--set", "outer.steps=1", "--json").out)
    counts = {count["what"]: count for count in planned["counts"]}
    assert counts["practice"]["total"] == [40_960, 40_960]
    assert counts["practice"]["tokens"] == 40_960 * 1024


def test_a_spec_with_a_mistake_is_refused(spec: str, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("plan", spec, "--set", "outer.stps=1")
    assert ran.code == 2
    assert ran.err.startswith("error: --set outer.stps=1: unknown key\n")


def test_a_plan_needs_no_torch(spec: str) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from soarctl.cli.app import main\n"
        f"sys.argv = ['soarctl', 'plan', {spec!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "False\n")
