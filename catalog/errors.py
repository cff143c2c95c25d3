"""Errors that a user can mend: one line, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a condition the user can mend. The message names the place, the value, and what to do."""
