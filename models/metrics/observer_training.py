"""Training the observer: `system = "observer"`, on rendered heads whose labels are exact.

A quarter of what it sees holds no head: torn-up and upturned heads, things, noise, and pictures of
generators that were never trained. Without them it would find a face in anything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import tensor_bytes
from models.errors import BadConfig
from models.faces.state import part
from models.faces.traits import MEAN, SD
from models.metrics.landmarks import eye_width, face_width, lid_distance, lip_distance
from models.metrics.negatives import negatives
from models.metrics.observer import SIDE, Observation, Observer, prepared
from models.training import ema
from models.training.config import TrainConfig
from models.training.contracts import ClipBatch, ClipRequest, DataInfo, Phase, SampleSheet
from models.training.draws import Draws

STAY = 24  # steps that a slot of the batch keeps its person for
_SECONDS = 600.0
_NEGATIVES = 1 / 3  # per head, so that they are a quarter of all
_EMA_CLIPS = 20_000.0
# Weights of the losses; each is then of about the same size when training ends.
_WEIGHTS = {
    "presence": 0.5,
    "landmarks": 12.0,
    "lids": 0.3,
    "lips": 1.0,
    "visible": 0.2,
    "pose": 4.0,
    "gaze": 1.5,
    "expression": 4.0,
    "traits": 0.4,
}


class ObserverTraining:
    """A `Trainer` (see `models/training/contracts.py`) with one network and one phase."""

    def __init__(self, config: TrainConfig, info: DataInfo, device: torch.device) -> None:
        if config.batch.frames != 1:
            raise BadConfig(f"batch.frames is {config.batch.frames}; the observer sees single ones")
        self.config, self.info, self.device = config, info, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.observer = Observer().to(device).train()
        average = copy.deepcopy(self.observer).eval().requires_grad_(False)
        self.networks: Mapping[str, nn.Module] = {"observer": self.observer}
        self.averages: Mapping[str, nn.Module] = {"observer": average}
        optim = config.optim
        betas = (optim.beta1, optim.beta2)
        adam = torch.optim.Adam(self.observer.parameters(), lr=optim.lr, betas=betas)
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {"observer": adam}
        self.phases: Sequence[Phase] = (Phase("observer", "observer"),)

    def requests(self, draws: Draws) -> list[ClipRequest]:
        """Single frames at any time; a slot of the batch stays with its person for a while."""
        size, micro = self.config.batch.size, self.config.batch.micro
        random = draws.numpy("data")
        wanted = []
        for slot in range(draws.micro * micro, (draws.micro + 1) * micro):
            turn = (draws.step + slot * STAY // size) // STAY
            t = float(random.uniform(0, _SECONDS)) * self.info.fps
            wanted.append(ClipRequest(turn * size + slot, (t,)))
        return wanted

    def accumulate(
        self, phase: Phase, batch: ClipBatch, draws: Draws, share: float
    ) -> Mapping[str, Tensor]:
        """See `Trainer.accumulate`. Reports the losses, unweighted, and `landmark_px` at 96 px."""
        missing = [n for n in ("traits", "code", "landmarks", "visible") if n not in batch.extra]
        if missing:
            raise BadConfig(f"{self.info.name} does not tell {missing[0]}; train on rendered heads")
        heads, marks, seen = moved(
            prepared(batch.frames[:, 0]),
            batch.extra["landmarks"][:, 0] / self.info.resolution,
            batch.extra["visible"][:, 0].float(),
            draws.numpy("place"),
        )
        count = max(1, round(len(heads) * _NEGATIVES))
        others = negatives(heads.detach().cpu(), count, draws.numpy("negatives")).to(self.device)
        found = self.observer(torch.cat([heads, others]))
        losses = _losses(found, len(heads), batch, marks, seen)
        total = sum((_WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros(()))
        (total * share).backward()
        error = (found.landmarks[: len(heads)] - marks).detach().norm(dim=-1)
        visible = (error * seen).sum() / seen.sum().clamp(min=1) * SIDE
        return {"loss": total, "landmark_px": visible, **losses}

    def learning_rate(self, network: str, step: int) -> float:
        """See `Trainer.learning_rate`."""
        optim = self.config.optim
        return optim.rate(optim.lr, step, self.config.total_steps)

    def after_step(self, step: int, sums: Mapping[str, Tensor]) -> None:
        """Moves the average of the weights, which forgets faster in the beginning."""
        clips = self.config.batch.size
        half_life = min(0.1 * (step + 1) * clips, _EMA_CLIPS)
        ema.update(self.averages["observer"], self.observer, ema.decay(clips, half_life))

    def aux_state(self) -> dict[str, Tensor]:
        """Nothing: all is in the network and in the number of the step."""
        return {}

    def load_aux_state(self, state: Mapping[str, Tensor]) -> None:
        """See `aux_state`."""

    def export(self, path: Path, meta: Mapping[str, Any]) -> Path:
        """Writes the averaged weights as `PATH.safetensors`, in half precision."""
        state = self.averages["observer"].state_dict()
        out = path.with_suffix(".safetensors")
        unfinished = out.with_suffix(".part")
        unfinished.write_bytes(tensor_bytes({key: x.half() for key, x in state.items()}))
        unfinished.replace(out)
        return out

    def samples(self) -> SampleSheet:
        """Nothing to be seen."""
        return SampleSheet()


def build(config: TrainConfig, info: DataInfo, device: torch.device) -> ObserverTraining:
    """See `models.registry.TRAINERS`."""
    return ObserverTraining(config, info, device)


def moved(
    heads: Tensor, landmarks: Tensor, visible: Tensor, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same heads nearer or farther, and not quite in the middle.

    Args:
        heads: [N, 3, S, S].
        landmarks: [N, 68, 2] shares of the side.
        visible: [N, 68], 1 or 0.
    Returns:
        The three again; landmarks that left the picture are not visible.
    """
    count = len(heads)
    zoom = torch.from_numpy(random.uniform(0.8, 1.2, count).astype(np.float32))
    shift = torch.from_numpy(random.uniform(-0.09, 0.09, (count, 2)).astype(np.float32))
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, :, 2] = -2 * shift / zoom[:, None]
    grid = F.affine_grid(theta, list(heads.shape), align_corners=False).to(heads.device)
    out = F.grid_sample(heads, grid, padding_mode="reflection", align_corners=False)
    zoom, shift = zoom.to(heads.device), shift.to(heads.device)
    marks = (landmarks - 0.5) * zoom[:, None, None] + 0.5 + shift[:, None]
    inside = ((marks >= 0) & (marks <= 1)).all(-1)
    return out, marks, visible * inside


def _losses(
    found: Observation, heads: int, batch: ClipBatch, marks: Tensor, seen: Tensor
) -> dict[str, Tensor]:
    code = batch.extra["code"][:, 0]
    there = torch.zeros_like(found.presence)
    there[:heads] = 1
    # What cannot be seen can still be guessed, which is worth something: a quarter.
    weight = 0.25 + 0.75 * seen
    off = (found.landmarks[:heads] - marks).abs().sum(-1)
    # Lids and lips move by a pixel or two, which the mean over all landmarks would hardly notice.
    # In units of the true face: those of a guessed one would blow up while it is still a point.
    eyes, mouth = seen[:, 36:48].amin(1), seen[:, 60:68].amin(1)
    lids = (lid_distance(found.landmarks[:heads]) - lid_distance(marks)).abs()
    lids = lids / eye_width(marks).clamp(min=0.02)
    lips = (lip_distance(found.landmarks[:heads]) - lip_distance(marks)).abs()
    lips = lips / face_width(marks).clamp(min=0.1)
    spread = (batch.extra["traits"] - _tensor(MEAN, code)) / _tensor(SD, code)
    return {
        "presence": F.binary_cross_entropy_with_logits(found.presence, there),
        "landmarks": (off * weight).sum() / weight.sum(),
        "lids": (lids * eyes).sum() / eyes.sum().clamp(min=1),
        "lips": (lips * mouth).sum() / mouth.sum().clamp(min=1),
        "visible": F.binary_cross_entropy_with_logits(found.visible[:heads], seen),
        "pose": F.l1_loss(found.pose[:heads], code[:, part("pose")]),
        "gaze": F.l1_loss(found.gaze[:heads], code[:, part("gaze")]),
        "expression": F.l1_loss(found.expression[:heads], code[:, part("expression")]),
        "traits": F.smooth_l1_loss(found.traits[:heads], spread.clamp(-4, 4)),
    }


def _tensor(numbers: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(like)
