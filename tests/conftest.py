"""What tests of several rooms share: settings of property tests, an object store on loopback, one Ray."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, so that a failure of the suite is a fault of the change before it;
# HYPOTHESIS_PROFILE=explore looks further.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "corpora"
REVIEWED = "a529277798ffdfd4a2a63a4313d89368633f12bcef73e3cbb460fbd460c95d76"
"""Of the manifests of the sample corpora whose verdicts were reviewed."""


def samples_digest() -> str:
    """sha256 over the manifests of the sample corpora beside the project."""
    digest = hashlib.sha256()
    for manifest in sorted(SAMPLES.glob("*/manifest.jsonl")):
        digest.update(f"{manifest.parent.name} {hashlib.sha256(manifest.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what was reviewed on other samples than those beside the project."""
    marked = [item for item in items if item.get_closest_marker("reviewed")]
    if marked and samples_digest() != REVIEWED:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="the sample corpora that were reviewed are not beside the project"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """Options of an S3-compatible server on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "a-secret-nobody-stores",
        "AWS_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def s3(s3_server: dict[str, str], request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The address of an empty bucket of this test's own, and the options that reach it."""
    import boto3

    client: Any = boto3.client(
        "s3",
        endpoint_url=s3_server["AWS_ENDPOINT_URL"],
        aws_access_key_id="testing",
        aws_secret_access_key="a-secret-nobody-stores",
        region_name="us-east-1",
    )
    bucket = f"bucket-{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/store", s3_server


@pytest.fixture(scope="session")
def ray_runtime() -> Iterator[Any]:
    """One Ray with two CPUs for all tests marked `ray`; they share a worker through xdist_group("ray")."""
    ray = pytest.importorskip("ray")
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    ray.init(
        num_cpus=2,
        num_gpus=1,  # a promise that nothing here calls in
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.getcwd(), **threads}},
    )
    yield ray
    ray.shutdown()


@dataclass(frozen=True)
class Shown:
    """A finished demo: its store `runs/demo` below a folder, the corpus beside it, what it said."""

    folder: Path
    result: Any
    said: str

    @property
    def store(self) -> Path:
        return self.folder / "runs" / "demo"

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "demo-corpus"


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """One demo for all tests of xdist_group("demo")."""
    from jobs.demo import demo

    folder = tmp_path_factory.mktemp("shown")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        result = demo(folder / "runs" / "demo", 2)
    return Shown(folder, result, said.getvalue())
