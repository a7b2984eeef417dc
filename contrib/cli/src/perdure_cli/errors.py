"""What stops a command, and the exit codes."""

FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
PIPE_CLOSED = 141
"""128 + SIGPIPE: the reader, ``head`` for one, went away."""


class CommandError(Exception):
    """The command cannot go on. ``str`` is the one line shown to the user."""


class UsageError(CommandError):
    """The command was called in a way that makes no sense. Nothing was done."""
