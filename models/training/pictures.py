"""Sample pictures of a run as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor


def write_grid(path: Path, grid: Tensor) -> None:
    """A PNG of pictures in rows and columns.

    Args:
        grid: uint8 [rows, columns, 3, R, R], RGB.
    Raises:
        OSError: The file cannot be written.
    """
    rows, columns, _, height, width = grid.shape
    whole = grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    bgr = cv2.cvtColor(np.ascontiguousarray(whole.cpu().numpy()), cv2.COLOR_RGB2BGR)
    made, content = cv2.imencode(".png", bgr)
    assert made, f"OpenCV makes no PNG of {bgr.shape}"
    # Beside its place first: a full disk leaves no torn picture.
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.tobytes())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
