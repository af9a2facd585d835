"""docs/run_directory.md says what is there: every table and column, and queries with the output that they have."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from soarctl.ledger import FILE, SCHEMA_VERSION

PAGE = (Path(__file__).parents[1] / "docs" / "run_directory.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)\n```\n\n```text\n(.*?\n)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def db(small_run: Path) -> Any:
    connection = sqlite3.connect(small_run / FILE)
    yield connection
    connection.close()


def test_every_table_and_column_is_described_in_order(db: sqlite3.Connection) -> None:
    described = {
        table: re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
        for table, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    }
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
    assert described == {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
    assert list(described) == tables


def test_the_version_of_the_schema_is_the_one_described() -> None:
    assert f"the version of the schema, {SCHEMA_VERSION}." in PAGE


@pytest.mark.parametrize(("query", "output"), QUERIES, ids=range(len(QUERIES)))
def test_a_query_prints_what_the_page_says(query: str, output: str, db: sqlite3.Connection) -> None:
    cursor = db.execute(query)
    rows = [[name for name, *_ in cursor.description], *([str(cell) for cell in row] for row in cursor)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    assert lines == output.splitlines()


def test_there_are_queries_on_the_page() -> None:
    assert len(QUERIES) == PAGE.count("```sql") == 7
