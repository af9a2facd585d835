"""Tables: drawn by rich on a terminal, one value per line where they do not fit, aligned text in a pipe."""

import shutil
import sys
from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under a header. Columns of numbers are aligned on the right."""
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    if sys.stdout.isatty():
        # rich would cut numbers short to make columns fit.
        if sum(widths) + 2 * len(widths) > shutil.get_terminal_size().columns:
            _list(header, rows)
        else:
            _draw(header, rows, numeric)
        return
    for row in (header, *rows):
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        print("  ".join(cells).rstrip())


def _list(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Every row as a paragraph: its first cell, and below it each other one that is not empty, with its name."""
    longest = max(map(len, header))
    for row in rows:
        print(f"{header[0]} {row[0]}".strip())
        for name, cell in zip(header[1:], row[1:], strict=True):
            if cell:
                print(f"  {name:{longest}}  {cell}".rstrip())


def _draw(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_number in zip(header, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, because brackets in a question are no markup
    Console().print(table)


def _is_number(cell: str) -> bool:
    return cell == "" or cell.lstrip("+-")[:1].isdigit()
