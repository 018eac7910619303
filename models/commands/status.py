"""Exit statuses of the commands, and the errors that they stand for.

0 well    2 usage    65 refused data    69 the disk or the machine    78 impossible settings
130 interrupted
"""

from __future__ import annotations

from collections.abc import Callable

from models.errors import BadConfig, ModelError, Unavailable

BAD_DATA, UNAVAILABLE, BAD_CONFIG, INTERRUPTED = 65, 69, 78, 130


def guarded(command: Callable[[], int], say: Callable[[str], None]) -> int:
    """Runs a command; an error becomes one sentence and a status."""
    status: int
    reason: Exception
    try:
        return command()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BadConfig as error:
        status, reason = BAD_CONFIG, error
    except Unavailable as error:
        status, reason = UNAVAILABLE, error
    except ModelError as error:
        status, reason = BAD_DATA, error
    except OSError as error:
        status, reason = UNAVAILABLE, error
    say(f"stylewire: {reason}")
    return status
