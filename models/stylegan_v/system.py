"""StyleGAN-V as a system: content from a seed, motion as an endless stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.contracts import Identity, MotionCode, MotionSource, Synthesizer
from models.errors import BadConfig
from models.faces.prior import Prior, person
from models.faces.tracks import Track
from models.faces.traits import Traits, shrink, standardised
from models.latents import (
    blend_w,
    identity_of_seed,
    latent_of_seed,
    mapping_device,
    require_average,
)
from models.stylegan_v.motion import SegmentEncoder, StreamedMotion
from models.stylegan_v.networks import Generator
from models.stylegan_v.tracks import TrackEncoder, TrackMotion, TrackWeights, track_style

if TYPE_CHECKING:
    from models.fused import Packed

MOST_FPS = 1000.0  # of any training data


class FrameSynthesizer(Synthesizer):
    """Frames of `w` and `v`.

    Args:
        generator: Whose synthesis network draws.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.synthesis = generator.synthesis

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        """`w` [B, num_ws, w_dim] and `v` [B * F, 2 * frequencies] to frames [B * F, 3, R, R]."""
        return self.synthesis(identity.tensors["w"], motion_v=motion.tensors["v"])

    def example(self) -> tuple[Identity, MotionCode]:
        """See `Synthesizer.example`."""
        network = self.synthesis
        w = torch.zeros(1, network.num_ws, network.w_dim)
        return Identity({"w": w}), MotionCode({"v": torch.zeros(1, network.motion_dim)}, 0.0)

    def pack(self, device: torch.device, dtype: torch.dtype) -> Packed:
        """See `models.fused.pack`."""
        from models.fused import stylegan2  # on demand: only who draws needs it

        network = self.synthesis
        constant, tiled = network.start()
        return stylegan2.pack(
            network.blocks(),
            constant,
            motion="v",
            motion_dim=network.motion_dim,
            tiled=tiled,
            condition=network.condition,
            rows=network.num_ws,
            w_dim=network.w_dim,
            device=device,
            dtype=dtype,
        )


class System:
    """StyleGAN-V, ready to be sampled.

    Args:
        name: As it is shown.
        generator: Is put in evaluation mode, its gradients are turned off. Load its weights first:
            the motion's are read once.
        trained: False for seeded random weights.
        fps: Frames per second of the training data, by which seconds become frames; the
            generator's configuration if left out.
    Raises:
        BadConfig: `fps` is not positive or beyond any camera, or w has no average.
    """

    def __init__(
        self, name: str, generator: Generator, *, trained: bool, fps: float | None = None
    ) -> None:
        self.name = name
        self.trained = trained
        self.generator = generator.eval().requires_grad_(False)
        self.resolution = generator.img_resolution
        self.fps = generator.config.fps if fps is None else fps
        number = isinstance(self.fps, int | float) and not isinstance(self.fps, bool)
        if not (number and 0 < self.fps <= MOST_FPS):
            shown = str(self.fps)[:40]
            raise BadConfig(f"fps is {shown}; it must be a number above 0, {MOST_FPS:g} at most")
        require_average(name, generator)
        self.synthesizer: Synthesizer = FrameSynthesizer(generator)
        # Weights of all streams, which differ in their noise and label, or in their track.
        encoder = generator.synthesis.motion_encoder
        self._tracks = self._segments = None
        if isinstance(encoder, TrackEncoder):
            self._tracks = TrackWeights(encoder)
            self._style = track_style(encoder.config)
        else:
            self._segments = SegmentEncoder(encoder)

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        """`{"w": [1, num_ws, w_dim]}`, truncated by `psi`. Truncation acts on content only.

        Where content is the numbers of a person, `psi` acts on these: a face between all people's
        mean and that person's, which the generator was trained to draw. The mean of w is no face,
        it would wear a mixture of all hair.

        Raises:
            BadConfig: The seed is not in 0 .. 2^32 - 1.
        """
        config = self.generator.config
        if config.content == "normal":
            return identity_of_seed(self.generator, seed=seed, psi=psi)
        numbers = standardised(self.traits(seed=seed, psi=psi))
        z = torch.from_numpy(numbers)[None].to(mapping_device(self.generator))
        with torch.inference_mode():
            return Identity({"w": self.generator.mapping(z, z.new_zeros(1, 0))})

    def traits(self, *, seed: int, psi: float = 1.0) -> Traits:
        """The person that `identity` draws, in numbers.

        Raises:
            BadConfig: The seed is not in 0 .. 2^32 - 1, or content is not the numbers of a person.
        """
        config = self.generator.config
        if config.content != "traits":
            raise BadConfig(f"{self.name} draws nobody of whom numbers are known")
        if not 0 <= seed < 1 << 32:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^32 - 1")
        return shrink(person(seed, Prior(config.prior)), psi)

    def track(self, *, seed: int) -> Track:
        """What the face of `motion` does, in numbers.

        Raises:
            BadConfig: Motion is not made of a face's numbers.
        """
        if self._tracks is None:
            raise BadConfig(f"{self.name} moves by noise, not by the numbers of a face")
        return Track(seed, self._style)

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        """From `a` (amount 0) to `b` (amount 1) in w; both ends exact."""
        return blend_w(a, b, amount)

    def motion(self, *, seed: int, who: int | None = None) -> MotionSource:
        """A stream with codes `{"v": [1, 2 * frequencies]}`; a conditional one in the class
        of `who`, the identity's seed (of `seed` if left out).

        Raises:
            BadConfig: The seed is not in 0 .. 2^32 - 1.
        """
        if self._tracks is not None:
            return TrackMotion(self._tracks, self.track(seed=seed))
        assert self._segments is not None
        whose = seed if who is None else who
        _, label = latent_of_seed(whose, self.generator.z_dim, self.generator.c_dim)
        return StreamedMotion(self._segments, fps=self.fps, seed=seed, label=label)
