"""Commands that look at a run: watch, analyze, report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_watch_tells_a_finished_run_and_ends(small_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("watch", str(small_run))
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("small: 4 outer steps, 4 done in ")
    assert "promoted a student" in lines[3]
    assert lines[-1] == "promoted: measured on 4 held-out problems"


def test_watch_says_that_nobody_works_on_an_interrupted_run(
    write_run: Callable[..., Path], tmp_path: Path, soarctl: Callable[..., Any]
) -> None:
    run = write_run(tmp_path / "run", held_out={})
    out = soarctl("watch", str(run)).out
    assert out.splitlines()[-1] == f"nobody works in {run}: `soarctl run SPEC --out {run} --resume` goes on"


def test_watch_as_json_has_the_events_of_a_run(small_run: Path, soarctl: Callable[..., Any]) -> None:
    events = [json.loads(line) for line in soarctl("watch", str(small_run), "--json").out.splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4]


def test_watch_gives_alarms_with_advice(
    write_run: Callable[..., Path], tmp_path: Path, soarctl: Callable[..., Any]
) -> None:
    run = write_run(tmp_path / "run", gains=[[[0.0] * 3] * 2] * 10)
    out = soarctl("watch", str(run), "--once").out
    assert "alarm after step 10: zero-gain streak: no dataset gained anything in the last 10 outer steps. " in out


def test_analyze_prints_funnel_correctness_and_leaks(small_run: Path, soarctl: Callable[..., Any]) -> None:
    lines = soarctl("analyze", str(small_run)).out.splitlines()
    assert lines[0].split() == [
        *("STEP", "DRAWN", "PASSED", "no", "equals", "sign", "WELL-POSED", "RIGHT", "VENDI", "REPEATED", "KNOWN")
    ]
    assert lines[2].split() == ["2", "5", "80", "%", "1", "100", "%", "75", "%", "3.7", "0", "%", "50", "%"]
    assert "promotion questions, by solver: 2 judged, 100 % well-posed, 50 % answered right" in lines
    assert lines[-1].startswith("  100 % of 'CAT | up' is in 'CAT | up up up")


def test_analyze_as_json_has_all_of_it(small_run: Path, soarctl: Callable[..., Any]) -> None:
    found = json.loads(soarctl("analyze", str(small_run), "--json").out)
    assert found["judged_by"] == "solver"
    assert set(found["leaks"]) == {"train", "test"}


def test_report_goes_beside_the_ledger(small_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("report", str(small_run))
    assert ran.out.startswith(f"{small_run / 'report.html'}: 0.0")
    assert (small_run / "report.html").read_text().startswith("<!doctype html>")


def test_report_as_json_names_the_file(small_run: Path, tmp_path: Path, soarctl: Callable[..., Any]) -> None:
    place = tmp_path / "a" / "page.html"
    said = json.loads(soarctl("report", str(small_run), "--out", str(place), "--json").out)
    assert said == {"file": str(place), "bytes": place.stat().st_size}


def test_compare_prints_a_column_for_each_run(
    write_run: Callable[..., Path], tmp_path: Path, soarctl: Callable[..., Any]
) -> None:
    one, two = write_run(tmp_path / "one", name="one"), write_run(tmp_path / "two", name="two", seed=8)
    lines = [line.split() for line in soarctl("compare", str(one), str(two)).out.splitlines()]
    assert lines[0] == ["one", "two"]
    assert ["promoted", "at", "2", "2"] in lines
    assert lines[-1] == ["seed", "7", "8"]
    found = json.loads(soarctl("compare", str(one), str(two), "--json").out)
    assert found["differences"] == {"seed": [7, 8]}
