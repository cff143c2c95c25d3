"""The watch of a worker: it ends the process of a record that takes too long, even one stuck in native code."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from pipeline.clock import TIME_LIMIT_EXIT

WATCHED = """
import re, sys, time
import pipeline.clock
pipeline.clock.NATIVE_GRACE_SECONDS = 0.2
clock = pipeline.clock.clock()
clock.last_words = lambda: print("too slow", flush=True)
clock.start(0.3)
{work}
clock.stop()
time.sleep(0.5)
print("done")
"""
NATIVE = "re.match('(a|aa)+$', 'a' * 60 + 'b')"
"""A match that tries for ever and never lets another thread run."""


def watched(work: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED.format(work=work)], capture_output=True, text=True, timeout=100, check=False
    )


def test_a_record_within_its_time_is_left_alone_and_so_is_what_comes_after_it() -> None:
    done = watched("time.sleep(0.01)")
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_record_that_takes_too_long_ends_its_process_with_last_words() -> None:
    done = watched("time.sleep(60)")
    assert (done.returncode, done.stdout) == (TIME_LIMIT_EXIT, "too slow\n")


def test_native_code_that_never_lets_go_is_ended_too() -> None:
    done = watched(NATIVE)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_worker_whose_driver_is_gone_ends_itself() -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = 'import os, time; from pipeline.clock import start_worker; '"
        " 'start_worker(os.getppid()); print(os.getpid(), flush=True); time.sleep(60)'\n"
        "process = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE, text=True)\n"
        "print(process.stdout.readline(), flush=True)\n"
        "os._exit(0)\n"
    )
    driver = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    worker = int(driver.stdout)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # Nobody may be there to reap it.
        if not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("the worker lives on")
