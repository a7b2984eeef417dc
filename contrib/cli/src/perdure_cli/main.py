"""The entry point of the ``perdure`` command: runs it, and turns failures into exit codes."""

import os
import sys
from functools import partial

from perdure_cli import __version__
from perdure_cli.errors import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE


def main() -> None:
    """Run the command line and exit.

    0: done. 1: it failed. 2: it was called wrongly. 130: interrupted. 141: whoever read the
    output went away. Every failure is one line on standard error.
    """
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command with these arguments and return the exit code."""
    if arguments in (["--version"], ["-V"]):  # answered without loading anything
        sys.stdout.write(f"perdure {__version__}\n")
        return 0
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    import click

    from perdure.errors import PerdureError

    from perdure_cli.app import perdure
    from perdure_cli.errors import CommandError, UsageError
    from perdure_cli.output import fail, prepare_streams

    prepare_streams()
    try:
        # Click only parses: it returns what is to be done, or 0 after --help.
        action: partial[int] | int | None = perdure.main(
            arguments, prog_name="perdure", standalone_mode=False
        )
        return action() if isinstance(action, partial) else 0
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (try '{error.ctx.command_path} --help')"
        fail(error.format_message() + hint)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except UsageError as error:
        fail(str(error))
        return USAGE
    except (CommandError, PerdureError) as error:
        fail(str(error))
        return FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED
