"""The camera: a pinhole on the z axis that shows the same piece of the world whatever its lens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

FRAME_CM = 29.5  # what the picture's height shows, at the face
CENTRE = np.array([0.0, 1.7, 0.0])  # of the picture, on an unmoved head
_FACE_CM = 5.0  # the face is so far in front of the head's origin
_NEAREST_CM = 0.5  # from the camera; nothing is projected from nearer


@dataclass(frozen=True)
class Camera:
    """A lens.

    Args:
        fov_deg: Vertical field of view, 20 .. 60 degrees: how strongly near things grow. The camera
            stands so far away that the face keeps its size.
        zoom: Above 1, the face is larger in the picture.
    Raises:
        BadConfig: Out of range.
    """

    fov_deg: float = 28.0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not 20.0 <= self.fov_deg <= 60.0:
            raise BadConfig(f"a camera's fov_deg is {self.fov_deg}; it must be in 20 .. 60")
        if not 0.25 <= self.zoom <= 4.0:
            raise BadConfig(f"a camera's zoom is {self.zoom}; it must be in 0.25 .. 4")

    def distance(self, fit: float = 1.0) -> float:
        """From the camera to the origin of the head, cm.

        Args:
            fit: The person's own zoom, below 1 where high hair would leave the picture.
        """
        return FRAME_CM / 2.0 / self._slope() / (self.zoom * fit) + _FACE_CM

    def focal(self, size: int) -> float:
        """In pixels (or samples) of a picture of `size` of them."""
        return size / 2.0 / self._slope()

    def project(
        self, points: npt.NDArray[np.floating], size: int, fit: float = 1.0
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """World points [M, 3] -> pixels [M, 2], x to the right and y down with pixel centres at .5,
        and 1 / distance [M], which is larger when nearer.
        """
        world = np.asarray(points, np.float64)
        inverse = 1.0 / np.maximum(self.distance(fit) - world[:, 2], _NEAREST_CM)
        scale = self.focal(size) * inverse
        x, y = size / 2.0 + scale * world[:, 0], size / 2.0 - scale * world[:, 1]
        return np.stack([x, y], 1), inverse

    def vector(self) -> npt.NDArray[np.float32]:
        """[fov_deg, zoom], as labels give it."""
        return np.array([self.fov_deg, self.zoom], np.float32)

    def _slope(self) -> float:
        return math.tan(math.radians(self.fov_deg) / 2.0)
