"""How the command ends: one line for what a user can mend, exit code 2."""

from __future__ import annotations

import errno
import re

_CONDITIONS = {
    errno.ENOSPC: "no space left on the device; free some and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EROFS: "the file system is read-only; choose another --store",
    errno.EACCES: "permission denied; choose another folder or mend its permissions",
    errno.EPERM: "permission denied; choose another folder or mend its permissions",
}
_WORDS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
}


_EXTRAS = {
    "torch": "torch",
    "safetensors": "torch",
    "diffusers": "decoder",
    "transformers": "decoder",
    "ray": "ray",
    "skimage": "demo",
}
"""Packages the core does without, and the extra that brings each."""


def condition_of(error: BaseException) -> str | None:
    """One line for a failure of the disk, its permissions or a missing extra, None for a fault of the program.

    Libraries written in Rust report the system's words inside their own errors.
    """
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EXTRAS:
        package = (error.name or "").partition(".")[0]
        return f"this needs {package}; install it with: pip install 'unifactory[{_EXTRAS[package]}]'"
    if isinstance(error, OSError) and error.errno in _CONDITIONS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{_CONDITIONS[error.errno]}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}; choose another folder or mend it"
    text = str(error)
    for words, code in _WORDS.items():
        if words in text:
            found = re.search(r'"(/[^"]+)"|(/\S+?)(?=[:\s,]|$)', text)
            name = next((group for group in found.groups() if group), "") if found else ""
            return f"{name}: {_CONDITIONS[code]}" if name else _CONDITIONS[code]
    return None
