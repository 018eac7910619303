"""What 68 landmarks (Multi-PIE order) say about a face, however large it is in the picture."""

from __future__ import annotations

import torch
from torch import Tensor

_LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
_EYES = ((36, 39), (42, 45))
_LIPS = (62, 66)


def face_width(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: from ear to ear, or what the height says if that is short."""
    across = (landmarks[..., 0, :] - landmarks[..., 16, :]).norm(dim=-1)
    height = (landmarks[..., 27, :] - landmarks[..., 8, :]).norm(dim=-1)
    return torch.maximum(across, 1.3 * height)


def off_by(found: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """Mean distance of landmarks after the best similarity transform, as a share of the face.

    Args:
        found, truth: [N, 68, 2].
        visible: [N, 68] bool; the others do not count.
    Returns:
        [N].
    """
    weight = visible.to(found.dtype)[..., None]
    total = weight.sum(1, keepdim=True).clamp(min=1)
    a = found - (found * weight).sum(1, keepdim=True) / total
    b = truth - (truth * weight).sum(1, keepdim=True) / total
    # As complex numbers, the best turn and scale is one division.
    z, w = torch.view_as_complex(a.contiguous()), torch.view_as_complex(b.contiguous())
    scale = (weight[..., 0] * z.conj() * w).sum(1) / (weight[..., 0] * z.abs() ** 2).sum(1).clamp(
        min=1e-12
    )
    distance = (z * scale[:, None] - w).abs()
    mean = (distance * weight[..., 0]).sum(1) / total[:, 0, 0]
    return mean / face_width(truth)


def eye_opening(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: distance of the lids over the eyes' width, mean over both."""
    return lid_distance(landmarks) / eye_width(landmarks).clamp(min=1e-6)


def lid_distance(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: mean over two places of both eyes."""
    return sum((_between(landmarks, pair) for pair in _LIDS), torch.zeros(())) / len(_LIDS)


def eye_width(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: from corner to corner, mean over both eyes."""
    return sum((_between(landmarks, pair) for pair in _EYES), torch.zeros(())) / len(_EYES)


def mouth_gap(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: distance of the lips over the face's width."""
    return lip_distance(landmarks) / face_width(landmarks)


def lip_distance(landmarks: Tensor) -> Tensor:
    """[..., 68, 2] -> [...]: between the middles of the lips' inner edges."""
    return _between(landmarks, _LIPS)


def _between(landmarks: Tensor, pair: tuple[int, int]) -> Tensor:
    return (landmarks[..., pair[0], :] - landmarks[..., pair[1], :]).norm(dim=-1)
