"""What every benchmark prints and writes: a table for people and the same rows as JSON for programs."""

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def emit(
    rows: Sequence[Mapping[str, Any]],
    *,
    data: str | os.PathLike,
    settings: Mapping[str, Any],
    json_path: str | os.PathLike | None = None,
    title: str | None = None,
    markdown: bool = False,
) -> None:
    """Prints rows as a table and, where asked, writes them as JSON.

    Args:
        rows: one mapping per line of the table, column → value; columns that a row lacks are printed as ``-``. By
            convention ``method``, ``group`` and ``scope`` come first, then figures by their lower-case names.
        data: what was measured on: a folder, or a description of generated data.
        settings: JSON-able options of the run.
        json_path: file for ``{"rows", "data", "settings", "machine"}`` as JSON; NaN becomes null.
        title: heading of the table.
        markdown: print a table for a page of the documentation instead of one for the terminal.
    """
    if title:
        print(f"\n{title}")
    print(("\n" + format_markdown(rows)) if markdown else format_table(rows))
    if json_path is not None:
        record = {"rows": list(rows), "data": str(data), "settings": dict(settings), "machine": machine()}
        path = Path(json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text: words to the left, figures to the right, three decimals for fractions."""
    columns, cells, numeric = _lay_out(rows)
    widths = [
        max(len(column), *(len(line[i]) for line in cells)) if cells else len(column)
        for i, column in enumerate(columns)
    ]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table in Markdown; fractions are written ``.554``, as in the pages of the documentation."""
    columns, cells, numeric = _lay_out(rows)
    ruler = ["---:" if right else "---" for right in numeric]
    short = [[value[1:] if value.startswith("0.") else value for value in line] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ruler, *short])


def _lay_out(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Names of the columns, the cells as text, and which columns hold figures."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [any(_is_number(row.get(column)) for row in rows) for column in columns]
    return columns, cells, numeric


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure depends on."""
    import numpy
    import torch

    cuda = torch.cuda.is_available()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "numpy": numpy.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None or (_is_number(value) and not math.isfinite(value)):
        return "-"
    if _is_number(value) and not hasattr(value, "__index__"):
        return f"{float(value):.3f}" if abs(value) < 100 else f"{float(value):,.1f}"
    return str(value)


def _plain(value: Any) -> Any:
    """The same value from types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if hasattr(value, "__index__"):
        return int(value)
    if _is_number(value):
        return float(value) if math.isfinite(value) else None
    return str(value)
