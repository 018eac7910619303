"""What turns clips and frames into feature vectors: a network of the user's, or one made here.

Published figures come from networks that cannot be shipped (I3D for FVD, Inception for FID). A user
who has them as TorchScript names the file. Without one, a fixed random convolutional network gives
numbers that rise and fall with differences in look and movement, but **compare only with numbers
of the same network and protocol**; its name says so wherever such a number is printed.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.noise import Domain, normals

VIDEO_NAME = "stylewire-random-conv3d (relative only)"
IMAGE_NAME = "stylewire-random-conv2d (relative only)"
_SIDE = 64  # pixels; what the random network looks at
_CHANNELS = (16, 32, 48)
_SEED = 20_211_214  # of its weights; part of the measure
# What published detectors want switched on: raw uint8 in, features instead of classes out.
_SWITCHES = ("rescale", "resize", "return_features")


class BadNetwork(ModelError):
    """A file that is no TorchScript network of the kind asked for."""


class FeatureNetwork(Protocol):
    """Clips to vectors. `name` is printed beside every number made with it."""

    name: str

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, 3, H, W] -> float32 [N, D]."""
        ...


class RandomConvolutions(nn.Module):
    """Three strided convolutions with fixed random weights, and moments of what they give.

    A filter's mean over the picture says how much there is of a pattern, its deviation (over time
    for clips, over the picture for frames) how it changes. Random filters see edges, colours and
    movement well enough to rank two sets; they know nothing of objects.

    Args:
        frames: Clips of several frames, with filters over time; else single frames, T = 1.
    """

    def __init__(self, *, frames: bool) -> None:
        super().__init__()
        self.name = VIDEO_NAME if frames else IMAGE_NAME
        self._frames = frames
        depth = 3 if frames else 1
        for k, (inner, outer) in enumerate(zip((3, *_CHANNELS[:-1]), _CHANNELS, strict=True)):
            size = inner * depth * 9
            # Read from our own noise: torch's generators may change between releases.
            noise = normals(_SEED + k, 0, outer, size, domain=Domain.FEATURES)
            weight = torch.from_numpy(noise).view(outer, inner, depth, 3, 3) * (2 / size) ** 0.5
            # Filters that sum to 0 answer to structure, not to how bright a picture is.
            weight = weight - 0.7 * weight.mean((1, 2, 3, 4), keepdim=True)
            self.register_buffer(f"weight{k}", weight)
        self._padding = (depth // 2, 1, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, 3, H, W] -> float32 [N, 2 * 96]."""
        count, times = clips.shape[:2]
        small = F.interpolate(
            clips.flatten(0, 1).float(), (_SIDE, _SIDE), mode="bilinear", antialias=True
        )
        x = small.view(count, times, 3, _SIDE, _SIDE).transpose(1, 2) / 127.5 - 1  # [N, 3, T, H, W]
        found = []
        for k in range(len(_CHANNELS)):
            weight: Tensor = getattr(self, f"weight{k}")
            x = F.conv3d(x, weight, stride=(1, 2, 2), padding=self._padding)
            x = F.leaky_relu(x, 0.2) * 1.4
            changes = x.std(2, correction=0).mean((2, 3)) if self._frames else x.std((2, 3, 4))
            found += [x.mean((2, 3, 4)), changes]
        return torch.cat(found, 1)


class ScriptedFeatures:
    """A TorchScript network of the user's.

    It is called as the published evaluation calls its I3D: uint8 [N, 3, T, H, W] at the pictures'
    own size, with `rescale`, `resize` and `return_features` on where it has them; for frames as
    the published Inception, uint8 [N, 3, H, W].

    Args:
        path: The file. TorchScript is a program: give only files that you trust.
        frames: It takes clips; else single frames.
    Raises:
        BadNetwork: It cannot be loaded.
    """

    def __init__(self, path: Path, *, frames: bool, device: str = "cpu") -> None:
        self.name = path.name
        self._frames = frames
        self._device = device
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
                warnings.simplefilter("ignore", FutureWarning)
                self._network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise BadNetwork(
                f"{path} is no TorchScript network ({str(error).splitlines()[0]});"
                " save one with torch.jit.save"
            ) from error
        known = {argument.name for argument in self._network.forward.schema.arguments}
        self._switches = {name: True for name in _SWITCHES if name in known}

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, 3, H, W] -> float32 [N, D].

        Raises:
            BadNetwork: It fails on such input, or gives no vector each.
        """
        given = clips.transpose(1, 2) if self._frames else clips.flatten(0, 1)
        try:
            with torch.inference_mode():
                found = self._network(given.contiguous().to(self._device), **self._switches)
        except RuntimeError as error:
            raise BadNetwork(
                f"{self.name} fails on uint8 {list(given.shape)}: {str(error).splitlines()[-1]}"
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(given):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise BadNetwork(f"{self.name} gives {shape}; need [{len(given)}, D]")
        return found.float().cpu()


def video_features(path: Path | None) -> FeatureNetwork:
    """For clips: the user's network, or the random one where there is none."""
    return ScriptedFeatures(path, frames=True) if path else RandomConvolutions(frames=True).eval()


def image_features(path: Path | None) -> FeatureNetwork:
    """For single frames, given as clips of one."""
    return ScriptedFeatures(path, frames=False) if path else RandomConvolutions(frames=False).eval()
