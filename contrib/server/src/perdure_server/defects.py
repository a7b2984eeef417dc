"""Errors that should not be: logged for whoever runs the server, hidden from its clients."""

import logging
import traceback

from perdure.protocol.refusals import Code, Refused

_log = logging.getLogger("perdure.server")


def defect(error: Exception) -> Refused:
    """What a client learns of it. The log has where it was raised, but not its text, which
    might quote what was stored."""
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s while answering a request\n%s", type(error).__qualname__, places)
    return Refused(Code.UNKNOWN, "the server failed; its log says where")
