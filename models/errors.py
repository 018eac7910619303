"""Errors of `models`.

ModelError
 |- BadConfig         a hyperparameter is unknown, missing or out of range
 |- BadCheckpoint     a file that is no checkpoint, is damaged or asks for too much (`code`)
 |- BadKit            a file of head geometry is refused
 |- Unavailable       the machine cannot: its disk is full, a device is missing
 |- NotGenerative     the system has no motion of its own: it needs a driver
 `- NotDrivable       the system cannot be driven by a face
"""


class ModelError(Exception):
    """Whatever `models` raises on purpose."""


class BadConfig(ModelError):
    """A configuration that names unknown keys or impossible values."""


class BadCheckpoint(ModelError):
    """A checkpoint file is refused.

    Args:
        code: Stable name of the reason, e.g. `CKPT_TRUNCATED`.
        message: What, which value, and what to do next.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class BadKit(ModelError):
    """The geometry that heads are drawn from is damaged, incomplete or something else."""


class Unavailable(ModelError):
    """The machine cannot; the same command may work once that is mended."""


class NotGenerative(ModelError):
    """The method makes no motion by itself."""


class NotDrivable(ModelError):
    """The method cannot be driven by captured frames."""


class CannotFuse(ModelError):
    """A network has a part that the fused ops do not cover; it can still be run as it is."""
