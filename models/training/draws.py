"""Every random number of a run, as a function of (seed, step, micro-batch, purpose).

There is no generator whose state a run would have to carry: after an interruption, in another
process, or with the micro-batches of a step spread over several processes, the same numbers are
drawn. Purposes in use: data, z_g, z_d, t_g, t_d, aug_g, aug_real, aug_fake, and whatever a trainer
names besides; each purpose is a stream of its own.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

# Of epochs, which are not steps: their keys shall meet no step's.
_ORDER = "order of videos"


def _key(*parts: object) -> bytes:
    """16 bytes from anything that prints as itself."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Draws:
    """The randomness of one micro-batch.

    Args:
        seed: Of the run.
        step: Which training step.
        micro: Which micro-batch of that step, over all processes.
    """

    seed: int
    step: int
    micro: int

    def numpy(self, purpose: str) -> np.random.Generator:
        """A fresh generator; the same one at every call."""
        words = np.frombuffer(_key(self.seed, self.step, self.micro, purpose), "<u8")
        return np.random.Generator(np.random.Philox(key=words.astype(np.uint64)))

    def torch(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator for torch; which numbers it gives depends on the kind of device."""
        word = _key(self.seed, self.step, self.micro, purpose, "torch")[:8]
        made = torch.Generator(device)
        made.manual_seed(int.from_bytes(word, "little") >> 1)
        return made


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, videos: int) -> npt.NDArray[np.int64]:
    words = np.frombuffer(_key(seed, _ORDER, epoch), "<u8").astype(np.uint64)
    order = np.random.Generator(np.random.Philox(key=words)).permutation(videos)
    return order.astype(np.int64)


def visited(seed: int, first: int, count: int, videos: int) -> npt.NDArray[np.int64]:
    """Videos number `first`, `first + 1`, ... of the run's endless order.

    Each epoch visits every video once, in an order of its own.

    Args:
        seed: Of the run.
        first: How many were visited before.
        count: How many.
        videos: How many there are.
    Returns:
        int64 [count], below `videos`.
    """
    places = np.arange(first, first + count)
    pairs = zip(places // videos, places % videos, strict=True)
    return np.array([_permutation(seed, int(e), videos)[p] for e, p in pairs], np.int64)
