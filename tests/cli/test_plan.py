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
  trained in a policy   unknown parameters

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
        "an outer step's reward moves in steps of 1/1,024 = 0.00098 (questions x attempts x students); "
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


PRICED = """\
time and price, estimated from data sheets, not measured; `soarctl bench` measures a machine
GPU   TOKENS/S SAMPLED  TRAINED            HOURS                 PRICE  SEQUENCES
H200             9,168   20,522       152 to 296      379.53 to 739.98        764
H100             4,680   20,522       252 to 492    629.37 to 1,229.06        390
A100             4,680    6,474       351 to 687    877.28 to 1,717.80        390
L40S             2,328    7,512  538 to 1.05e+03  1,344.41 to 2,630.08        194
SEQUENCES: completions of the longest kind whose caches fit beside what is in memory all the time
completions are taken to be 40 % of the longest; on the H200:
TIME                  COMPLETIONS  TOKENS EACH  MS EACH  COMPLETIONS x MS EACH
teacher                   102,400        204.8     76.6                  2.2 h
practice  8,192,000 to 16,199,680        409.6     64.6     147.1 h to 290.9 h
reward                    204,800        409.6     44.7                  2.5 h
baseline            500 to 33,500        409.6     44.7    22 s to 24 min 57 s
all of these: 151.8 h to 296.0 h; 151.8 to 296 h x 2.5 per hour = 379.53 to 739.98

WHAT IF (H200)                             TIME WITHOUT PROMOTIONS  SAVED  REWARD MOVES BY
reward.repeats 2 in place of 4                   151.8 h -> 75.3 h   50 %            1/512
inner.steps 5 in place of 10                     151.8 h -> 78.3 h   48 %          1/1,024
inner.max_new_tokens 512 in place of 1024        151.8 h -> 56.2 h   63 %          1/1,024
outer.steps 100 in place of 200                  151.8 h -> 75.9 h   50 %          1/1,024
"""


def test_a_model_of_known_size_is_priced_on_gpus_before_anything_is_fetched(
    folder: Path, soarctl: Callable[..., Any]
) -> None:
    (folder / "priced.yaml").write_text(
        "name: priced\nmodel: {base: meta-llama/Llama-3.2-3B-Instruct}\ndomain: {plugin: letters, candidates: 1000}\n"
        "filter: {reuse: hard.jsonl}\nevaluation: null\n"
    )
    assert PRICED in soarctl("plan", "priced.yaml", "--price", "2.5").out
    planned = json.loads(soarctl("plan", "priced.yaml", "--price", "2.5", "--json").out)
    first = planned["estimates"][0]
    assert first["device"] == "H200"
    assert first["price"][0] == pytest.approx(first["seconds"][0] / 3600 * 2.5)
    assert first["costs"][1]["seconds"][0] == pytest.approx(8_192_000 * first["costs"][1]["seconds_each"])
    assert planned["what_if"][0]["change"] == "reward.repeats 2 in place of 4"


def test_a_spec_that_nobody_measured_has_no_time(spec: str, soarctl: Callable[..., Any]) -> None:
    assert "\ntime: unknown until `soarctl bench` with this spec measures it\n" in soarctl("plan", spec).out


def test_rates_that_are_not_there_are_an_error(spec: str, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("plan", spec, "--rates", "none.json")
    assert ran.code == 2
    assert ran.err == (
        "error: none.json: cannot be read: No such file or directory\n"
        "  `soarctl bench SPEC --out none.json` makes one\n"
    )


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


def test_the_docs_quote_what_plan_prints_for_the_papers_run(soarctl: Callable[..., Any]) -> None:
    root = Path(__file__).parents[2]

    def planned(*changes: str) -> dict[str, list[str]]:
        lines = soarctl("plan", str(root / "specs/math_fail128.yaml"), *changes).out.splitlines()
        return {words[0]: words for line in lines if (words := line.split()) and words[0] in ("H200", "H100")}

    rows = planned()
    page = " ".join((root / "docs/benchmarks.md").read_text().split())
    for gpu, (_, decode, _, low, _, high, sequences) in rows.items():
        assert f"{decode} tokens/s" in page
        assert f"with {sequences}" in page
        assert f"{low} to {high} hours on an {gpu}" in page
    readme = " ".join((root / "README.md").read_text().split())
    for changes, said in [((), "estimates"), (("--set", "trainer.sampler=vllm"), "and")]:
        low, high = (float(word) for word in planned(*changes)["H200"][3:6:2])
        assert f"{said} {low:.0f} to {high:.0f} hours" in readme
