"""What a pickle may ask for at most, and how a refusal is worded."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import BadCheckpoint

QUOTE = 80  # characters of a hostile file that one message repeats at most


@dataclass(frozen=True)
class Limits:
    """Bounds on one file, several times what the largest published files need."""

    file_bytes: int = 8 << 30
    steps: int = 1_000_000  # opcodes, hence objects: none makes more than one
    globals: int = 2_000  # names looked up
    tensors: int = 20_000
    marks: int = 1_000  # open brackets at one moment
    modules: int = 2_000  # of one network
    entries: int = 256  # children, parameters or buffers of one module, keys of one table
    depth: int = 32  # of modules in modules, and of a configuration
    dimensions: int = 8
    integer_bytes: int = 16  # the longest integer in these formats is torch's 10-byte magic number


def quote(text: object) -> str:
    """`text` escaped and cut, so that a message has a bounded length and no control characters."""
    if isinstance(text, str):
        # A whole repr of a hostile string may be gigabytes long.
        shown = ascii(text[:QUOTE])
        return shown if len(shown) <= QUOTE else shown[: QUOTE - 3] + "..."
    return f"a {type(text).__name__}"


def corrupt(message: str) -> BadCheckpoint:
    return BadCheckpoint("CKPT_CORRUPT", message)


def located(error: BadCheckpoint, offset: int, opcode: int) -> BadCheckpoint:
    """The same refusal, saying where in the file."""
    message = str(error).removeprefix(f"{error.code}: ")
    return BadCheckpoint(error.code, f"{message} (byte {offset}, opcode 0x{opcode:02x})")
