"""Standard normal noise that can be read at any index: Philox4x32-10 and Box-Muller.

Motion and walks are made of vectors at knots k = ..., -1, 0, 1, ... of a stream. Each vector is a
pure function of (seed, domain, knot), so a stream needs no memory of what was drawn before and any
time can be reached at once. **The mapping below is part of the session format**: changing it
changes every picture that a seed stands for. `tests/models/test_noise.py` freezes it.

    key     = (seed low 32 bits, seed high 32 bits)
    counter = (entry // 4, knot low 32 bits, knot high 32 bits, domain)     knot in two's complement
    u_i     = (word_i + 1) / 2^32                                           in (0, 1]
    entry 4n, 4n+1 = sqrt(-2 ln u_0) * (cos, sin)(2 pi u_1);    4n+2, 4n+3 the same from u_2, u_3

evaluated in float64 and rounded to float32.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: what the key grows by each round
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Domain(IntEnum):
    """What a stream of noise is for, so that one seed gives unrelated streams to unrelated uses."""

    STYLEGAN_V_MOTION = 1
    WALK = 2
    FACE_TRACK = 3
    FACE_PERSON = 4
    FEATURES = 5  # of models/metrics/features.py


def philox4x32(
    counter: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], key: tuple[int, int]
) -> npt.NDArray[np.uint32]:
    """Four 32-bit words for each counter.

    Args:
        counter: Four arrays (or numbers) of 32-bit values that broadcast together to a shape `S`.
        key: Two 32-bit values.
    Returns:
        uint32 [*S, 4].
    """
    # Held in 64 bits throughout, since one round needs both halves of 32 x 32-bit products.
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter))
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0)
        c1 = p1 & _LOW
        c2 = (p0 >> _HALF) ^ c3 ^ np.uint64(k1)
        c3 = p0 & _LOW
        k0 = (k0 + _WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def normals(
    seed: int, first_knot: int, knots: int, size: int, *, domain: Domain
) -> npt.NDArray[np.float32]:
    """The standard normal vectors of `knots` consecutive knots.

    Args:
        seed: Of the stream; 0 .. 2^64 - 1.
        first_knot: Any signed 64-bit index.
        knots: How many vectors.
        size: Entries of a vector.
        domain: What they are for.
    Returns:
        float32 [knots, size]. Row r depends on (seed, domain, first_knot + r) only.
    Raises:
        BadConfig: The seed or a knot does not fit its 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
    if not -(1 << 63) <= first_knot <= (1 << 63) - knots:
        raise BadConfig(f"knot {first_knot} does not fit a signed 64-bit integer; ask nearer to 0")
    index = np.array([(first_knot + r) & (1 << 64) - 1 for r in range(knots)], np.uint64)
    words = philox4x32(
        (
            np.arange(-(-size // 4), dtype=np.uint64)[None, :],
            (index & _LOW)[:, None],
            (index >> _HALF)[:, None],
            int(domain),
        ),
        (seed & 0xFFFFFFFF, seed >> 32),
    )  # [knots, ceil(size / 4), 4]
    uniform = (words.astype(np.float64) + 1.0) * 2.0**-32  # exact: 33 bits at most
    radius = np.sqrt(-2.0 * np.log(uniform[..., 0::2]))
    angle = 2.0 * np.pi * uniform[..., 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(knots, -1)[:, :size].astype(np.float32)
