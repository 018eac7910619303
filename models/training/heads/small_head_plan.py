"""The plan of the small head: where its grid's lines run and where they are drawn to.

All numbers are centimetres in the coordinates of every kit, or degrees of azimuth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

EYE = np.array([3.1, 3.6, 8.0])  # centre of the left eyeball
BALL = 1.5  # its radius
LID = 0.07  # the lids' margins lie so far outside the ball

# Azimuths of the left half's columns, degrees; eyes and lips have columns of their own.
HALF = (
    [0, 2.3, 4.6, 6.8, 9, 11.3, 14, 16.7, 19.4, 22.1, 24.7, 27.4, 30.2, 33.2, 36.5, 40, 44, 48, 52]
    + [56, 60, 64, 68.5, 73, 77.5, 81, 84.5, 88, 91.5, 95, 98.5, 102, 107, 113, 120, 128, 137, 147]
    + [158, 169, 180]
)
# Heights of the rings on the mid-line, from below the crown to below the chin.
RINGS = (
    [14.42, 14.1, 13.6, 13, 12.2, 11.3, 10.4, 9.5, 8.7, 8, 7.4, 6.85, 6.3, 5.85, 5.4, 5.0, 4.65]
    + [4.3, 3.95, 3.45, 3.0, 2.65, 2.3, 1.9, 1.5, 1.1, 0.7, 0.3, -0.1, -0.45, -0.8, -1.2, -1.55]
    + [-1.95, -2.42, -2.87, -3.36, -3.87, -4.38, -4.8, -5.3, -5.8, -6.3, -6.8, -7.2, -7.6, -8.0]
    + [-8.4, -8.8, -9.3]
)
LIDS = (18, 19, 20)  # rings of the upper lid, the corners, the lower lid
EYE_COLUMNS = (5, 11)
SLIT, SLIT_COLUMN = 36, 5  # the doubled ring, and the column of its corner
BUST_RINGS = 10

# Height, half width, depth in front and behind: a head without nose, lips and ears.
PROFILE = np.array(
    [
        [14.5, 0.0, 0.0, 0.0],
        [14.3, 2.6, 3.1, 2.6],
        [14.0, 3.9, 5.0, 3.7],
        [13.0, 5.3, 6.7, 5.2],
        [12.0, 6.2, 8.0, 6.4],
        [11.0, 6.8, 9.0, 7.1],
        [10.0, 7.25, 9.55, 7.8],
        [8.0, 7.75, 10.35, 8.4],
        [6.0, 7.85, 10.65, 8.65],
        [4.0, 7.65, 10.45, 8.55],
        [2.0, 7.4, 10.6, 8.0],
        [0.0, 7.15, 10.9, 7.3],
        [-2.0, 6.85, 11.25, 6.5],
        [-4.0, 6.4, 11.2, 5.9],
        [-5.5, 5.95, 10.95, 5.75],
        [-7.0, 5.3, 10.85, 5.7],
        [-8.0, 4.7, 10.3, 5.8],
        [-9.5, 4.2, 9.2, 6.2],
    ]
)
NECK = np.array([[14.5, 5.6, 6.0, 5.8], [-7.0, 5.5, 6.1, 5.8], [-10.0, 5.9, 5.4, 6.5]])
# Lower edge of the jaw over azimuth.
JAW = ([0, 8.5, 19, 30, 43, 52, 57, 62, 75, 180], [-8, -7.8, -7.4, -6.7, -4.9, -2.9, -1, 1, 2, 2])

# Where points of the left half shall be (68-point landmarks by number, and some between them).
TARGETS: dict[int, tuple[float, float, float]] = {
    8: (0, -7.57, 10.43),
    9: (1.54, -7.26, 10.27),
    10: (3.05, -6.91, 8.77),
    11: (4.3, -6.21, 7.35),
    12: (5.72, -4.49, 6.13),
    13: (6.56, -2.36, 5.17),
    14: (6.94, -0.46, 4.53),
    15: (7.28, 1.49, 3.93),
    16: (7.36, 3.68, 3.66),
    22: (1.17, 5.91, 10.73),
    23: (2.41, 6.19, 10.48),
    24: (3.79, 6.26, 9.83),
    25: (4.93, 5.98, 8.99),
    26: (5.82, 5.2, 7.91),
    27: (0, 3.74, 10.73),
    28: (0, 2.63, 11.52),
    29: (0, 1.61, 12.31),
    30: (0, 0.41, 13.07),
    33: (0, -1.2, 11.57),
    34: (0.6, -1.14, 11.42),
    35: (1.25, -1.14, 10.87),
    51: (0, -2.48, 11.84),
    52: (0.73, -2.42, 11.73),
    53: (1.7, -2.78, 11.22),
    54: (2.53, -3.52, 10.19),
    55: (1.8, -4.06, 10.9),
    56: (1.03, -4.3, 11.39),
    57: (0, -4.38, 11.55),
}
BETWEEN = (
    (0, -2.9, 12.02),  # the lips are fuller than their borders
    (1.1, -2.98, 11.6),
    (0, -3.88, 11.86),
    (1.1, -3.83, 11.45),
    (0, -5.25, 10.85),  # under the lower lip
    (0, -6.5, 11.05),  # chin
    (1.35, -0.2, 11.35),  # wings of the nose
    (1.75, -0.75, 10.75),
    (1.05, 0.9, 11.35),
    (1.25, 2.6, 10.1),  # beside its bridge
    (0, 5.2, 10.72),
    (3.4, 1.3, 9.75),  # cheeks
    (5.0, 0.4, 8.75),
    (4.6, -2.4, 8.85),
    (2.6, -1.9, 10.45),
    (3.1, 5.1, 9.75),  # under the brow
    (4.9, 4.4, 8.35),
    (0, 8.3, 10.3),  # forehead
    (3.6, 8.2, 9.6),
    (6.2, 7.0, 7.2),
    (0, -8.6, 8.4),
)


# Nodes (ring, column of the left half) that are landmarks whatever is near.
NODES = {
    42: (19, 5),
    43: (18, 7),
    44: (18, 9),
    45: (19, 11),
    46: (20, 9),
    47: (20, 7),
    62: (36, 0),
    63: (36, 2),
    64: (36, 5),
}
# The same point of the other half.
MIRROR = (
    [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18]
    + [17, 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54]
    + [53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
# The lids' margins from the inner corner outwards: x of the nodes; cubics through four landmarks.
LID_X = np.array([1.84, 2.05, 2.4, 2.78, 3.33, 3.87, 4.15, 4.33, 4.46])
UPPER_LID = np.polyfit([1.84, 2.78, 3.87, 4.46], [3.25, 3.94, 3.87, 3.43], 3)
LOWER_LID = np.polyfit([1.84, 2.73, 3.86, 4.46], [3.25, 3.08, 3.07, 3.43], 3)
SLIT_X = np.array([0, 0.5, 1.0, 1.45, 1.85, 2.21])


def lip_line(x: npt.ArrayLike) -> F64:
    """Height of the line between the shut lips."""
    return -3.36 - 0.0266 * np.asarray(x, np.float64) ** 2


def lid_line(x: npt.ArrayLike, *, upper: bool) -> F64:
    """Height of a lid's margin at the left eye, held beyond the corners."""
    inside = np.clip(x, LID_X[0], LID_X[-1])
    return np.polyval(UPPER_LID if upper else LOWER_LID, inside)
