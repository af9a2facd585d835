"""The report of a study."""

from pathlib import Path

from soarctl.report.page import write_report


def test_a_study_brings_its_table_and_its_runs(whole_study: Path, tmp_path: Path) -> None:
    write_report([whole_study], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    for said in ("Study toy_study", "pass@1 of each arm", "Teacher by teacher", "Run grounded-0", "Run no_promotion-0"):
        assert said in html
    assert html.count('<th scope="row">hard_only_4x</th>') == 1
