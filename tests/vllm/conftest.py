from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
START_SECONDS = 300
MODEL, REVISION = "tiny-vl", "r1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These tests run only when they are asked for, with `-m vllm`."""
    if "vllm" in (config.option.markexpr or ""):
        return
    ours = [item for item in items if item.get_closest_marker("vllm") is not None]
    if ours:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@dataclass(frozen=True)
class Vllm:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]

    def requests(self) -> int:
        """How many requests it has answered in its life, by its own count."""
        text = httpx.get(self.url.removesuffix("/v1") + "/metrics", trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith("vllm:request_success_total{")]
        return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """vLLM on the CPU with a tiny random Qwen3-VL, ended with the tests; fails if a process of it outlives them."""
    if not PYTHON.exists():
        pytest.skip("no .venv-vllm; run `make test-vllm`, which makes it")
    folder = tmp_path_factory.mktemp("vllm")
    # The folder's name tells the revision, as a hub cache's does.
    checkpoint = folder / f"{MODEL}@{REVISION}"
    subprocess.run(
        [PYTHON, Path(__file__).parent / "make_checkpoint.py", checkpoint], check=True, timeout=START_SECONDS
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    process = _start(checkpoint, port, log)
    members: dict[int, psutil.Process] = {}
    try:
        _wait_healthy(process, port, log)
        yield Vllm(f"http://127.0.0.1:{port}/v1", process)
    finally:
        members = _session(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        gone, alive = psutil.wait_procs(list(members.values()), timeout=10)
        for orphan in alive:
            orphan.kill()
        print(f"vLLM ended with {process.returncode}; {len(gone)} processes gone, {len(alive)} left")
    assert not alive, f"vLLM left {alive}"
    assert process.returncode == 0, _tail(log)


def _start(checkpoint: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
        # Threads of two busy cores fight over them: with one a request is nine times quicker.
        "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint, "--served-model-name", MODEL]
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    # A random model would go on with blanks between the parts of a JSON object for ever.
    whitespace = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    limits = ["--max-model-len", "2048", "--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    with log.open("wb") as output:
        return subprocess.Popen(
            ["nice", "-n", "5", *command, *options, *whitespace, *limits],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS:
        if process.poll() is not None:
            pytest.fail(f"vLLM ended with {process.returncode} before it was ready:\n{_tail(log)}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200:
                print(f"vLLM was ready after {time.monotonic() - started:.0f} s")
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    pytest.fail(f"vLLM was not ready within {START_SECONDS} s:\n{_tail(log)}")


def _session(leader: int) -> dict[int, psutil.Process]:
    """Every process of the server's session, whoever its parent is."""
    found = {}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found[process.pid] = process
        except (ProcessLookupError, PermissionError):
            continue
    return found


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
