"""Figures of faces on systems whose faces are known to the last bit.

`Oracle` draws by the renderer itself. `Stamped` writes the numbers of a face into its pixels, and
`Reader` reads them again: what is between the two is what is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.contracts import Identity, MotionCode, Synthesizer
from models.errors import BadConfig
from models.faces.prior import Prior, person
from models.faces.state import CODE_SIZE, EXPRESSION, part
from models.faces.tracks import Track
from models.faces.traits import Traits, shrink
from models.metrics.faces import correlation, false_faces, is_face, likeness, numbered, streams
from models.metrics.observer import EMBEDDING, SIDE, Observation
from models.metrics.truth import Truth

from .clips import DiscSystem
from .test_landmarks import face

_BLOCK = 8  # pixels of a number
_FIRST_WEIGHT = part("expression").start
_BLINK = _FIRST_WEIGHT + EXPRESSION["eyeBlink_L"]
_JAW = _FIRST_WEIGHT + EXPRESSION["jawOpen"]
Change = Callable[[Tensor, float], Tensor]


class _Motion:
    def __init__(self, track: Track) -> None:
        self._track = track

    def sample(self, t: float) -> MotionCode:
        code = torch.from_numpy(self._track.codes(np.array([t])))
        return MotionCode({"code": code, "t": torch.tensor([[t]])}, t)


class _Known:
    """What the systems here have in common."""

    name, trained = "known", True
    resolution: int

    def traits(self, *, seed: int, psi: float = 1.0) -> Traits:
        return shrink(person(seed, Prior.NARROW), psi)

    def track(self, *, seed: int) -> Track:
        return Track(seed)

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        traits = torch.from_numpy(self.traits(seed=seed, psi=psi).vector.copy())[None]
        return Identity({"seed": torch.tensor([[float(seed)]]), "traits": traits})

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        return a

    def motion(self, *, seed: int, who: int | None = None) -> _Motion:
        return _Motion(self.track(seed=seed))


class _Stamps(Synthesizer):
    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        rows = SIDE // _BLOCK
        numbers = torch.zeros(len(motion.tensors["code"]), rows * rows)
        for k, (code, t) in enumerate(
            zip(motion.tensors["code"], motion.tensors["t"][:, 0].tolist(), strict=True)
        ):
            numbers[k, :CODE_SIZE] = self._change(code.clone(), t)
        numbers[:, CODE_SIZE] = identity.tensors["seed"][:, 0] / 64
        grid = numbers.clamp(-1, 1).view(-1, 1, rows, rows)
        return grid.repeat_interleave(_BLOCK, 2).repeat_interleave(_BLOCK, 3).expand(-1, 3, -1, -1)


class Stamped(_Known):
    resolution = SIDE

    def __init__(self, change: Change = lambda code, t: code) -> None:
        self.synthesizer: Synthesizer = _Stamps(change)


class Reader(nn.Module):
    """Reads what `Stamped` wrote; who it is comes out as a direction of its own."""

    def forward(self, pictures: Tensor) -> Observation:
        middle = _BLOCK // 2
        numbers = pictures[:, 0, middle::_BLOCK, middle::_BLOCK].flatten(1)
        marks = face().repeat(len(numbers), 1, 1)
        shut = numbers[:, _BLINK].clamp(0, 1)
        for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
            marks[:, upper] += shut[:, None] * (marks[:, lower] - marks[:, upper])
        marks[:, 66, 1] += 0.1 * numbers[:, _JAW]
        seed = (numbers[:, CODE_SIZE] * 64).round().long()
        who = torch.nn.functional.one_hot(seed.clamp(min=0), EMBEDDING).float()
        return Observation(
            presence=torch.ones(len(numbers)),
            landmarks=marks,
            visible=torch.ones(len(numbers), 68),
            pose=numbers[:, :3],
            gaze=numbers[:, 3:5],
            expression=numbers[:, _FIRST_WEIGHT:CODE_SIZE],
            embedding=who + numbers[:, CODE_SIZE + 1 : CODE_SIZE + 2],
            traits=torch.zeros(len(numbers), 107),
        )


def observed(change: Change = lambda code, t: code):  # type: ignore[no-untyped-def]
    reader: nn.Module = Reader()
    return streams(Stamped(change), reader, [0, 1, 2], seconds=20)  # type: ignore[arg-type]


def test_a_stream_that_does_what_its_track_says() -> None:
    seen = observed()
    assert seen.yaw_correlation > 0.999 and seen.pitch_correlation > 0.999
    assert seen.yaw_low < -15 and seen.yaw_high > 15
    assert seen.blinks == 1.0
    assert seen.identity > 0.99 and seen.identity_ratio < 0.05
    assert (seen.people, seen.seconds) == (3, 20)


def test_movements_are_of_seeds_that_training_never_saw(truth: Truth) -> None:
    system = Oracle(truth)
    asked: list[int] = []

    def track(*, seed: int) -> Track:
        asked.append(seed)
        return Track(seed)

    system.track = track  # type: ignore[method-assign]
    likeness(system, truth, None, [0, 1], moments=1)
    assert len(asked) == 4 and min(asked) >= 1_000_000


def test_a_stream_that_looks_the_wrong_way_and_never_blinks() -> None:
    def wrong(code: Tensor, t: float) -> Tensor:
        code[0] = -code[0]
        code[_BLINK] = 0
        return code

    seen = observed(wrong)
    assert seen.yaw_correlation < -0.999 and seen.pitch_correlation > 0.999
    assert seen.blinks == 0.0


def test_a_stream_that_hardly_turns() -> None:
    def stiff(code: Tensor, t: float) -> Tensor:
        code[0] *= 0.2
        return code

    seen = observed(stiff)
    assert -8 < seen.yaw_low and seen.yaw_high < 8


def test_somebody_who_becomes_somebody_else() -> None:
    class Turncoat(_Stamps):
        def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
            late = motion.tensors["t"] > 10
            seed = torch.where(late, (identity.tensors["seed"] + 1) % 3, identity.tensors["seed"])
            return super().forward(Identity({"seed": seed}), motion)

    system = Stamped()
    system.synthesizer = Turncoat(lambda code, t: code)
    seen = streams(system, Reader(), [0, 1, 2], seconds=20)  # type: ignore[arg-type]
    assert seen.identity_ratio > 0.5 and seen.identity < 0.8


class _Renders(Synthesizer):
    def __init__(self, truth: Truth, change: Change) -> None:
        super().__init__()
        self._truth, self._change = truth, change

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        codes = torch.stack([self._change(code.clone(), 0.0) for code in motion.tensors["code"]])
        traits = Traits(identity.tensors["traits"][0].numpy())
        return self._truth.frames(traits, codes.numpy()).frames / 127.5 - 1


class Oracle(_Known):
    resolution = 64

    def __init__(self, truth: Truth, change: Change = lambda code, t: code) -> None:
        self.synthesizer: Synthesizer = _Renders(truth, change)


@pytest.fixture(scope="module")
def truth(facekit: Path | None) -> Truth:
    return Truth(64, facekit)


def test_the_renderer_is_like_itself(truth: Truth) -> None:
    same = likeness(Oracle(truth), truth, None, [0, 1], moments=3)
    assert same.psnr > 90 and same.psnr_head > 90
    assert same.sharpness == 1.0
    assert np.isnan(same.faces)
    assert (same.people, same.frames) == (2, 6)


def test_others_are_less_like_and_blur_is_less_sharp(truth: Truth) -> None:
    def late(code: Tensor, t: float) -> Tensor:
        code[0] += 0.15  # nine degrees
        return code

    class Soft(_Renders):
        def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
            return nn.functional.avg_pool2d(super().forward(identity, motion), 3, 1, 1)

    turned = likeness(Oracle(truth, late), truth, None, [0], moments=3)
    assert 8 < turned.psnr_head < turned.psnr < 40
    system = Oracle(truth)
    system.synthesizer = Soft(truth, lambda code, t: code)
    soft = likeness(system, truth, None, [0], moments=3)
    assert soft.sharpness < 0.4 < 20 < soft.psnr < 60


def test_truth_tells_landmarks_in_shares_and_where_somebody_is(truth: Truth) -> None:
    real = truth.frames(person(1, Prior.NARROW), np.zeros((2, CODE_SIZE), np.float32))
    assert real.frames.shape == (2, 3, 64, 64)
    assert 0 < real.landmarks.min() and real.landmarks.max() < 1
    inside = (real.landmarks[0, 30] * 64).long()
    assert bool(real.head[0, inside[1], inside[0]]) and not bool(real.head[0, 0, 0])
    with pytest.raises(BadConfig, match="no moment"):
        truth.frames(person(1, Prior.NARROW), np.zeros((0, CODE_SIZE), np.float32))


def test_a_face_must_be_there_and_be_in_place() -> None:
    reader, frames = Reader(), torch.full((2, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    marks, seen = face().repeat(2, 1, 1), torch.ones(2, 68, dtype=torch.bool)
    marks[1, :40] += torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * 0.15
    assert is_face(reader, frames, marks, seen).tolist() == [True, False]  # type: ignore[arg-type]


def test_a_judge_that_sees_faces_everywhere_is_found_out(truth: Truth) -> None:
    class Dreamer(Reader):
        """Sees the same face in everything: the check is by landmarks too."""

        def forward(self, pictures: Tensor) -> Observation:
            seen = super().forward(pictures)
            return seen._replace(landmarks=self.face.expand(len(pictures), -1, -1))

    dreamer = Dreamer()
    dreamer.face = truth.frames(
        person(0, Prior.NARROW), Track(1_000_000).codes(np.array([0.0]))
    ).landmarks
    found = false_faces(dreamer, truth, Oracle(truth), 24)  # type: ignore[arg-type]
    assert 3 / 24 <= found <= 1


def test_systems_without_numbers_are_refused() -> None:
    with pytest.raises(BadConfig, match="discs knows no numbers of its faces"):
        numbered(DiscSystem())
    assert numbered(Stamped()).name == "known"


def test_correlation_of_what_does_not_vary_is_none() -> None:
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
