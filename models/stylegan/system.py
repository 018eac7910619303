"""A generator of still images as a system: motion is a walk in W around the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.backbones.stylegan2 import SynthesisNetwork as Stylegan2
from models.backbones.stylegan3 import SynthesisNetwork as Stylegan3
from models.contracts import Identity, MotionCode, MotionSource, Synthesizer
from models.errors import BadConfig, CannotFuse
from models.latents import (
    blend_w,
    identity_of_seed,
    latent_of_seed,
    mapping_device,
    require_average,
)
from models.walk import Walk

if TYPE_CHECKING:
    from models.fused import Packed

WALK_SPEED = 0.5  # knots per second
WALK_RADIUS = 0.5  # spread of the walk in units of the spread of w
MOST_SPEED = 1000.0  # a knot per millisecond: beyond, frames have nothing to do with each other
MOST_RADIUS = 100.0  # beyond, nothing is left of the identity
MOST_LOOP = 1 << 32


class WalkSynthesizer(Synthesizer):
    """Pictures of `w + dw`.

    Args:
        generator: StyleGAN2's or StyleGAN3's.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.synthesis = cast(nn.Module, generator.synthesis)

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        """`w` [N, num_ws, w_dim] and `dw` [N or 1, w_dim] to pictures [N, 3, R, R]."""
        return self.synthesis(identity.tensors["w"] + motion.tensors["dw"][:, None])

    def example(self) -> tuple[Identity, MotionCode]:
        """See `Synthesizer.example`."""
        network = cast(Any, self.synthesis)
        w = torch.zeros(1, network.num_ws, network.w_dim)
        return Identity({"w": w}), MotionCode({"dw": torch.zeros(1, network.w_dim)}, 0.0)

    def pack(self, device: torch.device, dtype: torch.dtype) -> Packed:
        """See `models.fused.pack`."""
        from models.fused import stylegan2, stylegan3  # on demand: only who draws needs them

        network = self.synthesis
        if isinstance(network, Stylegan3):
            return stylegan3.pack(network, device, dtype)
        if not isinstance(network, Stylegan2):
            raise CannotFuse(f"{type(network).__name__} is neither StyleGAN2 nor StyleGAN3")
        first = network.blocks()[0]
        return stylegan2.pack(
            network.blocks(),
            first.const,
            motion="dw",
            motion_dim=network.w_dim,
            tiled=False,
            condition="sum_w",
            rows=network.num_ws,
            w_dim=network.w_dim,
            device=device,
            dtype=dtype,
        )


class System:
    """StyleGAN2 or StyleGAN3, ready to be sampled.

    Args:
        name: As it is shown.
        generator: Is put in evaluation mode, its gradients are turned off.
        trained: False for seeded random weights.
        walk_speed: Knots per second.
        walk_radius: How far from the identity the walk goes, in units of the spread of w.
        walk_loop: After how many knots it repeats exactly; None is never.
    Raises:
        BadConfig: A setting of the walk is out of range, or the generator keeps no average of w,
            around which everything here moves.
    """

    def __init__(
        self,
        name: str,
        generator: nn.Module,
        *,
        trained: bool,
        walk_speed: float = WALK_SPEED,
        walk_radius: float = WALK_RADIUS,
        walk_loop: int | None = None,
    ) -> None:
        self.name = name
        self.trained = trained
        generator.eval().requires_grad_(False)
        self.generator = cast(Any, generator)
        self.resolution: int = self.generator.img_resolution
        self.synthesizer: Synthesizer = WalkSynthesizer(generator)
        require_average(name, generator)
        # Settings come from files: of any type and size.
        _check_range("walk_speed", walk_speed, -MOST_SPEED, MOST_SPEED)
        _check_range("walk_radius", walk_radius, 0, MOST_RADIUS)
        if walk_loop is not None:
            _check_range("walk_loop", walk_loop, 0, MOST_LOOP)
        self._walk = {"speed": walk_speed, "radius": walk_radius, "loop": walk_loop}
        self.motion(seed=0)  # so that impossible settings are refused here and not in a session

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        """`{"w": [1, num_ws, w_dim]}`, truncated by `psi`: the picture the published tools show.

        Raises:
            BadConfig: The seed is not in 0 .. 2^32 - 1.
        """
        return identity_of_seed(self.generator, seed=seed, psi=psi)

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        """From `a` (amount 0) to `b` (amount 1) in w; both ends exact."""
        return blend_w(a, b, amount)

    def motion(self, *, seed: int, who: int | None = None) -> MotionSource:
        """A walk with codes `{"dw": [1, w_dim]}`; a conditional one stays in the class of
        `who`, the identity's seed (of `seed` if left out).

        Raises:
            BadConfig: The seed is not in 0 .. 2^32 - 1.
        """
        generator = self.generator
        device = mapping_device(generator)
        whose = seed if who is None else who
        _, label = latent_of_seed(whose, generator.z_dim, generator.c_dim, device)

        def mapping(z: Tensor) -> Tensor:
            return generator.mapping(z.to(device), label)[:, 0]

        w_avg = generator.mapping.w_avg
        settings: dict[str, Any] = self._walk
        return Walk(mapping, w_avg, generator.z_dim, seed=seed, **settings)


def _check_range(name: str, value: object, low: float, high: float) -> None:
    """Raises BadConfig unless `value` is a number from `low` to `high`; NaN is not."""
    if type(value) in (int, float) and low <= value <= high:  # type: ignore[operator]
        return
    shown = repr(value) if isinstance(value, float) else f"a {type(value).__name__} out of range"
    raise BadConfig(f"{name} is {shown}; it must be a number from {low:g} to {high:g}")
