"""Store I/O: one small interface over a local folder and S3-compatible object stores.

Objects are write-once and appear whole or not at all; deleting is for `gc`, `retry` and takedowns alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from catalog.errors import UserError


class Storage(Protocol):
    """Bytes by name below one root. Names use forward slashes and never start with one or contain `..`."""

    uri: str
    options: dict[str, str]

    def read(self, name: str) -> bytes:
        """All bytes; raises FileNotFoundError."""

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`."""

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make an object appear whole, replacing one of that name."""

    def create(self, name: str, data: bytes) -> bool:
        """Make an object appear unless one of that name exists; says whether it did."""

    def adopt(self, name: str, file: Path) -> None:
        """Move a finished local file to that name, whole or not at all."""

    def exists(self, name: str) -> bool:
        """Whether an object of that name is there."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(name, size in bytes) of every object below a prefix that ends at a slash, sorted by name."""

    def delete(self, name: str) -> None:
        """Remove an object; one that is gone already is fine."""

    def local_path(self, name: str) -> Path | None:
        """The file behind a name where there is one, so that readers can map it; None on object stores."""

    def table_uri(self, name: str) -> str:
        """The address by which deltalake and polars open a table."""

    def is_locked(self) -> bool:
        """Whether somebody has the right to write now."""

    def lock(self) -> Any:
        """A context manager: the right to write; raises UserError while another run has it."""


def open_storage(uri: str, options: dict[str, str] | None = None) -> Storage:
    """The storage behind a folder path or an `s3://bucket/prefix` address."""
    if uri.startswith("s3://"):
        return ObjectStore(uri, options or {})
    if "://" in uri:
        raise UserError(f"{uri}: only folders and s3:// addresses can hold a store")
    return LocalFolder(uri)


def _safe(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} leaves the store")
    return name


def _temporary(path: Path) -> Path:
    """A name beside a file that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")


class LocalFolder:
    """A store in a folder of this machine. Files are written under a temporary name, flushed, then renamed."""

    def __init__(self, root: str) -> None:
        self.uri = str(Path(root).absolute())
        self.options: dict[str, str] = {}
        self._root = Path(self.uri)

    def _path(self, name: str) -> Path:
        return self._root / _safe(name)

    def read(self, name: str) -> bytes:
        """All bytes; raises FileNotFoundError."""
        return self._path(name).read_bytes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`."""
        with self._path(name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextmanager
    def _finished(self, path: Path, data: bytes | memoryview) -> Iterator[Path]:
        """A flushed file beside `path`, gone afterwards unless it was renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make a file appear whole, replacing one of that name."""
        path = self._path(name)
        with self._finished(path, data) as temporary:
            temporary.replace(path)

    def create(self, name: str, data: bytes) -> bool:
        """Make a file appear unless one of that name exists; says whether it did."""
        path = self._path(name)
        with self._finished(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        return True

    def adopt(self, name: str, file: Path) -> None:
        """Move a finished local file to that name, whole or not at all."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        try:
            file.replace(path)
        except OSError:
            self.write(name, file.read_bytes())
            file.unlink()

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return self._path(name).is_file()

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(name, size in bytes) of every file below a prefix, sorted by name; unfinished ones are not listed."""
        top = self._path(prefix) if prefix else self._root
        found = []
        for folder, _, files in os.walk(top):
            for file in files:
                if not (file.startswith(".") and file.endswith(".tmp")):
                    path = Path(folder) / file
                    found.append((path.relative_to(self._root).as_posix(), path.stat().st_size))
        yield from sorted(found)

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is fine."""
        self._path(name).unlink(missing_ok=True)

    def local_path(self, name: str) -> Path | None:
        """The file behind a name."""
        return self._path(name)

    def table_uri(self, name: str) -> str:
        """The folder of a table."""
        return str(self._path(name))

    def is_locked(self) -> bool:
        """Whether another process holds the flock."""
        try:
            with (self._root / "lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The right to write, held by an flock: it ends with the process, however that ends."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(f"{self.uri}: in use by {holder}; wait for it or stop it") from None
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}")
            file.flush()
            yield


class ObjectStore:
    """A store in an S3-compatible bucket. A lease object, created only if absent and renewed, is the lock."""

    LEASE = timedelta(seconds=60)

    def __init__(self, uri: str, options: dict[str, str]) -> None:
        self.uri = uri.rstrip("/")
        self.options = _with_plain_http(options or _options_from_environment())
        if "AWS_ACCESS_KEY_ID" not in self.options:
            raise UserError(
                f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                " (and AWS_ENDPOINT_URL for a server other than AWS)"
            )
        self._store = self._connect()

    def _connect(self, client: dict[str, Any] | None = None, **more: Any) -> Any:
        from obstore.store import S3Store

        options = {**_client(self.options), **(client or {})}
        return S3Store.from_url(self.uri, config=_s3_config(self.options), client_options=options, **more)

    def read(self, name: str) -> bytes:
        """All bytes; raises FileNotFoundError."""
        return bytes(self._store.get(_safe(name)).bytes())

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`."""
        return bytes(self._store.get_range(_safe(name), start=start, length=length))

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make an object appear whole, replacing one of that name."""
        self._store.put(_safe(name), bytes(data))

    def create(self, name: str, data: bytes) -> bool:
        """Make an object appear unless one of that name exists; says whether it did."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._store.put(_safe(name), data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def adopt(self, name: str, file: Path) -> None:
        """Upload a finished local file and remove it."""
        with file.open("rb") as source:
            self._store.put(_safe(name), source)
        file.unlink()

    def exists(self, name: str) -> bool:
        """Whether an object of that name is there."""
        try:
            self._store.head(_safe(name))
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(name, size in bytes) of every object below a prefix, sorted by name."""
        pages = self._store.list(_safe(prefix) or None)
        found = [(str(meta["path"]), int(meta["size"])) for page in pages for meta in page]
        yield from sorted(found)

    def delete(self, name: str) -> None:
        """Remove an object; one that is gone already is fine."""
        self._store.delete(_safe(name))

    def local_path(self, name: str) -> Path | None:
        """Object stores have no local files."""
        return None

    def table_uri(self, name: str) -> str:
        """The address of a table."""
        return f"{self.uri}/{_safe(name)}"

    def is_locked(self) -> bool:
        """Whether somebody has the lease."""
        from catalog.lease import is_held

        return is_held(self._store, "lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The right to write: an object put only if absent, renewed while held, taken over once it is stale."""
        from obstore.exceptions import BaseError

        from catalog.lease import hold_lease

        try:
            self.exists("store.json")
        except BaseError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.uri}: cannot be reached: {reason}") from None
        with hold_lease(
            self._impatient(), "lock", f"{socket.gethostname()} process {os.getpid()}", self.LEASE, self.uri
        ):
            yield

    def _impatient(self) -> Any:
        """A client that gives up soon: one that retries for minutes would learn of a lost lease when it is too late."""
        wait = max(self.LEASE / 8, timedelta(seconds=1))
        return self._connect({"timeout": wait}, retry_config={"max_retries": 0, "retry_timeout": wait})


def _options_from_environment() -> dict[str, str]:
    """S3 settings from the usual AWS variables; they are passed on in memory and never stored."""
    names = (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
    )
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _with_plain_http(options: dict[str, str]) -> dict[str, str]:
    """deltalake and polars refuse an http:// endpoint unless they are told; a server on loopback has no other."""
    plain = options.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {**options, "AWS_ALLOW_HTTP": "true"} if plain else options


def _s3_config(options: dict[str, str]) -> Any:
    names = {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_REGION": "region",
        "AWS_ENDPOINT_URL": "endpoint",
    }
    return {short: options[name] for name, short in names.items() if name in options}


def _client(options: dict[str, str]) -> Any:
    return {"allow_http": True} if "AWS_ALLOW_HTTP" in options else {}
