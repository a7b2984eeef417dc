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
    _open_missing_streams()
    sys.exit(run(sys.argv[1:]))


def _open_missing_streams() -> None:
    """Stand in for streams that were closed before we started (``perdure ls >&-``).

    Python has ``None`` for them, and a database file could get their descriptor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def run(arguments: list[str]) -> int:
    """Run the command with these arguments and return the exit code."""
    if arguments in (["--version"], ["-V"]):  # answered without loading anything
        sys.stdout.write(f"perdure {__version__}\n")
        return 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        from perdure_cli.output import fail

        _discard_output()
        fail(f"standard output: {error.strerror}")
        return FAILED
    return code


def _discard_output() -> None:
    """What is still buffered would raise again when the interpreter flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    import click

    from perdure.errors import PerdureError

    from perdure_cli.app import perdure
    from perdure_cli.errors import CommandError, UsageError
    from perdure_cli.output import fail, prepare_streams

    prepare_streams()
    try:
        # Click only parses: it returns what is to be done, or 0 after --help. The commands of
        # other distributions have done it then, and return their exit code or nothing.
        action: partial[int] | int | None = perdure.main(
            arguments, prog_name="perdure", standalone_mode=False
        )
        return action() if isinstance(action, partial) else action or 0
    except click.ClickException as error:
        text = error.format_message().removesuffix(".")
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (try '{error.ctx.command_path} --help')"
        fail(text[:1].lower() + text[1:] + hint)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except UsageError as error:
        fail(str(error))
        return USAGE
    except (CommandError, PerdureError) as error:
        fail(str(error))
        return FAILED
    except OSError as error:
        if error.filename is None:
            raise  # a stream's
        fail(f"{error.filename}: {error.strerror}")
        return FAILED
