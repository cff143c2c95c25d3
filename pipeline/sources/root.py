"""The media root, and the one check that a path from the outside stays inside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from catalog.errors import UserError
from pipeline.sources.base import BadRow
from pipeline.sources.fields import show

_SPECIAL = ("", ".", "..")


class MediaRoot:
    """Checks paths that manifests give; remembers the real paths of folders, so that a file costs one
    `lstat`.

    A path is joined to its manifest's folder and cleaned of `.` and `..` by its letters alone; the result
    must name an existing plain file whose real path lies below the real path of the root.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._real = os.path.realpath(root)
        self._folders: dict[str, bool] = {}

    def file(self, path: str, folder: str = "") -> str:
        """The cleaned path, relative to the root, of a file named relative to `folder` (below the root too).

        Raises BadRow when the path is empty, absolute, leaves the root (by its letters or by a link), is
        missing or is not a plain file.
        """
        cleaned = self.clean(path, folder)
        parent = cleaned.rpartition("/")[0]
        inside = self._folders.get(parent)
        if inside is None:
            inside = self._folders[parent] = self._inside(os.path.realpath(f"{self.root}/{parent}"))
        if not inside:
            raise BadRow("path leaves the root", f"{show(path)} leads outside the root through a link")
        full = f"{self.root}/{cleaned}"
        try:
            mode = os.lstat(full).st_mode
            if stat.S_ISLNK(mode):
                if not self._inside(os.path.realpath(full)):
                    raise BadRow("path leaves the root", f"{show(path)} is a link that leads outside the root")
                mode = os.stat(full).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise BadRow("missing file", f"the file {show(path)} does not exist") from None
        except OSError as error:
            raise BadRow("unreadable file", f"the file {show(path)}: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise BadRow("not a file", f"{show(path)} is not a plain file")
        return cleaned

    def clean(self, path: str, folder: str = "") -> str:
        """The path relative to the root without `.` and `..`, by its letters alone; raises BadRow."""
        if not path:
            raise BadRow("empty path", "the path is empty")
        if path[0] == "/":
            raise BadRow("absolute path", f"{show(path)} is an absolute path")
        if "\0" in path:
            raise BadRow("unreadable file", f"{show(path)} has a zero byte in it")
        joined = f"{folder}/{path}" if folder else path
        parts = joined.split("/")
        for part in _SPECIAL:
            if part in parts:
                joined = os.path.normpath(joined)
                if joined == ".." or joined.startswith("../"):
                    raise BadRow("path leaves the root", f"{show(path)} leads outside the root")
                break
        return joined

    def own_file(self, path: str, what: str) -> str:
        """As `file`, for a file that the recipe names itself: whatever is wrong with it raises UserError."""
        try:
            cleaned = self.file(path)
        except BadRow as bad:
            raise UserError(f"{what} {show(path)}: {bad} (the root is {self.root})") from None
        if not os.access(f"{self.root}/{cleaned}", os.R_OK):
            raise UserError(f"{what} {show(path)}: cannot be read; check its permissions")
        return cleaned

    def own_folder(self, path: str, what: str) -> str:
        """The cleaned path of a folder that the recipe names itself ("." is the root); raises UserError."""
        try:
            cleaned = self.clean(path)
        except BadRow as bad:
            raise UserError(f"{what} {show(path)}: {bad} (the root is {self.root})") from None
        full = os.path.join(self.root, cleaned)
        if not os.path.isdir(full):
            raise UserError(f"{what} {show(path)}: no such folder (the root is {self.root})")
        if not self._inside(os.path.realpath(full)):
            raise UserError(f"{what} {show(path)}: leads outside the root {self.root} through a link")
        if not os.access(full, os.R_OK | os.X_OK):
            raise UserError(f"{what} {show(path)}: cannot be read; check its permissions")
        return cleaned

    def _inside(self, real: str) -> bool:
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")
