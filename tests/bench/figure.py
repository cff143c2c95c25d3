"""A line of the figures table, and running code in a process of its own so that its memory and time can be told."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Figure = dict[str, Any]


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    target: float,
    n: int,
    baseline: str,
    at_most: bool = False,
    digits: int = 3,
    **more: Any,
) -> Figure:
    """The median of repeats against a target; `at_most` says that less is better."""
    value = statistics.median(values)
    return {
        "name": name,
        "value": round(value, digits),
        "unit": unit,
        "target": target,
        "holds": value <= target if at_most else value >= target,
        "baseline": baseline,
        "n": n,
        "repeats": len(values),
        "spread": [round(min(values), digits), round(max(values), digits)],
        **more,
    }


def apart(module: str, function: str, *arguments: Any) -> dict[str, Any]:
    """Call a function in a fresh process; its result (JSON) with what it cost.

    `cpu_s` is that of the process and its workers, `own_peak_mb` the peak of the process alone, `peak_mb` the largest
    sum over the process and its workers, looked at every 20 ms.
    """
    import psutil

    code = f"from tests.bench.figure import _inside; _inside({module!r}, {function!r}, {json.dumps(arguments)!r})"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err)
        top = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                tree = [top, *top.children(recursive=True)]
                peak = max(peak, sum(_resident(one) for one in tree))
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{module}.{function}: {err.read().decode()[-2000:]}")
        result: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    result["peak_mb"] = peak / 2**20
    return result


def _resident(process: Any) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _inside(module: str, function: str, arguments: str) -> None:
    import importlib

    result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    result["own_peak_mb"] = _peak_kib() / 1024
    result["cpu_s"] = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    print(json.dumps(result))


def _peak_kib() -> int:
    """Peak of this process; `ru_maxrss` would begin with the peak of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def load() -> float:
    """The machine's load average, said beside figures that are wall times."""
    return os.getloadavg()[0]


Bench = Callable[[], list[Figure]]
