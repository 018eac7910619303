"""From a seed to a latent, from a latent to an identity, and between two identities.

Shared by every system whose identity is a `w`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.contracts import Identity
from models.errors import BadConfig


def latent_of_seed(
    seed: int, z_dim: int, c_dim: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The latent and the label that the published tools show for a seed.

    Args:
        seed: 0 .. 2^32 - 1.
        z_dim: Entries of the latent.
        c_dim: Number of classes; 0 for an unconditional generator.
        device: Where to put them.
    Returns:
        `z` [1, z_dim] float32 and `c` [1, c_dim] float32, one-hot (no columns when unconditional).
    Raises:
        BadConfig: The seed is out of range.
    Source: the interactive viewer of StyleGAN3 (Karras et al. 2021): one legacy NumPy stream per
        seed, the latent first, then the class.
    """
    if not 0 <= seed < 1 << 32:
        raise BadConfig(f"seed is {seed}; it must be between 0 and 2^32 - 1")
    stream = np.random.RandomState(seed)
    z = torch.from_numpy(stream.randn(1, z_dim).astype(np.float32))
    c = torch.zeros(1, c_dim)
    if c_dim > 0:
        c[0, stream.randint(c_dim)] = 1.0
    return z.to(device), c.to(device)


def mapping_device(generator: nn.Module) -> torch.device:
    """Where a generator's mapping is. Its synthesis may be elsewhere, on the device that draws."""
    return next(cast(nn.Module, generator.mapping).parameters()).device


def require_average(name: str, generator: torch.nn.Module) -> None:
    """Raises BadConfig if `generator` keeps no average of w: nothing could be truncated."""
    if getattr(generator.mapping, "w_avg", None) is None:
        raise BadConfig(
            f"{name} keeps no average of w (w_avg_beta is null), so it can neither be truncated"
            " nor walk; convert a network that has one"
        )


def identity_of_seed(generator: nn.Module, *, seed: int, psi: float) -> Identity:
    """`{"w": [1, num_ws, w_dim]}` of a seed, truncated by `psi` in every row.

    Raises:
        BadConfig: The seed is out of range.
    """
    net = cast(Any, generator)
    z, c = latent_of_seed(seed, net.z_dim, net.c_dim, mapping_device(generator))
    with torch.inference_mode():
        return Identity({"w": net.mapping(z, c, truncation_psi=psi)})


def blend_w(a: Identity, b: Identity, amount: float) -> Identity:
    """From `a` (amount 0) to `b` (amount 1) in w; both ends exact.

    W is close to linear in what is seen, which z is not: a straight line there is a movement.
    """
    with torch.inference_mode():
        return Identity({"w": torch.lerp(a.tensors["w"], b.tensors["w"], amount)})
