"""`make bench`: every figure, as a table and as JSON.

python -m tests.bench --out runs/bench.json [NAME ...]

With names (of files, `bench_curate` say) only those run, and their figures take the place of older ones in the file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
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


def page(figures: list[Figure]) -> str:
    """docs/benchmarks.md: what was measured, on what, and whether it holds."""
    import psutil

    gib = psutil.virtual_memory().total / 2**30
    lines = [
        "# Benchmarks",
        "",
        "Made by `python -m tests.bench --out runs/bench.json --page docs/benchmarks.md`; `make bench` leaves JSON.",
        "Ratios compare with a peer or a bare loop in the same run; above 1 is better than it. Spread is the least and",
        "the greatest of the repeats.",
        "",
        f"Machine: {os.cpu_count()} cores ({platform.machine()}), {gib:.0f} GiB, Python {platform.python_version()},",
        f"load average {load():.1f} at the end. Figures of a shared machine are noisy; the ratios less so.",
        "",
        "| name | value | target | holds | spread | n | compared with |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        value, target = f"{one['value']:g} {one['unit']}", f"{one['target']:g}"
        spread = " to ".join(f"{end:g}" for end in one["spread"])
        holds = "yes" if one["holds"] else "**no**"
        lines.append(
            f"| `{one['name']}` | {value} | {target} | {holds} | {spread} | {one['n']:,} | {one['baseline']} |"
        )
    return "\n".join(lines) + "\n"


def replaced(figures: list[Figure], new: list[Figure]) -> list[Figure]:
    """Figures with new ones in the places of older ones of their names, or at the end."""
    by_name = {one["name"]: one for one in (*figures, *new)}
    return list(by_name.values())


def main() -> None:
    """Run the named bench files, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    figures: list[Figure] = []
    if options.names and options.out.exists():
        figures = json.loads(options.out.read_text())
    for name in options.names or modules(options.gpu):
        print(f"{name} (load {load():.1f}) ...", file=sys.stderr, flush=True)
        figures = replaced(figures, importlib.import_module(f"tests.bench.{name}").run())
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    if options.page:
        options.page.write_text(page(figures))
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
