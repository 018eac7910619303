"""What the loop, the data and a system being trained ask of each other.

The loop knows no system and no kind of data: it fetches clips that a `Trainer` asks for, has it
accumulate gradients phase by phase, and steps its optimisers. Everything random is drawn from
`models.training.draws.Draws`, by what it is for and when; neither a trainer nor a source keeps a
generator of its own, so that a run goes on after an interruption as if there had been none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.training.draws import Draws


@dataclass(frozen=True)
class ClipRequest:
    """Some frames of one video.

    Args:
        video: Which; below the length of `DataInfo.lengths`, or any number where a source makes
            its videos (rendered heads).
        times: In training frames, rising. Sources of stored frames take whole numbers only.
        mirror: Left and right exchanged, in all frames.
    """

    video: int
    times: tuple[float, ...]
    mirror: bool = False


@dataclass(frozen=True)
class DataInfo:
    """What is known of a source before any frame is read.

    Args:
        name: For people: a folder's name, "heads:cast".
        resolution: Side of the square frames, pixels.
        fps: Training frames per second.
        c_dim: Entries of a label; 0 is none.
        lengths: int64 [V], frames of each whole video: whoever draws times takes a piece of at most
            `data.window`. Empty where videos have neither number nor end.
        labels: float32 [V, c_dim].
    """

    name: str
    resolution: int
    fps: float
    c_dim: int = 0
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class ClipBatch:
    """The clips of some requests, in their order.

    Args:
        frames: uint8 [B, k, 3, R, R], RGB.
        t: float64 [B, k], training frames.
        c: float32 [B, c_dim].
        extra: What else a source knows, with the batch first. Rendered heads: `traits` [B, 107],
            `code` [B, k, 67], `mask` uint8 [B, k, R, R], `landmarks` [B, k, 68, 2].
    """

    frames: Tensor
    t: Tensor
    c: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> ClipBatch:
        """The same on another device."""
        moved = {name: value.to(device) for name, value in self.extra.items()}
        return ClipBatch(self.frames.to(device), self.t.to(device), self.c.to(device), moved)


class ClipSource(Protocol):
    """Where clips come from. `clips` is called by one thread at a time."""

    info: DataInfo

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        """Frames as a pure function of the requests: any order, any number of times."""
        ...

    def close(self) -> None:
        """Ends its workers and files; a second call does nothing."""
        ...


@dataclass(frozen=True)
class Phase:
    """One optimiser step among those of a training step.

    Args:
        name: "Gmain"; prefix of what it reports.
        network: Which of `Trainer.networks` and `Trainer.optimizers` moves.
        interval: Taken in every step that it divides.
        gain: Factor of its loss, for phases that are not taken in every step.
    """

    name: str
    network: str
    interval: int = 1
    gain: float = 1.0


@dataclass(frozen=True)
class SampleSheet:
    """Pictures that show how a run is doing.

    Args:
        grid: uint8 [rows, columns, 3, R, R]; None is no grid.
        clips: uint8 [N, T, 3, R, R], shown side by side; None is no clip.
        fps: Of the clips.
        score: Greater is better; whenever it is the greatest so far, the model is kept as
            `model-best`. None: nobody judges.
    """

    grid: Tensor | None = None
    clips: Tensor | None = None
    fps: float = 25.0
    score: float | None = None


class Trainer(Protocol):
    """How one method is trained.

    What a run must hold to go on bit for bit is `networks`, `averages`, `optimizers` and
    `aux_state`; the loop writes and reads all of it.
    """

    networks: Mapping[str, nn.Module]
    averages: Mapping[str, nn.Module]  # moving averages of some networks, never trained
    optimizers: Mapping[str, torch.optim.Optimizer]  # by the name of the network, parameters of it
    phases: Sequence[Phase]  # in the order in which a step takes them

    def requests(self, draws: Draws) -> list[ClipRequest]:
        """The real clips of one micro-batch: a function of `draws` alone, not of any state."""
        ...

    def accumulate(
        self, phase: Phase, batch: ClipBatch, draws: Draws, share: float
    ) -> Mapping[str, Tensor]:
        """Adds the gradients of one micro-batch, those of its loss times `share`.

        Args:
            phase: Only its network takes gradients meanwhile.
            batch: The clips of `requests(draws)`, the same in all phases of a step.
            draws: Of this step and micro-batch.
            share: Micro-batch by batch, so that the sums are means over the batch.
        Returns:
            Detached tensors by name. They are summed over all micro-batches, as float64, and
            given to `after_step` as `PHASE/NAME`; numbers (no axes) are reported as means over
            the micro-batches.
        """
        ...

    def learning_rate(self, network: str, step: int) -> float:
        """Of this step's phases of the network."""
        ...

    def after_step(self, step: int, sums: Mapping[str, Tensor]) -> None:
        """What follows from a whole step: averages, statistics, the strength of augmentation.

        `sums` is over all processes, and equal in all of them.
        """
        ...

    def aux_state(self) -> dict[str, Tensor]:
        """Whatever else has to be kept: numbers as tensors, by name."""
        ...

    def load_aux_state(self, state: Mapping[str, Tensor]) -> None: ...

    def export(self, path: Path, meta: Mapping[str, Any]) -> Path:
        """Writes the averaged generator as a checkpoint of ours; gives the JSON's path."""
        ...

    def samples(self) -> SampleSheet:
        """Pictures from fixed seeds; draws from no generator and changes nothing."""
        ...
