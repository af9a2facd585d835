import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soarctl.export import COLUMNS, Exported, export_pq
from soarctl.runs import open_run
from soarctl.solutions import Solver, solver_of

USEFUL = [("CAT | up", "DBU"), ("DOG | flip bump", "QDG")]
REPEATED = [("CAT  | up", "DBU"), ("DOG | flip bump", "PDG"), ("CAT | up", "EEE")]


def export(run: Path, out: Path, **options: bool) -> Exported:
    with open_run(run) as ledger:
        return export_pq(ledger, solver_of(ledger), out, **options)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def repeating(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """Two promotions: at step 2 with three different questions, at step 4 with three that all repeat them."""
    gains = [[[0.0] * 3, [0.0] * 3], [[0.0] * 3, [0.25] * 3]] * 2
    plain = [("CAT | left", "ATC")] * 3
    first = [*USEFUL, ("CAT | left", "ATC")]
    return write_run(
        tmp_path / "repeating",
        gains=gains,
        datasets_of_step={1: [plain, plain], 2: [plain, first], 3: [plain, plain], 4: [plain, REPEATED]},
        teacher={"group_size": 2, "dataset_size": 3},
    )


def test_every_item_of_a_promoted_dataset_is_exported_with_its_lineage(small_run: Path, tmp_path: Path) -> None:
    exported = export(small_run, tmp_path / "pq" / "questions.jsonl")
    assert exported == Exported(rows=2, promotions=1, duplicates=0, conflicting=0)
    first, second = rows(tmp_path / "pq" / "questions.jsonl")
    assert first == {
        "id": "4136543d181b826e",
        "question": "CAT | up",
        "answer": "DBU",
        "run": "small",
        "model": "package:soarctl_letters/model",
        "outer_step": 2,
        "promotion_index": 1,
        "dataset": 1,
        "position": 0,
        "dataset_reward": 0.25,
        "student_gain": 0.25,
        "completion": "CAT | up = DBU",
        "solver_answer": "DBU",
        "solver_correct": True,
    }
    assert (second["answer"], second["solver_answer"], second["solver_correct"]) == ("QDG", "PDG", False)


def test_every_column_is_described_in_order(small_run: Path, tmp_path: Path) -> None:
    export(small_run, tmp_path / "questions.jsonl")
    assert list(rows(tmp_path / "questions.jsonl")[0]) == list(COLUMNS)


def test_without_dedup_every_item_is_kept(repeating: Path, tmp_path: Path) -> None:
    assert export(repeating, tmp_path / "q.jsonl") == Exported(rows=6, promotions=2, duplicates=0, conflicting=0)


def test_dedup_keeps_the_first_of_equal_questions_and_counts_the_rest(repeating: Path, tmp_path: Path) -> None:
    # "CAT  | up" differs in white space only; QDG and PDG, DBU and EEE are other answers to the same question.
    exported = export(repeating, tmp_path / "q.jsonl", dedup=True)
    assert exported == Exported(rows=3, promotions=1, duplicates=3, conflicting=2)
    assert [row["answer"] for row in rows(tmp_path / "q.jsonl")] == ["DBU", "QDG", "ATC"]
    assert (
        "3 items that repeat an earlier question were left out, 2 of them with another answer."
        in (tmp_path / "README.md").read_text()
    )


def test_parquet_holds_the_same_rows(small_run: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export(small_run, tmp_path / "a" / "questions.jsonl")
    export(small_run, tmp_path / "b" / "questions.parquet")
    table = parquet.read_table(tmp_path / "b" / "questions.parquet")
    assert table.to_pylist() == rows(tmp_path / "a" / "questions.jsonl")
    assert str(table.schema.field("solver_correct").type) == "bool"


def test_without_a_solver_its_columns_are_empty_and_the_card_says_so(small_run: Path, tmp_path: Path) -> None:
    with open_run(small_run) as ledger:
        export_pq(ledger, Solver(None), tmp_path / "questions.jsonl")
    assert {row["solver_correct"] for row in rows(tmp_path / "questions.jsonl")} == {None}
    assert "so how many are right is not known." in (tmp_path / "README.md").read_text()


def test_the_card_says_what_the_file_is_and_what_not_to_trust(small_run: Path, tmp_path: Path) -> None:
    export(small_run, tmp_path / "questions.jsonl")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith('---\nconfigs:\n- config_name: default\n  data_files: "questions.jsonl"\n')
    for line in (
        "| questions | 2 |",
        f"| hard problems learned from, SHA-256 | {'1' * 64} (4 problems) |",
        f"| hard problems held out, SHA-256 | {'2' * 64} (4 problems) |",
        "| questions that equal a candidate problem | 0 |",
        "and it may be wrong. The domain can compute answers: 1 of 2 are right.",
        "## Licence",
    ):
        assert line in card.splitlines()
