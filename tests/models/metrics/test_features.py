"""Feature networks: the one made here, and TorchScript files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.metrics.features import (
    BadNetwork,
    RandomConvolutions,
    ScriptedFeatures,
    image_features,
    video_features,
)

from .clips import disc

CLIP = torch.stack([disc(range(6), seed) for seed in range(3)])  # [3, 6, 3, 32, 32]


def scripted(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), str(path))
    return path


class Means(nn.Module):
    def forward(self, x: Tensor, rescale: bool = False, return_features: bool = False) -> Tensor:
        y = x.float().mean((2, 3, 4))
        if rescale:
            y = y / 255
        return y if return_features else y[:, :1]


class ImageMeans(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3))


def test_the_networks_own_name_says_what_it_is() -> None:
    assert video_features(None).name == "stylewire-random-conv3d (relative only)"
    assert image_features(None).name == "stylewire-random-conv2d (relative only)"


def test_weights_are_the_same_whatever_torchs_generator_did() -> None:
    torch.manual_seed(1)
    a = RandomConvolutions(frames=True)(CLIP)
    torch.manual_seed(2)
    b = RandomConvolutions(frames=True)(CLIP)
    assert torch.equal(a, b)
    assert a.shape == (3, 192)
    # Frozen: numbers of another release must compare with those of this one.
    assert a[0, :3].tolist() == pytest.approx(FROZEN, abs=2e-6)


def test_clips_of_other_size_and_length_give_vectors_of_the_same_width() -> None:
    network = RandomConvolutions(frames=True)
    assert network(torch.zeros(2, 9, 3, 100, 80, dtype=torch.uint8)).shape == (2, 192)


def test_a_shuffled_clip_is_another_clip_but_shows_the_same_things() -> None:
    """Seen over time it changes far more than seen frame by frame, where nothing does."""
    network = RandomConvolutions(frames=True)
    shuffled = CLIP[:, [3, 0, 5, 1, 4, 2]]
    moved = (network(shuffled) - network(CLIP)).norm()
    frames = RandomConvolutions(frames=False)
    seen = [frames(x.flatten(0, 1)[:, None]).mean(0) for x in (CLIP, shuffled)]
    assert moved > 0.02 * network(CLIP).norm()
    assert (seen[0] - seen[1]).norm() < 1e-4


def test_torchscript_is_called_with_the_published_switches(tmp_path: Path) -> None:
    network = ScriptedFeatures(scripted(Means(), tmp_path / "means.pt"), frames=True)
    found = network(CLIP)
    assert network.name == "means.pt"
    torch.testing.assert_close(found, CLIP.float().mean((1, 3, 4)) / 255)


def test_torchscript_for_pictures_gets_pictures(tmp_path: Path) -> None:
    network = image_features(scripted(ImageMeans(), tmp_path / "image.pt"))
    torch.testing.assert_close(network(CLIP[:, :1]), CLIP[:, 0].float().mean((2, 3)))


def test_a_file_that_is_no_network_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("not a network")
    with pytest.raises(BadNetwork, match=r"notes\.pt is no TorchScript network"):
        ScriptedFeatures(path, frames=True)
    with pytest.raises(BadNetwork, match="missing"):
        ScriptedFeatures(tmp_path / "missing.pt", frames=True)
    for_clips = scripted(Means(), tmp_path / "means.pt")
    with pytest.raises(BadNetwork, match=r"means\.pt fails on uint8 \[3, 3, 32, 32\]"):
        ScriptedFeatures(for_clips, frames=False)(CLIP[:, :1])


FROZEN = [0.1161648, 0.2441670, 0.0157759]
