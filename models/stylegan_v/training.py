"""Training StyleGAN-V as published: `system = "stylegan_v"`.

"StyleGAN-V: A Continuous Video Generator with the Price, Image Quality and Perks of StyleGAN2",
Skorokhodov, Tulyakov, Elhoseiny, CVPR 2022, https://arxiv.org/abs/2112.14683, Sec. 3.2 and 4, and
the behaviour of the published code: a few frames of each clip at random times, one discriminator
over all of them, the logistic loss, R1 on real clips every 16 steps, and augmentation that is the
same for all frames of a clip and as strong as the discriminator is sure. No path length, no mixing
of styles. Both networks keep the correction for lazy regularisation, the generator too, which has
nothing to regularise.

What the paper leaves open is led by the published code's automatic settings (`TrainConfig`'s
"auto").
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import BadConfig
from models.latents import latent_of_seed
from models.stylegan_v.losses import generator_loss, r1_gamma, r1_penalty
from models.stylegan_v.motion import SegmentEncoder, StreamedMotion
from models.stylegan_v.motion_encoder import MotionEncoder
from models.stylegan_v.networks import Generator
from models.stylegan_v.sampling import random_times
from models.stylegan_v.settings import new_discriminator, new_generator, save_generator
from models.training import ema
from models.training.augment import Adaptive, Chance, augment
from models.training.config import TrainConfig
from models.training.contracts import ClipBatch, ClipRequest, DataInfo, Phase, SampleSheet
from models.training.draws import Draws, visited

LAZY_G = 4  # steps between regularisations that never came
ENDLESS = 1024  # frames: how long a video without end counts as
_SHOWN_PEOPLE, _SHOWN_FRAMES, _CLIP_FRAMES = 8, 6, 50


class Published:
    """A `Trainer` (see `models/training/contracts.py`).

    Args:
        config: The run's.
        info: Of the source.
        device: Where the networks go.
    Raises:
        BadConfig: A table asks for the impossible.
    """

    def __init__(self, config: TrainConfig, info: DataInfo, device: torch.device) -> None:
        self.config, self.info, self.device = config, info, device
        self.generator, self.arguments = new_generator(config, info)
        self.discriminator = new_discriminator(config, info)
        _require_noise(self.generator)
        if self.generator.img_resolution != info.resolution:
            raise BadConfig(
                f"generator.img_resolution is {self.generator.img_resolution}, the data's"
                f" {info.resolution}; without a fit all frames are judged at full size"
            )
        self.generator.to(device).train()
        self.discriminator.to(device).train()
        average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.networks: Mapping[str, nn.Module] = {"G": self.generator, "D": self.discriminator}
        self.averages: Mapping[str, nn.Module] = {"G": average}
        optim = config.optim
        self._lazy = {"G": LAZY_G / (LAZY_G + 1), "D": optim.r1_interval / (optim.r1_interval + 1)}
        self._rates = {"G": optim.lr, "D": optim.lr_d}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(
                network.parameters(),
                lr=self._rates[name] * self._lazy[name],
                betas=(optim.beta1 ** self._lazy[name], optim.beta2 ** self._lazy[name]),
                eps=1e-8,
            )
            for name, network in self.networks.items()
        }
        interval = optim.r1_interval
        self.phases: Sequence[Phase] = (
            Phase("Gmain", "G"),
            Phase("Dmain", "D"),
            Phase("Dreg", "D", interval, float(interval)),
        )
        self.ada = Adaptive(optim.ada_target, optim.ada_kimg, optim.ada_interval, optim.p_max)
        gamma = optim.r1_gamma
        self.r1_gamma = (
            r1_gamma(info.resolution, config.batch.size) if isinstance(gamma, str) else gamma
        )

    # Which clips.

    def requests(self, draws: Draws) -> list[ClipRequest]:
        """Videos in turn (with `data.mirror` each a second time, mirrored), random times of each;
        of one longer than `data.window` the times of a random window.
        """
        batch = self.config.batch
        number = draws.step * batch.size + draws.micro * batch.micro
        random = draws.numpy("data")
        count = len(self.info.lengths)
        if not count:
            wanted = [(number + slot, False, ENDLESS) for slot in range(batch.micro)]
        else:
            copies = 2 if self.config.data.mirror else 1
            wanted = [
                (int(v) % count, int(v) >= count, int(self.info.lengths[int(v) % count]))
                for v in visited(draws.seed, number, batch.micro, count * copies)
            ]
        return [
            ClipRequest(video, self._times(random, length), mirror)
            for video, mirror, length in wanted
        ]

    def _times(self, random: np.random.Generator, length: int) -> tuple[float, ...]:
        window = min(length, self.config.data.window)
        start = int(random.integers(length - window + 1))
        times = random_times(random, window, frames=self.config.batch.frames)
        return tuple((start + times).tolist())

    def latents(self, which: str, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the generated clips of a phase are made of.

        Args:
            which: "g" or "d": each phase has clips of its own.
        Returns:
            z [B, z_dim], c [B, c_dim], t float64 [B, k], motion noise [B, n, motion z_dim]. Label
            and length are those of randomly drawn real videos.
        """
        clips, frames = self.config.batch.micro, self.config.batch.frames
        random = draws.numpy(f"t_{which}")
        count = len(self.info.lengths)
        models = random.integers(max(count, 1), size=clips)
        lengths = self.info.lengths[models] if count else np.full(clips, ENDLESS)
        times = [
            random_times(
                random, min(int(n), self.config.data.window), frames=frames, fractional=True
            )
            for n in lengths
        ]
        t = torch.from_numpy(np.stack(times)).to(self.device)
        c = torch.zeros(clips, 0, device=self.device)
        if self.info.c_dim:
            c = torch.from_numpy(self.info.labels[models]).to(self.device)
        chance = draws.torch(f"z_{which}", self.device)
        z = torch.randn(clips, self.generator.z_dim, device=self.device, generator=chance)
        encoder = self.generator.synthesis.motion_encoder
        assert isinstance(encoder, MotionEncoder)
        return z, c, t, encoder.draw(clips, t, chance)

    # One micro-batch of a phase.

    def accumulate(
        self, phase: Phase, batch: ClipBatch, draws: Draws, share: float
    ) -> Mapping[str, Tensor]:
        """See `Trainer.accumulate`."""
        part = {"Gmain": self._generator, "Dmain": self._discriminator, "Dreg": self._regulariser}
        return part[phase.name](batch, draws, share * phase.gain)

    def _generator(self, batch: ClipBatch, draws: Draws, share: float) -> Mapping[str, Tensor]:
        z, c, t, motion_z = self.latents("g", draws)
        ws = self.generator.mapping(z, c)
        fake = self.generator.synthesis(ws, t=t, c=c, motion_z=motion_z, **self._half())
        logits = self._judged(fake, c, t, draws, "aug_g")
        loss = generator_loss(logits)
        (loss * share).backward()
        clips = self.config.batch.micro / self.config.batch.size
        return {
            "loss": loss,
            "sign": logits.detach().sign().mean(),
            "w": ws[:, 0].detach().mean(0) * clips,
        }

    def _discriminator(self, batch: ClipBatch, draws: Draws, share: float) -> Mapping[str, Tensor]:
        z, c, t, motion_z = self.latents("d", draws)
        with torch.no_grad():
            fake = self.generator(z, c, t, motion_z=motion_z, **self._half())
        logits = self._judged(fake, c, t, draws, "aug_fake")
        loss_fake = F.softplus(logits).mean()
        (loss_fake * share).backward()
        signs = self._judged(self.real(batch), batch.c, batch.t, draws, "aug_real")
        loss_real = F.softplus(-signs).mean()
        (loss_real * share).backward()
        return {
            "loss": (loss_fake + loss_real).detach(),
            "sign_fake": logits.detach().sign().mean(),
            "sign_real": signs.detach().sign().mean(),
            "signs": signs.detach().sign().sum()[None],
        }

    def _regulariser(self, batch: ClipBatch, draws: Draws, share: float) -> Mapping[str, Tensor]:
        real = self.real(batch).detach().requires_grad_()
        logits = self._judged(real, batch.c, batch.t, draws, "aug_real", exact=True)
        penalty = r1_penalty(logits, real, self.config.batch.frames)
        # A zero times the logits gives parameters without second-order gradient one of zero.
        loss = (logits[:, 0] * 0 + penalty * (self.r1_gamma / 2)).mean()
        (loss * share).backward()
        return {"r1": penalty.detach().mean()}

    def real(self, batch: ClipBatch) -> Tensor:
        """Real frames [B * k, 3, R, R] in [-1, 1]."""
        return batch.frames.flatten(0, 1).float() / 127.5 - 1

    def _judged(
        self, img: Tensor, c: Tensor, t: Tensor, draws: Draws, purpose: str, exact: bool = False
    ) -> Tensor:
        """Logits [B, 1] of clips, augmented as it is time for."""
        frames = self.config.batch.frames
        if self.config.optim.augment != "none" and self.ada.p > 0:
            chance = Chance(draws.numpy(purpose), len(t), self.ada.p)
            img = augment(img, frames, chance)
        logits: Tensor = self.discriminator(img, c, t, force_fp32=exact or not self._half_wanted)
        return logits

    @property
    def _half_wanted(self) -> bool:
        return self.config.run.precision == "fp16"

    def _half(self) -> dict[str, bool]:
        return {"force_fp32": not self._half_wanted}

    # Between steps.

    def learning_rate(self, network: str, step: int) -> float:
        """See `Trainer.learning_rate`."""
        base = self._rates[network] * self._lazy[network]
        return self.config.optim.rate(base, step, self.config.total_steps)

    @torch.no_grad()
    def after_step(self, step: int, sums: Mapping[str, Tensor]) -> None:
        """Moves w's average, the averaged generator, and the strength of augmentation."""
        mapping = self.generator.mapping
        if mapping.w_avg_beta is not None:
            mean = sums["Gmain/w"].to(mapping.w_avg)
            mapping.w_avg.copy_(mean.lerp(mapping.w_avg, mapping.w_avg_beta))
        clips = self.config.batch.size
        half_life = self.config.optim.ema_half_life_clips
        if isinstance(half_life, str):
            half_life = clips * 10_000 / 32
        ema.update(self.averages["G"], self.generator, ema.decay(clips, half_life))
        if self.config.optim.augment != "none":
            self.ada.heard(step, float(sums["Dmain/signs"]), clips)

    def aux_state(self) -> dict[str, Tensor]:
        """The strength of augmentation and what it was last told."""
        return {"ada": self.ada.state()}

    def load_aux_state(self, state: Mapping[str, Tensor]) -> None:
        """See `aux_state`."""
        self.ada.load(state["ada"])

    def export(self, path: Path, meta: Mapping[str, Any]) -> Path:
        """See `Trainer.export`."""
        return save_generator(path, self._average, self.arguments, meta)

    @property
    def _average(self) -> Generator:
        average = self.averages["G"]
        assert isinstance(average, Generator)
        return average

    @torch.no_grad()
    def samples(self) -> SampleSheet:
        """Seeds at moments a second apart, and the first of them as clips."""
        rows = [self._shown(s, np.arange(_SHOWN_FRAMES) * 1.0) for s in range(_SHOWN_PEOPLE)]
        moments = np.arange(_CLIP_FRAMES) / self.info.fps
        clips = [self._shown(seed, moments) for seed in range(2)]
        return SampleSheet(torch.stack(rows), torch.stack(clips), self.info.fps)

    def _shown(self, seed: int, times: np.ndarray) -> Tensor:
        """uint8 [n, 3, R, R]: what a session of this seed shows at these seconds."""
        average = self._average
        z, c = latent_of_seed(seed, average.z_dim, average.c_dim, self.device)
        encoder = average.synthesis.motion_encoder
        assert isinstance(encoder, MotionEncoder)
        source = StreamedMotion(
            SegmentEncoder(encoder), fps=self.info.fps, seed=seed, label=c.cpu()
        )
        ws = average.mapping(z, c)
        frames = [
            average.synthesis(ws, motion_v=source.sample(float(t)).tensors["v"].to(self.device))
            for t in times
        ]
        whole = torch.cat(frames).clamp(-1, 1) * 127.5 + 127.5
        return whole.round().to("cpu", torch.uint8)


def build(config: TrainConfig, info: DataInfo, device: torch.device) -> Published:
    """See `models.registry.TRAINERS`."""
    return Published(config, info, device)


def _require_noise(generator: Generator) -> None:
    encoder = generator.synthesis.motion_encoder
    if generator.config.content != "normal" or not isinstance(encoder, MotionEncoder):
        raise BadConfig(
            "published training starts from noise; a generator of traits and tracks is fitted"
            ' first (system = "stylegan_v_fit")'
        )
