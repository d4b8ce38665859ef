"""The error that is the user's to mend, which the command line prints as one line."""

from __future__ import annotations

__all__ = [
    "ShardLostError",
    "UserError",
]


class UserError(ValueError):
    """The user's input, folder or setting is at fault.

    The message is one line that says what was found, what is allowed and the remedy;
    the command line prints it without a traceback and exits with 1.
    """


class ShardLostError(UserError):
    """No replica of a shard answers: another request may do better later."""
