"""`make bench`: every figure, as a table and as JSON.

python -m tests.bench --out runs/bench.json [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.figure import Figure, load

HERE = Path(__file__).parent


def modules(gpu: bool) -> list[str]:
    """The bench files, those for a GPU only when asked for."""
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    return [name for name in names if name.endswith("_gpu") == gpu]


def main() -> None:
    """Run the named bench files, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in options.names or modules(options.gpu):
        print(f"{name} (load {load():.1f}) ...", file=sys.stderr, flush=True)
        figures += importlib.import_module(f"tests.bench.{name}").run()
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table()
    for column in ("name", "value", "target", "holds", "spread", "n", "baseline"):
        table.add_column(column)
    for one in figures:
        value, target = f"{one['value']:g} {one['unit']}", f"{one['target']:g}"
        table.add_row(
            one["name"],
            value,
            target,
            "yes" if one["holds"] else "NO",
            str(one["spread"]),
            str(one["n"]),
            one["baseline"],
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
