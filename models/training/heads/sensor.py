"""What a cheap camera does to a clean picture: movement smears, colours lean, noise, JPEG.

Encoders that shall read webcams are trained through this; a generator is not. The bits of JPEG
differ between builds of OpenCV, so a sensor's pictures repeat exactly on one machine only.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sensor:
    """One camera on one occasion.

    Args:
        noise: Standard deviation at middle grey, of 255; it grows with the root of brightness.
        balance: Factors of red, green and blue.
        blur_px: Length of the smear of movement, pixels; up to 1 is none.
        blur_deg: Its direction.
        soften: Down to this share of the resolution and back, as a small sensor or a scaler does.
        jpeg: Quality, 1..100; 0 is none.
    """

    noise: float = 0.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.0
    blur_deg: float = 0.0
    soften: float = 1.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.jpeg <= 100 and 0.2 <= self.soften <= 1 and 0 <= self.noise <= 64):
            raise BadConfig(
                f"a sensor of noise {self.noise:g}, soften {self.soften:g}, jpeg {self.jpeg}: need"
                " noise 0..64, soften 0.2..1, jpeg 0..100"
            )

    def capture(self, rgb: U8, random: np.random.Generator) -> U8:
        """The picture uint8 [H, W, 3] as this camera gives it; `random` is for the noise."""
        x = rgb.astype(np.float32)
        if self.blur_px > 1:
            x = _smeared(x, self.blur_px, self.blur_deg)
        if self.soften < 1:
            x = _softened(x, self.soften)
        x *= np.asarray(self.balance, np.float32)
        if self.noise:
            deviation = self.noise * (0.5 + np.sqrt(x.clip(0, 255) / 255))
            x += random.standard_normal(x.shape, np.float32) * deviation
        seen = (x + 0.5).clip(0, 255).astype(np.uint8)
        return _compressed(seen, self.jpeg) if self.jpeg else seen


def random_sensor(random: np.random.Generator) -> Sensor:
    """From a good camera to a bad one."""
    bad = random.random()
    warm, green = random.normal(0, 0.06), random.normal(0, 0.03)
    exposure = np.exp(random.normal(0, 0.12))
    return Sensor(
        noise=float(random.uniform(0, 2 + 7 * bad)),
        balance=(
            float(exposure * (1 + warm)),
            float(exposure * (1 + green)),
            float(exposure * (1 - warm)),
        ),
        blur_px=float(random.uniform(0, 6) * (random.random() < 0.35)),
        blur_deg=float(random.uniform(0, 180)),
        soften=float(random.uniform(1 - 0.6 * bad, 1)),
        jpeg=int(random.uniform(95 - 65 * bad, 96)) if random.random() < 0.7 else 0,
    )


def _smeared(x: npt.NDArray[np.float32], length: float, degrees: float) -> npt.NDArray[np.float32]:
    """Averaged along a line, in light and not in its square root: highlights smear brightly."""
    half = int(np.ceil(length / 2))
    y, at = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, across = np.abs(at * c + y * s), np.abs(y * c - at * s)
    line = (length / 2 + 0.5 - along).clip(0, 1) * (1 - across).clip(0, 1)
    mixed = cv2.filter2D((x / 255) ** 2.2, -1, line / line.sum(), borderType=cv2.BORDER_REFLECT)
    return 255 * np.maximum(mixed, 0) ** np.float32(1 / 2.2)


def _softened(x: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.float32]:
    height, width = x.shape[:2]
    small = cv2.resize(
        x,
        (max(8, round(width * share)), max(8, round(height * share))),
        interpolation=cv2.INTER_AREA,
    )
    whole = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return whole.astype(np.float32, copy=False)


def _compressed(rgb: U8, quality: int) -> U8:
    done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    seen = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert done and seen is not None
    return np.ascontiguousarray(seen[:, :, ::-1], np.uint8)
