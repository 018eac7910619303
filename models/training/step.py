"""One training step: phases, micro-batches, gradients. All arithmetic of a run that is not the
trainer's own; no clock, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.training.contracts import ClipBatch, Trainer
from models.training.distributed import Ranks
from models.training.draws import Draws

Fetch = Callable[[int, int], ClipBatch]  # (step, micro-batch) -> its clips


@dataclass
class Means:
    """Running means of what steps report; numbers stay on their device until they are read."""

    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One more step; names may be missing from some steps."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class Stepper:
    """Takes the steps of a run.

    Args:
        trainer: What is trained.
        fetch: Gives the clips of a micro-batch; asked for each of this process's once a step.
        seed: Of the run.
        micros: Micro-batches of a step, over all processes.
        ranks: This process's place.
    """

    def __init__(
        self, trainer: Trainer, fetch: Fetch, seed: int, micros: int, ranks: Ranks
    ) -> None:
        self._trainer = trainer
        self._fetch = fetch
        self._seed = seed
        self._micros = micros
        self._ranks = ranks
        # A trainer may have frozen parameters of its own; those stay so.
        self._trained = {
            name: [p for p in network.parameters() if p.requires_grad]
            for name, network in trainer.networks.items()
        }

    def take(self, step: int) -> dict[str, Tensor]:
        """One step.

        Returns:
            What was reported, float64 numbers without axes, means over the micro-batches; and
            `mended`, entries of gradients that were no numbers.
        """
        own = range(self._ranks.rank, self._micros, self._ranks.world)
        draws = [Draws(self._seed, step, micro) for micro in own]
        batches = [self._fetch(step, micro).to(self._ranks.device) for micro in own]
        sums: dict[str, Tensor] = {}
        mended = 0
        for phase in self._trainer.phases:
            if step % phase.interval:
                continue
            optimizer = self._trainer.optimizers[phase.network]
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self._trainer.learning_rate(phase.network, step)
            with self._only(phase.network):
                for drawn, batch in zip(draws, batches, strict=True):
                    found = self._trainer.accumulate(phase, batch, drawn, 1 / self._micros)
                    for name, value in found.items():
                        full = f"{phase.name}/{name}"
                        value = value.detach().double()
                        sums[full] = sums[full] + value if full in sums else value
                mended += self._ranks.sum_gradients(self._trained[phase.network])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        sums = self._ranks.sum_values(sums)
        self._trainer.after_step(step, sums)
        means = {name: value / self._micros for name, value in sums.items() if value.ndim == 0}
        return {**means, "mended": torch.tensor(float(mended), dtype=torch.float64)}

    @contextmanager
    def _only(self, network: str) -> Iterator[None]:
        """Only this network's parameters take gradients meanwhile."""
        self._require(lambda name: name == network)
        try:
            yield
        finally:
            self._require(lambda name: True)

    def _require(self, wanted: Callable[[str], bool]) -> None:
        for name, parameters in self._trained.items():
            for parameter in parameters:
                parameter.requires_grad_(wanted(name))


def parameters_of(networks: Mapping[str, nn.Module]) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for n in networks.values() for p in n.parameters() if p.requires_grad)
