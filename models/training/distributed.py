"""Several processes that train one model, as torchrun starts them; one process is the same code.

Gradients are summed by hand, one flat vector a phase: several phases and second-order gradients
are more than DistributedDataParallel takes. Which process computes which micro-batch changes the
order of that sum and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.errors import BadConfig


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum_(self, flat: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(flat)
        return flat

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        if self.world == 1:
            return here
        flag = torch.tensor(float(here), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def agree(self, networks: Mapping[str, nn.Module]) -> None:
        """Gives every process the first one's parameters and buffers."""
        if self.world > 1:
            for network in networks.values():
                for tensor in (*network.parameters(), *network.buffers()):
                    dist.broadcast(tensor.detach(), 0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> int:
        """Sums gradients over all processes and mends what is not a number.

        NaN becomes 0 and an infinity 1e5, as published.

        Returns:
            How many entries were mended: a run that needs it often is a run that fails.
        """
        found = [p.grad for p in parameters if p.grad is not None]
        if not found:
            return 0
        # Contiguous views in one order, so that every process adds like to like.
        flat = self.sum_(torch.cat([gradient.reshape(-1) for gradient in found]))
        bad = int((~torch.isfinite(flat)).sum())
        if bad:
            torch.nan_to_num(flat, nan=0.0, posinf=1e5, neginf=-1e5, out=flat)
        if bad or self.world > 1:
            sizes = [gradient.numel() for gradient in found]
            for gradient, part in zip(found, flat.split(sizes), strict=True):
                gradient.copy_(part.view_as(gradient))
        return bad

    def sum_values(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """float64 tensors of equal names and shapes, summed over all processes."""
        if self.world == 1 or not values:
            return dict(values)
        names = sorted(values)
        flat = self.sum_(torch.cat([values[name].reshape(-1) for name in names]))
        parts = flat.split([values[name].numel() for name in names])
        return {n: part.view_as(values[n]) for n, part in zip(names, parts, strict=True)}


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """This process's place in the run, from the variables that torchrun sets.

    Args:
        device: "auto", "cpu" or "cuda".
    Raises:
        BadConfig: CUDA is asked for and not there, or the variables make no sense.
    """
    try:
        rank, world, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise BadConfig(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}") from error
    if device == "cuda" and not torch.cuda.is_available():
        raise BadConfig('run.device is "cuda", and torch sees none; "cpu" or "auto" runs here')
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", local % torch.cuda.device_count()) if on_gpu else _CPU
    if on_gpu:
        torch.cuda.set_device(where)
    if world == 1:
        yield Ranks(0, 1, where)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Ranks(rank, world, where)
    finally:
        dist.destroy_process_group()


_CPU = torch.device("cpu")
