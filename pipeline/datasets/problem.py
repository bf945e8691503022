"""What a user can correct, said by the child process that reads arrays."""

from __future__ import annotations


class Problem(Exception):
    """Found, expected, next: written to a file, and raised by the parent."""
