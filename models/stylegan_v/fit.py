"""Fitting StyleGAN-V to rendered heads by regression: `system = "stylegan_v_fit"`.

Of a rendered frame everything is known that is seen in it: who it is (107 numbers) and what the
face does (67). A generator whose content is the one and whose motion code carries the other can
therefore be told, frame by frame, what to draw. That replaces the hours in which an adversary would
have to teach it what a face is; detail that no number tells is left to a short adversarial stage
(`training.py`).

Small pictures first: with frames of 64 pixels only the blocks up to there are run and trained. The
later ones start out adding nothing to the picture, so that a checkpoint of any stage draws at full
size, and the next stage begins with what the last one learned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import BadConfig
from models.faces.prior import Prior, person
from models.faces.tracks import Track
from models.faces.traits import Traits, standardised
from models.stylegan_v.fit_losses import fit_loss, psnr
from models.stylegan_v.networks import Generator
from models.stylegan_v.settings import new_generator, save_generator, start_from
from models.stylegan_v.tracks import TrackEncoder, track_style
from models.training import ema
from models.training.config import TrainConfig
from models.training.contracts import ClipBatch, ClipRequest, DataInfo, Phase, SampleSheet
from models.training.draws import Draws, visited
from models.training.strict import build as from_table

_SHOWN_PEOPLE = 8
_SHOWN_TIMES = (0.4, 1.9, 3.1, 4.7, 6.2, 7.8)  # s
_SHOWN_TRACK = 1_000_000  # track seeds from here on are never trained on
_CLIP_FRAMES = 50
_CALIBRATED_ON = (32, 150)  # tracks, times of each


@dataclass(frozen=True)
class FitTable:
    """The table `[fit]`.

    Args:
        gradient, texture: Weights of the losses beside the pyramid's 1.
        start: A checkpoint to begin with; empty: fresh weights.
        seconds: From how long a stretch of an endless track the times are drawn.
        stay: How many steps a slot of the batch keeps its person; making one takes as long as
            drawing dozens of frames. Endless sources only.
    """

    gradient: float = 0.5
    texture: float = 0.0
    start: str = ""
    seconds: float = 600.0
    stay: int = 48

    def __post_init__(self) -> None:
        if self.gradient < 0 or self.texture < 0:
            raise BadConfig("fit: gradient and texture must not be negative")
        if self.seconds <= 0 or self.stay < 1:
            raise BadConfig("fit: seconds must be above 0 and stay 1 or more")


class Fit:
    """A `Trainer` (see `models/training/contracts.py`) with one network and one phase.

    Args:
        config: The run's. `optim.ema_half_life_clips = "auto"` is a tenth of what was seen so far,
            10,000 clips at most: early weights are soon forgotten.
        info: Of the source, whose clips must come with `traits` and `code`.
        device: Where the networks go.
    Raises:
        BadConfig: The generator is none of traits and tracks, or a table asks for the impossible.
    """

    def __init__(self, config: TrainConfig, info: DataInfo, device: torch.device) -> None:
        self.config, self.info, self.device = config, info, device
        self.table = from_table(FitTable, config.own.get("fit", {}), "fit")
        generator, self.arguments = new_generator(config, info)
        encoder = generator.synthesis.motion_encoder
        if generator.config.content != "traits" or not isinstance(encoder, TrackEncoder):
            raise BadConfig(
                "only a generator of traits and tracks can be fitted: set"
                ' generator.cfg.content.type = "traits" and'
                ' generator.cfg.motion.gen_strategy = "tracks"'
            )
        self.style = track_style(encoder.config)
        if self.table.start:
            start_from(generator, self.table.start)
        else:
            _silence_beyond(generator, info.resolution)
            encoder.calibrate(self._typical_codes())
        self.generator = generator.to(device).train()
        average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.networks: Mapping[str, nn.Module] = {"G": self.generator}
        self.averages: Mapping[str, nn.Module] = {"G": average}
        optim = config.optim
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "G": torch.optim.Adam(
                self.generator.parameters(), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=1e-8
            )
        }
        self.phases: Sequence[Phase] = (Phase("fit", "G"),)

    def _typical_codes(self) -> np.ndarray:
        tracks, times = _CALIBRATED_ON
        when = np.arange(times) * 0.37
        return np.concatenate([Track(seed, self.style).codes(when) for seed in range(tracks)])

    def requests(self, draws: Draws) -> list[ClipRequest]:
        """Single frames at continuous times, or `batch.frames` of them that are unrelated."""
        batch, k = self.config.batch, self.config.batch.frames
        random = draws.numpy("data")
        first = draws.micro * batch.micro
        if len(self.info.lengths):
            number = draws.step * batch.size + first
            videos = visited(draws.seed, number, batch.micro, len(self.info.lengths)).tolist()
            spans = [float(self.info.lengths[v] - 1) for v in videos]
        else:
            videos = [self._endless(draws, first + slot) for slot in range(batch.micro)]
            spans = [self.table.seconds * self.info.fps] * batch.micro
        return [
            ClipRequest(video, tuple(np.sort(random.uniform(0, span, k)).tolist()))
            for video, span in zip(videos, spans, strict=True)
        ]

    def _endless(self, draws: Draws, slot: int) -> int:
        """The video of a slot, kept for `stay` steps; slots do not change all at once."""
        size, stay = self.config.batch.size, self.table.stay
        turn = (draws.step + slot * stay // size) // stay
        return turn * size + slot

    def accumulate(
        self, phase: Phase, batch: ClipBatch, draws: Draws, share: float
    ) -> Mapping[str, Tensor]:
        """See `Trainer.accumulate`. Reports `loss`, `psnr` and, over whoever is seen, `psnr_head`.
        Of an endless source these are of unseen moments.
        """
        truth = batch.frames.flatten(0, 1)  # [B * k, 3, R, R]
        mask = batch.extra["mask"].flatten(0, 1) if "mask" in batch.extra else None
        with self._precision():
            drawn, w = self.draw(self.generator, batch)
        loss = fit_loss(
            drawn,
            truth.float() / 127.5 - 1,
            mask,
            gradient=self.table.gradient,
            texture=self.table.texture,
        )
        (loss * share).backward()
        seen = drawn.detach().float()
        found = {"loss": loss.detach(), "psnr": psnr(seen, truth).mean()}
        if mask is not None:
            found["psnr_head"] = psnr(seen, truth, mask).mean()
        return {**found, "w": w.detach().mean(0) * share}

    def draw(self, generator: Generator, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Frames [B * k, 3, R, R] of a batch's numbers at the data's size, and w [B, w_dim].

        Raises:
            BadConfig: The source does not tell the numbers.
        """
        for name in ("traits", "code"):
            if name not in batch.extra:
                raise BadConfig(f"{self.info.name} does not tell {name}; fit to rendered heads")
        people = batch.extra["traits"].cpu().numpy()
        z = np.stack([standardised(Traits(row)) for row in people])
        ws = generator.mapping(torch.from_numpy(z).to(self.device), None)
        encoder = generator.synthesis.motion_encoder
        assert isinstance(encoder, TrackEncoder)
        v = encoder(batch.extra["code"].flatten(0, 1).to(self.device))
        frames = generator.synthesis(ws, motion_v=v, upto=self.info.resolution)
        return frames, ws[:, 0]

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.run.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def learning_rate(self, network: str, step: int) -> float:
        """See `Trainer.learning_rate`."""
        optim = self.config.optim
        return optim.rate(optim.lr, step, self.config.total_steps)

    @torch.no_grad()
    def after_step(self, step: int, sums: Mapping[str, Tensor]) -> None:
        """Moves the average of w and that of the weights."""
        mapping = self.generator.mapping
        assert mapping.w_avg_beta is not None
        mean = sums["fit/w"].to(mapping.w_avg)
        mapping.w_avg.copy_(mean.lerp(mapping.w_avg, mapping.w_avg_beta))
        half_life = self.config.optim.ema_half_life_clips
        clips = self.config.batch.size
        if isinstance(half_life, str):
            half_life = min(0.1 * (step + 1) * clips, 10_000.0)
        ema.update(self.averages["G"], self.generator, ema.decay(clips, half_life))

    def aux_state(self) -> dict[str, Tensor]:
        """Nothing: all is in the networks and in the number of the step."""
        return {}

    def load_aux_state(self, state: Mapping[str, Tensor]) -> None:
        """See `aux_state`."""

    def export(self, path: Path, meta: Mapping[str, Any]) -> Path:
        """See `Trainer.export`."""
        average = self.averages["G"]
        assert isinstance(average, Generator)
        return save_generator(path, average, self.arguments, meta)

    @torch.no_grad()
    def samples(self) -> SampleSheet:
        """People of the prior, each at a few moments of an unseen track, and two clips."""
        rows = [
            self._shown(seed, _SHOWN_TRACK + seed, np.array(_SHOWN_TIMES))
            for seed in range(_SHOWN_PEOPLE)
        ]
        moments = np.arange(_CLIP_FRAMES) / self.info.fps
        clips = [self._shown(seed, _SHOWN_TRACK + seed, moments) for seed in range(2)]
        return SampleSheet(torch.stack(rows), torch.stack(clips), self.info.fps)

    def _shown(self, seed: int, track: int, times: np.ndarray) -> Tensor:
        """uint8 [n, 3, R, R]: a person at these seconds, by the averaged weights."""
        average = self.averages["G"]
        assert isinstance(average, Generator)
        encoder = average.synthesis.motion_encoder
        assert isinstance(encoder, TrackEncoder)
        numbers = standardised(person(seed, Prior(average.config.prior)))
        ws = average.mapping(torch.from_numpy(numbers)[None].to(self.device), None)
        codes = torch.from_numpy(Track(track, self.style).codes(times)).to(self.device)
        frames = [
            average.synthesis(ws, motion_v=encoder(code[None]), upto=self.info.resolution)
            for code in codes
        ]
        whole = torch.cat(frames).clamp(-1, 1) * 127.5 + 127.5
        return whole.round().to("cpu", torch.uint8)


def build(config: TrainConfig, info: DataInfo, device: torch.device) -> Fit:
    """See `models.registry.TRAINERS`."""
    return Fit(config, info, device)


def _silence_beyond(generator: Generator, resolution: int) -> None:
    """Lets the blocks of larger pictures add nothing to the picture, until they are trained."""
    for block in generator.synthesis.blocks():
        if block.resolution > resolution:
            nn.init.zeros_(block.torgb.weight)
