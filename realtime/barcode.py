"""A number drawn into a picture's luma and read back after any codec.

One row of 32 blocks along the top edge, each `width / 32` pixels square: 24 bits of number, highest
first, then 8 bits of CRC, dark or light. It stays right through transcoding, repeated and dropped
frames, so it tells which frame is on the glass where an RTP timestamp only tells which one was
received. A page reads the same layout.
"""

from __future__ import annotations

import numpy as np

NUMBER_BITS = 24
CRC_BITS = 8
BLOCKS = NUMBER_BITS + CRC_BITS
CRC_POLYNOMIAL = 0x07  # x^8 + x^2 + x + 1
CRC_START = 0xFF  # so that a black bar (all zeros) is not a valid number
DARK, LIGHT = 40, 216  # inside limited range: a range mistake on the way cannot flip a bit
THRESHOLD = (DARK + LIGHT) // 2

_SHIFTS = np.arange(BLOCKS - 1, -1, -1, dtype=np.int64)


def crc8(number: int) -> int:
    """CRC-8 of the low 24 bits, three bytes, highest first."""
    crc = CRC_START
    for shift in (16, 8, 0):
        crc ^= number >> shift & 0xFF
        for _ in range(8):
            crc = (crc << 1 ^ CRC_POLYNOMIAL) & 0xFF if crc & 0x80 else crc << 1
    return crc


def stamp(luma: np.ndarray, number: int) -> None:
    """Draw the low 24 bits of `number` into the top rows of `luma`, in place.

    Args:
        luma: uint8 [H, W]; the Y plane of an I420 picture, W a multiple of 32.
        number: Not negative; counted modulo 2**24 (155 hours at 30 a second).
    Raises:
        ValueError: the plane is too small, or its width is no multiple of 32.
    """
    height, width = luma.shape
    block = width // BLOCKS
    if block == 0 or width % BLOCKS or height < block:
        raise ValueError(
            f"a barcode needs a width that is a multiple of {BLOCKS} and {max(block, 1)} rows; "
            f"this plane is {width}x{height}."
        )
    number &= (1 << NUMBER_BITS) - 1
    bits = (number << CRC_BITS | crc8(number)) >> _SHIFTS & 1
    luma[:block] = np.repeat(np.where(bits, LIGHT, DARK).astype(np.uint8), block)


def read(luma: np.ndarray) -> int | None:
    """The number in `luma`, or None where the CRC disagrees.

    Args:
        luma: uint8 [H, W] of any size, also scaled since the number was drawn.
    """
    cell = luma.shape[1] / BLOCKS
    if cell < 1:
        return None
    # The middle of each block: a codec blurs the edges, a scaler moves them by up to half a pixel.
    rows = slice(int(cell * 0.25), max(int(cell * 0.75), int(cell * 0.25) + 1))
    starts = np.arange(BLOCKS) * cell + 0.25 * cell
    columns = (starts[:, None] + np.arange(max(1, int(cell / 2)))).astype(np.int64)
    bright = luma[rows][:, columns].mean(axis=(0, 2)) > THRESHOLD
    word = 0
    for bit in bright:
        word = word << 1 | int(bit)
    number = word >> CRC_BITS
    return number if crc8(number) == word & 0xFF else None
